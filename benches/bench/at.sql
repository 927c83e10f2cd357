-- $1 changes in batches of $2, committed every $3 seconds: three of ten of the key 1, one of fifty of each of the keys 2 to 10, the
-- others of $4 further keys. Each happened up to six hours before its commit.
with picked as materialized (
    select n / $2::bigint as b, 1 + (random() * 20)::bigint - 9 as delta, random() as late,
        case when random() < 0.3 then 1
            when random() < 0.18 / 0.7 then 2 + floor(random() * 9)::bigint
            else 11 + floor(random() * $4::bigint)::bigint
        end as inventory_id
    from generate_series(0, $1::bigint - 1) n
), commits as materialized (
    select b, nextval('stock_batches') as batch, newest.version + 1 + b as version,
        newest.committed_at + (1 + b) * make_interval(secs => $3::double precision) as committed_at
    from generate_series(0, ($1::bigint - 1) / $2) b,
        (select version, committed_at from stock_commits order by version desc limit 1) newest
), published as (
    insert into stock_commits (version, tag, batch, committed_at) select version, 1, batch, committed_at from commits
), states as materialized (
    select inventory_id, b, l.revision + row_number() over so_far as revision, l.on_hand + sum(k.delta) over so_far as on_hand
    from (select inventory_id, b, sum(delta) as delta from picked group by inventory_id, b) k
    join stock_levels l using (inventory_id)
    window so_far as (partition by inventory_id order by b)
), levels as (
    update stock_levels l set on_hand = s.on_hand, revision = s.revision
    from (select distinct on (inventory_id) * from states order by inventory_id, b desc) s
    where l.inventory_id = s.inventory_id
)
insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
    occurred_at, cause_id, kind)
select c.batch, p.inventory_id, s.revision, p.delta, 0, s.on_hand, 0, c.committed_at - p.late * interval '6 hours',
    gen_random_uuid(), case when p.delta < 0 then 1 else 2 end
from picked p join states s using (inventory_id, b) join commits c using (b)
order by c.batch, p.inventory_id
