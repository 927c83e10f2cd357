-- Who publishes draws the tag: with it a writer that did not hear the end of its commit can tell its own from another one that was given
-- the same batch number, after a server was lost with its last commits.

create function stock_publish(published_batch bigint, drawn_tag integer)
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
        drawn_tag,
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

-- A tag of the database's own.
create or replace function stock_publish(published_batch bigint)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language sql
as $$
    select * from stock_publish(published_batch, ('x' || left(gen_random_uuid()::text, 8))::bit(32)::integer)
$$;

grant execute on function stock_publish(bigint, integer) to stockyard_app;
