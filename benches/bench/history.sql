-- $1 movements of one unit from one key to another of the same product, with their ledger, in $5 batches of $6 rows. There
-- are $2 keys of $3 warehouses and $4 products, numbered by warehouse and product.
with moved as (
    insert into movements (movement_id, product_id, departure_at, departure_quantity, departure_warehouse_id,
        arrival_at, arrival_quantity, arrival_warehouse_id, sides_set_last)
    select gen_random_uuid(), f.product_id, now(), 1, f.warehouse_id, now(), 1, t.warehouse_id, 3
    from (
        select (random() * $2)::bigint % $2 as departs, 1 + (random() * $3)::bigint % ($3 - 1) as further
        from generate_series(1, $1::bigint)
    ) pick
    join stock_levels f on f.inventory_id = 1 + departs
    join stock_levels t on t.inventory_id = 1 + (departs + further * $4::bigint) % $2
    returning movement_id, product_id, departure_warehouse_id, arrival_warehouse_id
), numbered as (
    select *, row_number() over () as n from moved
), batches as (
    select n, nextval('stock_batches') as batch from generate_series(0, $5::bigint - 1) n
)
insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
    occurred_at, cause_id, kind)
select b.batch, l.inventory_id, b.batch, side.delta, 0, 0, 0, now(), m.movement_id, side.kind
from numbered m
join batches b on b.n = m.n / ($6::bigint / 2) % $5
cross join lateral (
    values (m.departure_warehouse_id, -1, 1), (m.arrival_warehouse_id, 1, 2)
) as side (warehouse_id, delta, kind)
join stock_levels l on l.warehouse_id = side.warehouse_id and l.product_id = m.product_id
order by b.batch, l.inventory_id
