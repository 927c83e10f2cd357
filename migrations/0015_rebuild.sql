-- Tables can be made anew beside the old ones and take their place (`stockyard rebuild`): nothing may be bound to the row type of
-- `movements`, so what judges a line takes what it looks at.

drop function movement_is_wanted, movement_is_overdue, movement_status;

-- Where a line stands, as clients read it. A quantity is there if its side is.
create function movement_status(departed bigint, arrived bigint) returns text
language sql immutable
as $$
    select case
        when arrived is null then 'in_transit'
        when departed is null then 'arrival_only'
        when departed > arrived then 'short'
        when departed < arrived then 'over'
        else 'complete'
    end
$$;

-- Whether a line has been under way for longer than that.
create function movement_is_overdue(departed_at timestamptz, arrived_at timestamptz, late_after_seconds double precision)
returns boolean
language sql stable
as $$
    select arrived_at is null and departed_at < now() - make_interval(secs => late_after_seconds)
$$;

-- Whether a list shows a line; what is null asks for nothing.
create function movement_is_wanted(
    departed_at timestamptz, departed bigint, departed_from uuid, arrived_at timestamptz, arrived bigint, arrived_in uuid,
    of_product uuid, late_after_seconds double precision, status text, warehouse uuid, product uuid,
    departed_after timestamptz, departed_before timestamptz, is_overdue boolean
) returns boolean
language sql stable
as $$
    select (
        (status is null or movement_status(departed, arrived) = status)
        and (warehouse is null or warehouse in (departed_from, arrived_in))
        and (product is null or of_product = product)
        and (departed_after is null or departed_at >= departed_after)
        and (departed_before is null or departed_at < departed_before)
        and (is_overdue is null or movement_is_overdue(departed_at, arrived_at, late_after_seconds) = is_overdue)
    ) is true -- a missing side is not the one that is asked for
$$;
