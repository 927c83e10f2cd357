-- One row per movement and product, its departure and its arrival side by side. A side is set once.

create table movements (
    movement_id uuid not null,
    product_id uuid not null,
    departure_at timestamptz,
    departure_quantity bigint,
    arrival_at timestamptz,
    arrival_quantity bigint,
    departure_warehouse_id uuid,
    arrival_warehouse_id uuid,
    -- Which sides the latest write set: 1 the departure, 2 the arrival, 3 both. It is how the write itself learns
    -- which of the facts it carried were new, without reading the row first.
    sides_set_last smallint not null,
    primary key (movement_id, product_id),
    -- A side is there as a whole or not at all.
    constraint a_departure_is_whole check (
        (departure_at is null) = (departure_quantity is null) and (departure_at is null) = (departure_warehouse_id is null)
    ),
    constraint an_arrival_is_whole check (
        (arrival_at is null) = (arrival_quantity is null) and (arrival_at is null) = (arrival_warehouse_id is null)
    ),
    -- A line with no side would be a movement nobody reported.
    constraint a_line_has_a_side check (departure_at is not null or arrival_at is not null)
) with (fillfactor = 85); -- room for the second side beside the first

-- What is under way, longest first: the lists and totals of open movements read nothing else.
create index movements_open on movements (departure_at) where arrival_at is null;
