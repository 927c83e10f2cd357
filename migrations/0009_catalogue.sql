-- The catalogue: what products and warehouses are called, and below what they count as low.

alter table products
    -- A key of the product is low at or below this; null: never.
    add column min_stock bigint constraint a_minimum_is_not_negative check (min_stock >= 0),
    -- The product is to be reordered when what is available of it everywhere is at or below this; null: never.
    add column reorder_point bigint constraint a_reorder_point_is_not_negative check (reorder_point >= 0);

-- Every change of the catalogue with what it left, in the batch of its commit: a follower learns from it what a version's names and
-- minima were, so that every process says the same of that version. Append-only, like the ledger.
create table catalogue_changes (
    batch bigint not null,
    product_id uuid,
    warehouse_id uuid,
    -- The product's sku or the warehouse's code.
    code text,
    name text,
    min_stock bigint,
    reorder_point bigint,
    constraint a_change_is_of_one_thing check ((product_id is null) <> (warehouse_id is null))
);

-- Followers ask by batch.
create index catalogue_changes_by_batch on catalogue_changes (batch);

grant select, insert on catalogue_changes to stockyard_app;
