-- The ledger as something to ask: the state of a key at a moment, by either clock, and what a number is made of.
--
-- The open partition has the two indexes that ingest pays for, and questions scan it by key. A range of batches is closed once
-- the sequence has moved on: from then on no transaction can write to its partition, and what only questions need is built in
-- bulk. Ranges are closed in order.

create table stock_ledger_ranges (
    -- Holds the batches from range * 2^32.
    range bigint primary key,
    -- Since when its partition takes no more rows.
    sealed_at timestamptz not null,
    -- Since when its index by time and its sums are there; null: questions take it for an open one.
    closed_at timestamptz,
    -- Of its commits and of its rows; null: it has none. What lies elsewhere need not be looked at.
    first_committed_at timestamptz,
    last_committed_at timestamptz,
    first_occurred_at timestamptz
);

-- What the rows of a key in a closed range add up to, up to and with those of a moment: a checkpoint after about every so many
-- rows in the order of their times. A key with fewer rows there has none.
create table stock_ledger_sums (
    inventory_id bigint not null,
    range bigint not null,
    occurred_at timestamptz not null,
    on_hand bigint not null,
    reserved bigint not null,
    primary key (inventory_id, range, occurred_at)
);

-- The same by kind, over all rows of the key in the range; for the same keys.
create table stock_ledger_kinds (
    inventory_id bigint not null,
    range bigint not null,
    kind smallint not null,
    changes bigint not null,
    on_hand bigint not null,
    reserved bigint not null,
    primary key (inventory_id, range, kind)
);

-- Questions go to single partitions, so the role that serves reads those too; nothing else of the function is new (0003).
create or replace function stock_ledger_make_room(bytes_max bigint) returns void
language plpgsql security definer
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
            execute format('grant select on %I to stockyard_app', relation);
            execute format(
                'alter table stock_ledger attach partition %I for values from (%s) to (%s)',
                relation, n * span, (n + 1) * span
            );
        end if;
    end loop;
end
$$;

do $$
declare
    relation regclass;
begin
    for relation in select inhrelid::regclass from pg_inherits where inhparent = 'stock_ledger'::regclass loop
        execute format('grant select on %s to stockyard_app', relation);
    end loop;
end
$$;

create function stock_ledger_refuse() returns trigger
language plpgsql
as $$
begin
    -- No fault of the data (class 22 or 23): the same under a new batch number goes in.
    raise exception 'batch % is of a closed range of the ledger', new.batch using errcode = 'object_not_in_prerequisite_state';
end
$$;

-- Takes the next step of closing the oldest range that is not closed and not the open one; whether there was one to take. Each
-- step is a transaction of its own: what was sealed stays so, and the locks of one step are gone before the next.
--
-- Only the first step can meet a writer: it waits for those that have written to the partition, briefly, and is tried again
-- later. It runs with its owner's rights: the role that serves owns no table.
create function stock_ledger_close_next(rows_between bigint) returns boolean
language plpgsql security definer
set search_path from current
set lock_timeout = '500ms'
set work_mem = '32MB'
as $$
declare
    span constant bigint := 4294967296;
    closing bigint;
    relation text;
begin
    if not pg_try_advisory_xact_lock(hashtext('stock_ledger_close_next')) then
        return false; -- another process is at it
    end if;
    select coalesce(max(r.range) + 1, 0) into closing from stock_ledger_ranges r where r.closed_at is not null;
    if closing >= (select last_value / span from stock_batches) then
        return false;
    end if;
    relation := 'stock_ledger_' || closing;
    if not exists (select from stock_ledger_ranges r where r.range = closing) then
        execute format(
            'create trigger is_closed before insert on %I for each row execute function stock_ledger_refuse()', relation
        );
        insert into stock_ledger_ranges (range, sealed_at) values (closing, clock_timestamp());
    elsif to_regclass(relation || '_by_time') is null then
        execute format(
            'create index %I on %I (inventory_id, occurred_at) include (on_hand_delta, reserved_delta)',
            relation || '_by_time', relation
        );
    else
        perform stock_ledger_add_up(closing, rows_between);
        update stock_ledger_ranges r set closed_at = clock_timestamp(),
            (first_committed_at, last_committed_at) = (
                select min(c.committed_at), max(c.committed_at) from stock_commits c
                where c.batch >= closing * span and c.batch < (closing + 1) * span
            )
        where r.range = closing;
    end if;
    return true;
