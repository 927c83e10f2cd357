-- What is under way, what is usual, and what ended otherwise than it began.

-- Short and over movements, and arrivals of which no departure is known: the lists and totals of them read nothing else.
create index movements_different on movements (arrival_at)
    where arrival_at is not null and departure_quantity is distinct from arrival_quantity;

-- How long movements from a warehouse took: counts in buckets a quarter of a power of two wide (`domain::transit`). Where one
-- goes is only known once it has arrived, so what is usual is told by where it came from. Learned from commits in passing: a
-- sample under load, so nothing but "usual" rests on it.
create table transit_times (
    departure_warehouse_id uuid not null,
    bucket smallint not null,
    movements bigint not null,
    primary key (departure_warehouse_id, bucket)
);

-- What follows from those.
create table transit_usual (
    departure_warehouse_id uuid primary key,
    -- Half of them took no longer.
    usual_seconds double precision not null,
    -- 99 of 100 took no longer.
    late_after_seconds double precision not null
);

-- Up to which version was learned. Whoever moves it has counted what lies between; there is one row, and who writes to the two
-- tables above locks it first.
create table transit_progress (
    is_only boolean primary key default true constraint there_is_one_row check (is_only),
    version bigint not null
);
insert into transit_progress (version) values (0);

grant select, insert, update on transit_times, transit_usual to stockyard_app;
grant select, update on transit_progress to stockyard_app;

-- Where a line stands, as clients read it.
create function movement_status(m movements) returns text
language sql immutable
as $$
    select case
        when m.arrival_at is null then 'in_transit'
        when m.departure_at is null then 'arrival_only'
        when m.departure_quantity > m.arrival_quantity then 'short'
        when m.departure_quantity < m.arrival_quantity then 'over'
        else 'complete'
    end
$$;

-- Whether a line has been under way for longer than that.
create function movement_is_overdue(m movements, late_after_seconds double precision) returns boolean
language sql stable
as $$
    select m.arrival_at is null and m.departure_at < now() - make_interval(secs => late_after_seconds)
$$;

-- Whether a list shows a line; what is null asks for nothing.
create function movement_is_wanted(
    m movements, late_after_seconds double precision, status text, warehouse uuid, product uuid,
    departed_after timestamptz, departed_before timestamptz, is_overdue boolean
) returns boolean
language sql stable
as $$
    select (
        (status is null or movement_status(m) = status)
        and (warehouse is null or warehouse in (m.departure_warehouse_id, m.arrival_warehouse_id))
        and (product is null or m.product_id = product)
        and (departed_after is null or m.departure_at >= departed_after)
        and (departed_before is null or m.departure_at < departed_before)
        and (is_overdue is null or movement_is_overdue(m, late_after_seconds) = is_overdue)
    ) is true -- a missing side is not the one that is asked for
$$;
