-- What is due, as reads subtract it.
--
-- The planner puts a function that returns rows and is one select into the statement that calls it; one that returns a value and
-- has a select within it is called for every row, at 10 µs each. So reads of many levels say
--     reserved - case when reserved > 0 then (select units from stock_due_units(inventory_id)) else 0 end
-- which costs nothing for a level of which nothing is reserved, and 2 µs for another. Those of one level call the function
-- of the value, which costs next to nothing to prepare.
--
-- Compared as rows, because then only the index of a level's active reservations can serve: by the times alone one could be led to
-- look through everything that is due, of whatever level, for each.
create function stock_due_units(of_level bigint) returns table (units bigint)
language sql stable
as $$
    select coalesce(sum(r.quantity), 0)::bigint from reservations r
    where r.state = 1 and r.inventory_id = of_level and (r.inventory_id, r.expires_at) <= (of_level, now())
$$;

create or replace function stock_due(of_level bigint, reserved bigint) returns bigint
language sql stable
as $$
    select case when reserved = 0 then 0 else (select units from stock_due_units(of_level)) end
$$;

create or replace function stock_expires_next(of_level bigint, reserved bigint) returns timestamptz
language sql stable
as $$
    select case when reserved = 0 then null else (
        select min(r.expires_at) from reservations r
        where r.state = 1 and r.inventory_id = of_level and (r.inventory_id, r.expires_at) > (of_level, now())
    ) end
$$;
