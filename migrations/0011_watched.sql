-- What the catalogue said of a thing at some version: a follower that begins asks it of what changed just before.
create index catalogue_changes_by_id on catalogue_changes (coalesce(product_id, warehouse_id), batch);

-- What is low is looked for among the products that can be.
create index products_with_minimum on products (product_id) where min_stock is not null;
create index products_with_reorder_point on products (product_id) where reorder_point is not null;
