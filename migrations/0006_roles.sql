-- The role that serves. It appends to the ledger and to the order of commits and can do nothing else to them, whatever
-- the code says; migrations run as the owner. Roles belong to the server, not to the database: it may be there already.

do $$
begin
    if not exists (select from pg_roles where rolname = 'stockyard_app') then
        create role stockyard_app nologin;
    end if;
    if not pg_has_role(current_user, 'stockyard_app', 'member') then
        execute format('grant stockyard_app to %I', current_user);
    end if;
end
$$;

grant usage on schema public to stockyard_app;
grant select, insert on stock_ledger, stock_commits to stockyard_app;
grant select, insert, update on movements, stock_levels, ingest_progress, products, warehouses to stockyard_app;
grant usage, select on sequence stock_inventory_ids, stock_batches to stockyard_app;
grant execute on function stock_ledger_make_room, stock_publish to stockyard_app;
-- Whether the migrations are current is part of readiness.
grant select on _sqlx_migrations to stockyard_app;
