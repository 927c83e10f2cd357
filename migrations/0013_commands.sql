-- Requests that are decided: adjustments, reservations, orders, and sides of movements taken back.

-- What a row of the ledger is because of: the movement (kinds 1, 2, 13, 14), the reservation (9 to 12), or the command itself
-- (3 to 8). One column for all, because a row that says nothing of something still pays for a place to say it.
--
-- Kinds: 1 departure, 2 arrival, 3 sale, 4 damage, 5 restock, 6 return, 7 adjustment, 8 count, 9 reservation, 10 release,
-- 11 confirm, 12 expiry, 13 a departure taken back, 14 an arrival taken back.
alter table stock_ledger rename column movement_id to cause_id;

-- Who did it and why, where somebody said so. Append-only, like the ledger.
create table stock_notes (
    batch bigint not null,
    cause_id uuid not null,
    kind smallint not null,
    actor text,
    reason text,
    reference text,
    primary key (cause_id, batch, kind),
    constraint a_note_says_something check (num_nonnulls(actor, reason, reference) > 0)
);

-- A level that was locked before it was known whether it would be needed has revision 0 until then, and is taken away again in
-- the same transaction if it was not. Whatever the code says, nothing else can be deleted.
create function stock_levels_forget(inventory_ids bigint[]) returns void
language sql security definer
set search_path from current
as $$
    delete from stock_levels where inventory_id = any(inventory_ids) and revision = 0
$$;
revoke all on function stock_levels_forget from public;

-- One row for each reservation and level it has units of. All rows of a reservation are made together.
create table reservations (
    reservation_id uuid not null,
    inventory_id bigint not null,
    quantity bigint not null constraint something_is_reserved check (quantity > 0),
    -- 1 active, 2 confirmed, 3 released, 4 expired, 5 returned (confirmed, then given back), 6 shipped.
    state smallint not null constraint a_state_is_known check (state between 1 and 6),
    created_at timestamptz not null,
    -- Null: never.
    expires_at timestamptz,
    -- When the state or the time of expiry last changed.
    changed_at timestamptz not null,
    -- The batch that made it, and the one since which it is not active.
    made_in bigint not null,
    ended_in bigint,
    reference text,
    primary key (reservation_id, inventory_id),
    constraint what_is_active_has_not_ended check ((state = 1) = (ended_in is null))
);

-- What is active of a key and when it expires: read with every level that has something reserved.
create index reservations_active on reservations (inventory_id, expires_at) where state = 1;
-- What is due: looked for every second.
create index reservations_due on reservations (expires_at) where state = 1 and expires_at is not null;

-- Units of a level that are reserved by what is due and not swept yet. Reads subtract them.
create function stock_due(of_level bigint, reserved bigint) returns bigint
language sql stable
as $$
    select case when reserved = 0 then 0 else coalesce((
        select sum(r.quantity)::bigint from reservations r
        where r.state = 1 and r.inventory_id = of_level and r.expires_at <= now()
    ), 0) end
$$;

-- When the next of a level's active reservations expires; null if none does.
create function stock_expires_next(of_level bigint, reserved bigint) returns timestamptz
language sql stable
as $$
    select case when reserved = 0 then null else (
        select min(r.expires_at) from reservations r
        where r.state = 1 and r.inventory_id = of_level and r.expires_at > now()
    ) end
$$;

-- The answers to commands that carried a key, for whoever asks again. Written in the transaction of the effect.
create table idempotency_keys (
    principal text not null,
    route text not null,
    key text not null,
    -- A hash of the request: the same key with another request is refused.
    fingerprint uuid not null,
    status smallint not null,
    body bytea not null,
    -- Of the commit that the answer was given with; null where nothing was committed.
    batch bigint,
    created_at timestamptz not null,
    primary key (principal, route, key)
);
-- The old ones go together, and rows lie in the order of their times.
create index idempotency_keys_by_time on idempotency_keys using brin (created_at);

-- A side that was taken back, as it was reported. The same report coming again is a duplicate; another one is the correction.
create table movement_voids (
    movement_id uuid not null,
    product_id uuid not null,
    -- 1 the departure, 2 the arrival.
    side smallint not null constraint a_side_is_one_of_two check (side in (1, 2)),
    warehouse_id uuid not null,
    at timestamptz not null,
    quantity bigint not null,
    batch bigint not null,
    primary key (movement_id, product_id, side, batch)
);

-- Which sides were ever taken back, as bits: where one was, what comes for the line is compared with what was taken back first.
alter table movements add column sides_voided smallint not null default 0;
-- A line of which every side was taken back stays, so that what was taken back is known when it comes again.
alter table movements drop constraint a_line_has_a_side;
alter table movements add constraint a_line_has_a_side
    check (departure_at is not null or arrival_at is not null or sides_voided <> 0);

-- Orders: each is a reservation and what it was made for. What became of it is the reservation's state.
alter table products
    add column number bigint generated by default as identity unique,
    add column price numeric(16, 2) constraint a_price_is_not_negative check (price >= 0),
    add column archived_at timestamptz;
create table orders (
    order_id bigint generated by default as identity primary key,
    reservation_id uuid not null unique,
    product_id uuid not null,
    quantity bigint not null,
    unit_price numeric(16, 2) not null,
    created_at timestamptz not null
);
create index orders_by_product on orders (product_id);

alter table catalogue_changes add column is_archived boolean not null default false;

grant select, insert on stock_notes, movement_voids, orders to stockyard_app;
grant select, insert, update on reservations to stockyard_app;
grant select, insert, update, delete on idempotency_keys to stockyard_app;
grant execute on function stock_levels_forget to stockyard_app;
