-- Products and warehouses. One that is first seen in an event is created with its id alone, so every level has both
-- its rows; names and codes come later, from the catalogue or (a warehouse's code) from an event's source.

create table products (
    product_id uuid primary key
        -- The nil id stands for "none" in answers, so it can name nothing.
        constraint a_product_is_not_nil check (product_id <> '00000000-0000-0000-0000-000000000000'),
    -- Looked up in paths, so no two products share one.
    sku text unique,
    name text
);

create table warehouses (
    warehouse_id uuid primary key
        constraint a_warehouse_is_not_nil check (warehouse_id <> '00000000-0000-0000-0000-000000000000'),
    -- Looked up in paths, so no two warehouses share one.
    code text unique,
    name text
);