exception when lock_not_available then
    return false;
end
$$;
revoke all on function stock_ledger_close_next from public;

-- The sums of a range that takes no more rows, for its keys with more than so many.
create function stock_ledger_add_up(of_range bigint, rows_between bigint) returns void
language plpgsql
as $$
declare
    relation constant text := 'stock_ledger_' || of_range;
begin
    -- A checkpoint stands after all rows of its moment, so rows of one moment are never on both sides of it; and between two of
    -- them, or after the last, there are fewer rows than `rows_between`.
    execute format(
        'with heavy as materialized (
            select inventory_id from %1$I group by inventory_id having count(*) > $2
        ), moments as (
            select inventory_id, occurred_at, count(*) as changes,
                sum(on_hand_delta) as on_hand, sum(reserved_delta) as reserved
            from %1$I join heavy using (inventory_id) group by inventory_id, occurred_at
        ), running as (
            select inventory_id, occurred_at, changes, (sum(changes) over so_far)::bigint as changes_so_far,
                sum(on_hand) over so_far as on_hand, sum(reserved) over so_far as reserved
            from moments window so_far as (partition by inventory_id order by occurred_at)
        ), kinds as (
            insert into stock_ledger_kinds (inventory_id, range, kind, changes, on_hand, reserved)
            select inventory_id, $1, kind, count(*), sum(on_hand_delta), sum(reserved_delta)
            from %1$I join heavy using (inventory_id) group by inventory_id, kind
        )
        insert into stock_ledger_sums (inventory_id, range, occurred_at, on_hand, reserved)
        select inventory_id, $1, occurred_at, on_hand, reserved from running
        where changes_so_far / $2 > (changes_so_far - changes) / $2',
        relation
    ) using of_range, rows_between;
    execute format(
        'update stock_ledger_ranges set first_occurred_at = (select min(occurred_at) from %I) where range = $1', relation
    ) using of_range;
end
$$;
revoke all on function stock_ledger_add_up from public;

-- The ranges that may hold rows, the newest first, and what is known of those that are closed.
create function stock_ledger_known_ranges() returns setof stock_ledger_ranges
language sql stable
as $$
    select n, r.sealed_at, r.closed_at, r.first_committed_at, r.last_committed_at, r.first_occurred_at
    from generate_series((select last_value / 4294967296 from stock_batches), 0, -1) n
    left join stock_ledger_ranges r on r.range = n and r.closed_at is not null
$$;

-- The state of a level after its last commit up to a moment: as it was then. No row: it had none.
--
-- The revisions of a key are ordered like its commits, so within a partition it is a search by halves. Ranges follow each other in
-- time but for what was under way when the sequence moved on, so most are passed over.
create function stock_recorded(of_level bigint, until timestamptz)
returns table (on_hand bigint, reserved bigint, revision bigint, committed_at timestamptz)
language plpgsql stable strict
set plan_cache_mode = force_generic_plan -- a look takes less time than planning it for its one partition
as $$
declare
    part record;
    seen record;
    state record;
    known bigint;
    too_new bigint;
