-- When the levels that a commit changed say that they changed: their `updated_at`, unless a level says a later time already. So whoever
-- follows the commit knows a level that it changed whole, and need not read it. Null for a commit of a process that knows nothing of
-- it, and for one that changed no level.

-- Without a constraint, which every row there is would have to be read for while nobody may write; only the function below writes it.
alter table stock_commits add column levels_changed_at timestamptz;

create function stock_publish(published_batch bigint, drawn_tag integer, changed_at timestamptz, caused_by text)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language plpgsql
as $$
declare
    newest stock_commits%rowtype;
    made stock_commits%rowtype;
begin
    perform pg_advisory_xact_lock(hashtext('stock_commits'));
    select * into strict newest from stock_commits c order by c.version desc limit 1;
    insert into stock_commits (version, tag, batch, committed_at, levels_changed_at, traceparent)
    values (
        newest.version + 1,
        drawn_tag,
        published_batch,
        greatest(clock_timestamp(), newest.committed_at + interval '1 microsecond'),
        changed_at,
        caused_by
    )
    returning * into strict made;
    perform pg_notify('stock_commits', current_setting('application_name'));
    return query
        select made.version, made.tag, newest.tag, (extract(epoch from made.committed_at) * 1000000)::bigint;
end
$$;

grant execute on function stock_publish(bigint, integer, timestamptz, text) to stockyard_app;

-- For processes that know only these.
create or replace function stock_publish(published_batch bigint, drawn_tag integer)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language sql
as $$
    select * from stock_publish(published_batch, drawn_tag, null, null)
$$;

create or replace function stock_publish(published_batch bigint, drawn_tag integer, caused_by text)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language sql
as $$
    select * from stock_publish(published_batch, drawn_tag, null, caused_by)
$$;
