-- Moves a lane's positions on, each only from where it was left. It fails where one is elsewhere, so that it can be said in one message
-- with what publishes and commits: nobody has to look at an answer between the two, while the levels of the batch are locked.

create procedure stock_advance(of_topic text, of_lane smallint, partitions integer[], left_at bigint[], next_offsets bigint[])
language plpgsql
as $$
declare
    stuck integer;
begin
    with steps as (
        select * from unnest(partitions, left_at, next_offsets) as s (partition, left_at, next_offset)
    ), moved as (
        update ingest_progress p set next_offset = s.next_offset
        from steps s
        where p.topic = of_topic and p.lane = of_lane and p.partition = s.partition and p.next_offset = s.left_at
        returning p.partition
    )
    select min(s.partition) into stuck from steps s where s.partition not in (select partition from moved);
    if stuck is not null then
        raise exception using errcode = 'ST001', message = format('%s/%s', of_topic, stuck);
    end if;
end
$$;

grant execute on procedure stock_advance(text, smallint, integer[], bigint[], bigint[]) to stockyard_app;
