-- What a commit was made for, as W3C Trace Context writes it, so that whoever follows it, in whatever process, goes on with its trace.
-- Null for a commit that is not recorded, which is every one where traces are off: a row with nothing else missing pays no byte
-- for that, since the byte that says so stands where its header was padded. One that is recorded pays 56 bytes.

-- Without a constraint, which every row there is would have to be read for while nobody may write; only the function below writes it.
alter table stock_commits add column traceparent text;

-- The same as with two arguments, which stays for processes that know only that one, and for commits that are not recorded.
create function stock_publish(published_batch bigint, drawn_tag integer, caused_by text)
returns table (version bigint, tag integer, previous_tag integer, committed_at_us bigint)
language plpgsql
as $$
declare
    newest stock_commits%rowtype;
    made stock_commits%rowtype;
begin
    perform pg_advisory_xact_lock(hashtext('stock_commits'));
    select * into strict newest from stock_commits c order by c.version desc limit 1;
    insert into stock_commits (version, tag, batch, committed_at, traceparent)
    values (
        newest.version + 1,
        drawn_tag,
        published_batch,
        greatest(clock_timestamp(), newest.committed_at + interval '1 microsecond'),
        caused_by
    )
    returning * into strict made;
    perform pg_notify('stock_commits', current_setting('application_name'));
    return query
        select made.version, made.tag, newest.tag, (extract(epoch from made.committed_at) * 1000000)::bigint;
end
$$;

grant execute on function stock_publish(bigint, integer, text) to stockyard_app;
