-- The ledger is the truth, a level is its sum: for every key, always, sum(on_hand_delta) = on_hand.

-- Gaps are fine (an upsert that finds its row takes a number too); the cache keeps them from costing a log record each.
create sequence stock_inventory_ids cache 32;

create table stock_levels (
    warehouse_id uuid not null,
    product_id uuid not null,
    -- Given once, never changed: the ledger's short name for the key.
    inventory_id bigint not null default nextval('stock_inventory_ids') unique,
    -- May be negative: facts come in any order, and some never come.
    on_hand bigint not null,
    reserved bigint not null constraint reserved_is_never_negative check (reserved >= 0),
    -- One more for each batch that touched the key.
    revision bigint not null,
    updated_at timestamptz not null,
    primary key (warehouse_id, product_id)
) with (fillfactor = 75); -- no index on what changes and room on the page: updates stay heap-only
alter sequence stock_inventory_ids owned by stock_levels.inventory_id;

-- A batch is one transaction's rows in the ledger. Its number is drawn before the commit, so it orders nothing.
create sequence stock_batches;

create table stock_ledger (
    batch bigint not null,
    inventory_id bigint not null,
    -- The level's revision after this batch: all rows of one key in one batch share it, and the state after it.
    revision bigint not null,
    on_hand_delta bigint not null,
    reserved_delta bigint not null,
    on_hand_after bigint not null,
    reserved_after bigint not null,
    occurred_at timestamptz not null,
    movement_id uuid,
    -- 1 departure, 2 arrival.
    kind smallint not null
) partition by range (batch);

create index stock_ledger_by_key on stock_ledger (inventory_id, revision);
create index stock_ledger_by_batch on stock_ledger (batch);

-- Makes room for coming batches. Partition n holds the batches from n * 2^32; the sequence moves on to the next range
-- once the open partition has grown to `bytes_max`, so that the indexes a writer touches stay small. A partition is made
-- one range ahead of need. Attaching an empty table does not block writers (creating it as a partition would).
-- It runs with its owner's rights: the role that serves cannot create tables.
create function stock_ledger_make_room(bytes_max bigint) returns void
language plpgsql security definer
-- The caller's search path must not choose what this function writes to.
set search_path from current
as $$
declare
    span constant bigint := 4294967296;
    open_range bigint;
    relation text;
begin
    if not pg_try_advisory_xact_lock(hashtext('stock_ledger_make_room')) then
        return; -- another process is at it
    end if;
    select last_value / span into open_range from stock_batches;
    if coalesce(pg_relation_size(to_regclass('stock_ledger_' || open_range)), 0) >= bytes_max
        and to_regclass('stock_ledger_' || (open_range + 1)) is not null
    then
        open_range := open_range + 1;
        perform setval('stock_batches', open_range * span);
    end if;
    for n in open_range .. open_range + 1 loop
        relation := 'stock_ledger_' || n;
        if to_regclass(relation) is null then
            execute format('create table %I (like stock_ledger)', relation);
            execute format(
                'alter table stock_ledger attach partition %I for values from (%s) to (%s)',
                relation, n * span, (n + 1) * span
            );
        end if;
    end loop;
end
$$;
revoke all on function stock_ledger_make_room from public;

select stock_ledger_make_room(0);
