-- An owner that is no superuser has to be let become the role that serves. From PostgreSQL 16 on one that made the role is its
-- administrator, which counts as a member and may still not become it.

do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant stockyard_app to %I', current_user);
    end if;
end
$$;