begin
    for part in
        select r.range << 32 as first_batch, (r.range + 1) << 32 as next_batch, r.last_committed_at
        from stock_ledger_known_ranges() r
        where r.closed_at is null or r.first_committed_at <= until
        order by r.range desc
    loop
        continue when part.last_committed_at < committed_at; -- what was found is newer than all of it
        select g.revision, g.on_hand_after, g.reserved_after, c.committed_at into state
        from stock_ledger g join stock_commits c on c.batch = g.batch
        where g.inventory_id = of_level and g.batch >= part.first_batch and g.batch < part.next_batch
        order by g.revision desc limit 1;
        if state.committed_at > until then
            too_new := state.revision;
            select g.revision, g.on_hand_after, g.reserved_after, c.committed_at into state
            from stock_ledger g join stock_commits c on c.batch = g.batch
            where g.inventory_id = of_level and g.batch >= part.first_batch and g.batch < part.next_batch
            order by g.revision limit 1;
            continue when state.committed_at > until;
            known := state.revision;
            -- The state that is looked for is that of `known`, or of a revision between the two.
            while too_new - known > 1 loop
                select g.revision, g.on_hand_after, g.reserved_after, c.committed_at into seen
                from stock_ledger g join stock_commits c on c.batch = g.batch
                where g.inventory_id = of_level and g.batch >= part.first_batch and g.batch < part.next_batch
                    and g.revision <= known + (too_new - known) / 2
                order by g.revision desc limit 1;
                if seen.committed_at > until then
                    too_new := seen.revision;
                else
                    state := seen;
                    known := known + (too_new - known) / 2;
                end if;
            end loop;
        end if;
        if state.revision > coalesce(revision, 0) then
            revision := state.revision;
            on_hand := state.on_hand_after;
            reserved := state.reserved_after;
            committed_at := state.committed_at;
        end if;
    end loop;
    if revision is not null then
        return next;
    end if;
end
$$;

-- The sums of a level's changes that happened up to a moment, as they are known now, and when the last of them happened.
create function stock_occurred(of_level bigint, until timestamptz)
returns table (on_hand bigint, reserved bigint, occurred_at timestamptz)
language plpgsql stable strict
set plan_cache_mode = force_generic_plan
as $$
declare
    part record;
    further record;
begin
    if not exists (select from stock_ledger_sums s where s.inventory_id = of_level) then
        -- Few changes in each partition: all of them at once.
        select coalesce(sum(g.on_hand_delta), 0), coalesce(sum(g.reserved_delta), 0), max(g.occurred_at)
        into on_hand, reserved, occurred_at
        from stock_ledger g where g.inventory_id = of_level and g.occurred_at <= until;
        return next;
        return;
    end if;
    on_hand := 0;
    reserved := 0;
    for part in
        select r.range, s.on_hand, s.reserved, s.occurred_at from stock_ledger_known_ranges() r
        left join lateral (
            select * from stock_ledger_sums s
            where r.closed_at is not null and s.inventory_id = of_level and s.range = r.range and s.occurred_at <= until
            order by s.occurred_at desc limit 1
        ) s on true
        where r.closed_at is null or r.first_occurred_at <= until
    loop
        execute format(
            'select coalesce(sum(on_hand_delta), 0)::bigint as on_hand, coalesce(sum(reserved_delta), 0)::bigint as reserved,
                max(occurred_at) as occurred_at
            from stock_ledger_%s where inventory_id = $1 and occurred_at > $2 and occurred_at <= $3',
            part.range
        ) into further using of_level, coalesce(part.occurred_at, '-infinity'), until;
        on_hand := on_hand + coalesce(part.on_hand, 0) + further.on_hand;
        reserved := reserved + coalesce(part.reserved, 0) + further.reserved;
        occurred_at := greatest(occurred_at, part.occurred_at, further.occurred_at);
    end loop;
    return next;
end
$$;

-- What a level's changes add up to, by kind; one kind may come in several rows.
create function stock_made_of(of_level bigint)
returns table (kind smallint, changes bigint, on_hand bigint, reserved bigint)
language plpgsql stable strict
as $$
#variable_conflict use_column
declare
    part bigint;
begin
    return query
        select k.kind, k.changes, k.on_hand, k.reserved from stock_ledger_kinds k
        join stock_ledger_known_ranges() r on r.range = k.range and r.closed_at is not null
        where k.inventory_id = of_level;
    for part in
        select r.range from stock_ledger_known_ranges() r
        where r.closed_at is null
            or not exists (select from stock_ledger_kinds k where k.inventory_id = of_level and k.range = r.range)
    loop
        return query execute format(
            'select kind, count(*), sum(on_hand_delta)::bigint, sum(reserved_delta)::bigint
            from stock_ledger_%s where inventory_id = $1 group by kind',
            part
        ) using of_level;
    end loop;
end
$$;

grant select on stock_ledger_ranges, stock_ledger_sums, stock_ledger_kinds to stockyard_app;
grant execute on function stock_ledger_close_next to stockyard_app;
