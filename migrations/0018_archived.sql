-- Those of these products that are archived by now: a statement that waited for a lock still sees the rest as it was when it began,
-- but each statement of a volatile function sees what has been committed since.
create function stock_archived(of_products uuid[]) returns uuid[]
language sql volatile
as $$
    select array(select product_id from products where product_id = any(of_products) and archived_at is not null)
$$;
grant execute on function stock_archived to stockyard_app;
