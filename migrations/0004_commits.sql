-- The order of commits is one number with a tag. The writer holds an advisory transaction lock from here to its commit,
-- so versions become visible in order and without holes. A restored database gives the same numbers again with other
-- tags, and every follower, cache and client notices by itself.

create table stock_commits (
    version bigint primary key,
    tag integer not null,
    batch bigint not null unique,
    -- Set under the lock, strictly increasing.
    committed_at timestamptz not null
);

-- Version 0 is the empty database. Its tag tells one empty database from another.
insert into stock_commits (version, tag, batch, committed_at)
values (0, ('x' || left(gen_random_uuid()::text, 8))::bit(32)::integer, 0, clock_timestamp());

-- Takes the next version for a batch and wakes the followers; the caller commits in the same message. Two statements,
-- because what is the largest version can only be read after the lock is held: a statement does not see what was
-- committed while it waited.
create function stock_publish(published_batch bigint)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language plpgsql
as $$
declare
    newest stock_commits%rowtype;
    made stock_commits%rowtype;
begin
    perform pg_advisory_xact_lock(hashtext('stock_commits'));
    select * into strict newest from stock_commits c order by c.version desc limit 1;
    insert into stock_commits (version, tag, batch, committed_at)
    values (
        newest.version + 1,
        ('x' || left(gen_random_uuid()::text, 8))::bit(32)::integer,
        published_batch,
        greatest(clock_timestamp(), newest.committed_at + interval '1 microsecond')
    )
    returning * into strict made;
    -- Who published it: a process is told of its own commits in memory, sooner.
    perform pg_notify('stock_commits', current_setting('application_name'));
    return query
        select made.version, made.tag, newest.tag, (extract(epoch from made.committed_at) * 1000000)::bigint;
end
$$;
