//! Levels and movements made anew from the ledger, beside the old ones, and put in their place.
//!
//! Invariants: what is made holds every commit up to the one it was asked for, and nothing later; until the swap is committed the
//! old tables serve. What a level is called (`inventory_id` and its key) and to the microsecond when it was last written, where
//! the commit confirms it, is taken from the old ones: the ledger does not say it. Statements name tables that are there only
//! meanwhile, so they cannot be checked when the program is built; what they name otherwise, tests check.

use sqlx::{ConnectOptions, Connection, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Store, StoreError, TCP_USER_TIMEOUT_MS, WRITER_IDLE_MAX,
    slices::LedgerSums,
    writer::{LineRow, stock_key},
};
use crate::domain::{MovementLine, StockKey, Version, batch::LineId};

/// Nobody holds a snapshot for longer.
const STATEMENT_MAX: &str = "5s";
/// Longest that writers may queue behind the wait for those under way. A vacuum gives way after one second.
const WRITERS_WAIT: &str = "set local lock_timeout = '1500ms'";
/// Longest that readers may queue behind the wait for those under way.
const READERS_WAIT: &str = "set local lock_timeout = '500ms'";
/// Commits that get another tag: more than any follower goes back.
const RETAGGED: i64 = 1_000;

/// Makes the tables anew, empty, as the old ones are: columns, defaults, constraints, indexes, what storage is told, and whose they
/// are. What an earlier try left goes.
const MAKE: &str = "
drop table if exists movements_rebuilt, stock_levels_rebuilt;
create table movements_rebuilt (like movements including all);
create table stock_levels_rebuilt (like stock_levels including all);
do $$
declare
    old record;
    may record;
begin
    for old in
        select c.oid, c.relname || '_rebuilt' as made, c.relowner, r.rolname as owner, c.relacl
        from pg_class c join pg_roles r on r.oid = c.relowner
        where c.oid in ('movements'::regclass, 'stock_levels'::regclass)
    loop
        execute format('alter table %I owner to %I', old.made, old.owner);
        -- A vacuum would be in the way of the swap.
        execute format('alter table %I set (autovacuum_enabled = false)', old.made);
        for may in
            select a.privilege_type as what, coalesce(quote_ident(g.rolname), 'public') as who,
                case when a.is_grantable then ' with grant option' else '' end as further
            from aclexplode(old.relacl) a left join pg_roles g on g.oid = a.grantee
            where a.grantee <> old.relowner
        loop
            execute format('grant %s on %I to %s%s', may.what, old.made, may.who, may.further);
        end loop;
    end loop;
end
$$;
create temporary table level_sums (
    inventory_id bigint primary key, on_hand bigint, reserved bigint, revision bigint, committed_at timestamptz
) with (fillfactor = 50);
create temporary table lines_aside (like movements including defaults, primary key (movement_id, product_id)) with (fillfactor = 85);
create temporary table differing_levels (inventory_id bigint primary key);
create temporary table differing_lines (movement_id uuid, product_id uuid, primary key (movement_id, product_id))";

/// Puts the new tables in the place of the old ones, under their names and those of their indexes and constraints.
const SWAP: &str = "
do $$
declare
    old regclass;
    made regclass;
    name text;
    renames text[];
    statement text;
    options text;
begin
    foreach name in array array['stock_levels', 'movements'] loop
        old := name::regclass;
        made := (name || '_rebuilt')::regclass;
        with defined as (
            select indrelid, c.relname,
                regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX .+? ON .+? USING', '\\1') || indisprimary as definition
            from pg_index join pg_class c on c.oid = indexrelid where indrelid in (old, made)
        )
        select array_agg(format('alter index %I rename to %I', n.relname, o.relname)) into strict renames
        from (select * from defined where indrelid = old) o
        full join (select * from defined where indrelid = made) n on n.definition = o.definition;
        for statement in
            select format('alter sequence %s owned by %s.%I', s.oid::regclass, made, a.attname)
            from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
            join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
            where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = old and d.deptype = 'a'
        loop
            execute statement;
        end loop;
        execute format('alter table %s reset (autovacuum_enabled)', made);
        select array_to_string(reloptions, ', ') into options from pg_class where oid = old;
        if options is not null then
            execute format('alter table %s set (%s)', made, options);
        end if;
        execute format('drop table %s', old);
        execute format('alter table %s rename to %I', made, name);
        foreach statement in array renames loop
            execute statement;
        end loop;
    end loop;
end
$$";

/// Adds the sides that some commits told to lines of that table, and says which levels of theirs are not there.
macro_rules! add_lines_to {
    ($table:literal) => {
        concat!(
            "with rows as materialized (
    select c.version, g.inventory_id, g.cause_id, g.kind, g.on_hand_delta, g.occurred_at, l.warehouse_id, l.product_id
    from stock_commits c
    join stock_ledger g on g.batch = c.batch
    left join stock_levels l on l.inventory_id = g.inventory_id
    where c.version > $1 and c.version <= $2
), told as (
    select version, cause_id as movement_id, product_id, warehouse_id, occurred_at,
        abs(on_hand_delta) as quantity, kind <= 2 as is_set, case when kind in (1, 13) then 1 else 2 end as side
    from rows where kind in (1, 2, 13, 14) and cause_id is not null and product_id is not null
), newest as (
    -- Of each side what was told last, and whether and when it was set and taken back in all.
    select distinct on (movement_id, product_id, side) *,
        bool_or(not is_set) over of_side as is_voided,
        max(version) filter (where is_set) over of_side as set_in,
        max(version) filter (where is_set) over of_line as line_set_in
    from told
    window of_line as (partition by movement_id, product_id), of_side as (partition by movement_id, product_id, side)
    order by movement_id, product_id, side, version desc
), lines as (
    select movement_id, product_id,
        bool_or(side = 1) as has_departure, bool_or(side = 2) as has_arrival,
        max(occurred_at) filter (where side = 1 and is_set) as departure_at,
        max(quantity) filter (where side = 1 and is_set) as departure_quantity,
        (array_agg(warehouse_id) filter (where side = 1 and is_set))[1] as departure_warehouse_id,
        max(occurred_at) filter (where side = 2 and is_set) as arrival_at,
        max(quantity) filter (where side = 2 and is_set) as arrival_quantity,
        (array_agg(warehouse_id) filter (where side = 2 and is_set))[1] as arrival_warehouse_id,
        bit_or(side) filter (where set_in = line_set_in) as set_last,
        bit_or(side) filter (where is_voided) as voided
    from newest group by movement_id, product_id
), added as (
insert into ", $table, " (movement_id, product_id, departure_at, departure_quantity, departure_warehouse_id,
    arrival_at, arrival_quantity, arrival_warehouse_id, sides_set_last, sides_voided)
select l.movement_id, l.product_id,
    case when l.has_departure then l.departure_at else m.departure_at end,
    case when l.has_departure then l.departure_quantity else m.departure_quantity end,
    case when l.has_departure then l.departure_warehouse_id else m.departure_warehouse_id end,
    case when l.has_arrival then l.arrival_at else m.arrival_at end,
    case when l.has_arrival then l.arrival_quantity else m.arrival_quantity end,
    case when l.has_arrival then l.arrival_warehouse_id else m.arrival_warehouse_id end,
    coalesce(l.set_last, m.sides_set_last, 0), coalesce(m.sides_voided, 0) | coalesce(l.voided, 0)
from lines l
left join ", $table, " m on m.movement_id = l.movement_id and m.product_id = l.product_id
order by 1, 2
on conflict (movement_id, product_id) do update set
    departure_at = excluded.departure_at,
    departure_quantity = excluded.departure_quantity,
    departure_warehouse_id = excluded.departure_warehouse_id,
    arrival_at = excluded.arrival_at,
    arrival_quantity = excluded.arrival_quantity,
    arrival_warehouse_id = excluded.arrival_warehouse_id,
    sides_set_last = excluded.sides_set_last,
    sides_voided = excluded.sides_voided
)
select inventory_id from rows where product_id is null order by 1 limit 10"
        )
    };
}
const ADD_LINES: &str = add_lines_to!("movements_rebuilt");
const ADD_LINES_ASIDE: &str = add_lines_to!("lines_aside");

/// Where lines are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTable {
    /// To what is kept aside, in no order and without a log, until it is placed: far less than adding to the new table.
    Aside,
    /// To the new table.
    New,
}

/// A slice of the order of commits.
#[derive(Clone, Copy, Debug)]
pub struct SliceEnd {
    /// The last version of it.
    pub to: Version,
    /// The newest there is.
    pub newest: Version,
}

/// The end of a page of levels: where the next begins; `None` after the last.
pub type LevelsEnd = Option<i64>;
/// The same of lines.
pub type LinesEnd = Option<(Uuid, Uuid)>;

/// A level that is not what the ledger says.
#[derive(Clone, Copy, Debug)]
pub struct OtherLevel {
    pub key: StockKey,
    pub was: Option<LedgerSums>,
    pub is: Option<LedgerSums>,
}

/// A line that is not what the ledger says.
#[derive(Clone, Copy, Debug)]
pub struct OtherLine {
    pub id: LineId,
    pub was: Option<MovementLine>,
    pub is: Option<MovementLine>,
}

/// A rebuild under way, over a connection of the owner's.
#[derive(Debug)]
pub struct Rebuild {
    connection: PgConnection,
}

impl Store {
    /// Connects as the owner. `None` while another one is under way.
    pub async fn begin_rebuild(&self) -> Result<Option<Rebuild>, StoreError> {
        // Slices of hundreds of milliseconds are what it is made of.
        let options = self.login.clone().disable_statement_logging().options([
            ("client_min_messages", "warning"),
            ("temp_buffers", "64MB"),
            ("statement_timeout", STATEMENT_MAX),
            ("idle_in_transaction_session_timeout", WRITER_IDLE_MAX),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
        ]);
        let mut connection = Box::pin(options.connect()).await?;
        let is_alone = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtext('stock_rebuild')) as "is_alone!""#
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(is_alone.then_some(Rebuild { connection }))
    }
}

impl Rebuild {
    /// Makes the new tables, empty. What an earlier try left goes.
    pub async fn make_tables(&mut self) -> Result<(), StoreError> {
        self.run(MAKE).await
    }

    /// Takes the new tables away.
    pub async fn drop_tables(&mut self) -> Result<(), StoreError> {
        self.run("drop table if exists movements_rebuilt, stock_levels_rebuilt")
            .await
    }

    /// The end of the next slice after that version, of so many commits at most, and so many ledger rows or one commit; `None` if
    /// there is no commit after it.
    pub async fn slice_end(
        &mut self,
        after: Version,
        commits_max: i64,
        rows_max: i64,
    ) -> Result<Option<SliceEnd>, StoreError> {
        let row = sqlx::query!(
            r#"select max(version) as "to", (select max(version) from stock_commits) as newest
            from (
                select c.version, row_number() over by_version as nth, (sum(g.rows) over by_version)::bigint as rows
                from (select version, batch from stock_commits where version > $1 order by version limit $2) c
                cross join lateral (select count(*) as rows from stock_ledger where batch = c.batch) g
                window by_version as (order by c.version)
            ) counted
            where rows <= $3 or nth = 1"#,
            after.number(),
            commits_max,
            rows_max
        )
        .fetch_one(&mut self.connection)
        .await?;
        let version = |number: Option<i64>| number.and_then(Version::new);
        let end = version(row.to).zip(version(row.newest));
        Ok(end.map(|(to, newest)| SliceEnd { to, newest }))
    }

    /// Adds the commits after `after` up to `to` to sums that are kept aside: a level that changes a hundred times is then written
    /// once.
    pub async fn add_sums(&mut self, after: Version, to: Version) -> Result<(), StoreError> {
        sqlx::query(
            "insert into level_sums as s
            select g.inventory_id, sum(g.on_hand_delta), sum(g.reserved_delta), max(g.revision), max(c.committed_at)
            from stock_commits c join stock_ledger g on g.batch = c.batch
            where c.version > $1 and c.version <= $2
            group by g.inventory_id
            on conflict (inventory_id) do update set
                on_hand = s.on_hand + excluded.on_hand,
                reserved = s.reserved + excluded.reserved,
                revision = greatest(s.revision, excluded.revision),
                committed_at = excluded.committed_at",
        )
        .bind(after.number())
        .bind(to.number())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Writes a page of the new levels, after that id, from the sums that were kept aside.
    pub async fn place_levels(&mut self, after: i64, limit: i64) -> Result<LevelsEnd, StoreError> {
        let row = sqlx::query(
            "with page as materialized (
                select * from level_sums where inventory_id > $1 order by inventory_id limit $2
            ), placed as (
                insert into stock_levels_rebuilt
                    (warehouse_id, product_id, inventory_id, on_hand, reserved, revision, updated_at)
                select l.warehouse_id, l.product_id, s.inventory_id, s.on_hand, s.reserved, s.revision, case
                    when l.revision = s.revision and l.updated_at <= s.committed_at
                        and l.updated_at > s.committed_at - interval '1 minute' then l.updated_at
                    else s.committed_at
                end
                from page s join stock_levels l using (inventory_id)
            )
            select max(inventory_id) from page",
        )
        .bind(after)
        .bind(limit)
        .fetch_one(&mut self.connection)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Adds the commits after `after` up to `to` to the new levels.
    pub async fn add_levels(&mut self, after: Version, to: Version) -> Result<(), StoreError> {
        sqlx::query(
            "with sums as (
                select g.inventory_id, sum(g.on_hand_delta)::bigint as on_hand, sum(g.reserved_delta)::bigint as reserved,
                    max(g.revision) as revision, max(c.committed_at) as committed_at
                from stock_commits c join stock_ledger g on g.batch = c.batch
                where c.version > $1 and c.version <= $2
                group by g.inventory_id
            )
            insert into stock_levels_rebuilt as n
                (warehouse_id, product_id, inventory_id, on_hand, reserved, revision, updated_at)
            select l.warehouse_id, l.product_id, s.inventory_id, s.on_hand, s.reserved, s.revision, case
                when l.revision = s.revision and l.updated_at <= s.committed_at
                    and l.updated_at > s.committed_at - interval '1 minute' then l.updated_at
                else s.committed_at
            end
            from sums s join stock_levels l using (inventory_id)
            order by 1, 2
            on conflict (warehouse_id, product_id) do update set
                on_hand = n.on_hand + excluded.on_hand,
                reserved = n.reserved + excluded.reserved,
                revision = excluded.revision,
                updated_at = excluded.updated_at",
        )
        .bind(after.number())
        .bind(to.number())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Adds the commits after `after` up to `to` to movements. Returns the first few ids of their levels that are not there.
    pub async fn add_lines(
        &mut self,
        table: LineTable,
        after: Version,
        to: Version,
    ) -> Result<Vec<i64>, StoreError> {
        let lost = sqlx::query(match table {
            LineTable::Aside => ADD_LINES_ASIDE,
            LineTable::New => ADD_LINES,
        })
        .bind(after.number())
        .bind(to.number())
        .fetch_all(&mut self.connection)
        .await?;
        let ids = lost.iter().map(|row| row.try_get(0));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Writes a page of the new movements, after those ids, from the lines that were kept aside.
    pub async fn place_lines(
        &mut self,
        after: (Uuid, Uuid),
        limit: i64,
    ) -> Result<LinesEnd, StoreError> {
        let row = sqlx::query(
            "with page as materialized (
                select * from lines_aside where (movement_id, product_id) > ($1, $2) order by movement_id, product_id limit $3
            ), placed as (
                insert into movements_rebuilt select * from page
            )
            select movement_id, product_id from page order by 1 desc, 2 desc limit 1",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_optional(&mut self.connection)
        .await?;
        ids(row)
    }

    /// Compares a page of levels, old and new, after that id, and keeps which differ.
    pub async fn compare_levels(
        &mut self,
        after: i64,
        limit: i64,
    ) -> Result<LevelsEnd, StoreError> {
        let row = sqlx::query(
            "with o as materialized (
                select * from stock_levels where inventory_id > $1 order by inventory_id limit $2
            ), n as materialized (
                select * from stock_levels_rebuilt where inventory_id > $1 order by inventory_id limit $2
            ), ends as (
                (select inventory_id from o offset $2 - 1) union all (select inventory_id from n offset $2 - 1)
            ), bound as (
                select min(inventory_id) as last from ends
            ), kept as (
                insert into differing_levels
                select coalesce(o.inventory_id, n.inventory_id)
                from (select o.* from o, bound where last is null or inventory_id <= last) o
                full join (select n.* from n, bound where last is null or inventory_id <= last) n
                    on n.inventory_id = o.inventory_id
                where row(o.*) is distinct from row(n.*)
                on conflict do nothing
            )
            select last from bound",
        )
        .bind(after)
        .bind(limit)
        .fetch_one(&mut self.connection)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Compares a page of lines, old and new, after those ids, and keeps which differ.
    pub async fn compare_lines(
        &mut self,
        after: (Uuid, Uuid),
        limit: i64,
    ) -> Result<LinesEnd, StoreError> {
        let row = sqlx::query(
            "with o as materialized (
                select * from movements where (movement_id, product_id) > ($1, $2) order by movement_id, product_id limit $3
            ), n as materialized (
                select * from movements_rebuilt where (movement_id, product_id) > ($1, $2) order by movement_id, product_id limit $3
            ), ends as (
                (select movement_id, product_id from o offset $3 - 1)
                union all (select movement_id, product_id from n offset $3 - 1)
            ), bound as (
                select movement_id as movement, product_id as product from ends order by 1, 2 limit 1
            ), kept as (
                insert into differing_lines
                select coalesce(o.movement_id, n.movement_id), coalesce(o.product_id, n.product_id)
                from (
                    select o.* from o left join bound on true
                    where movement is null or (movement_id, product_id) <= (movement, product)
                ) o
                full join (
                    select n.* from n left join bound on true
                    where movement is null or (movement_id, product_id) <= (movement, product)
                ) n on n.movement_id = o.movement_id and n.product_id = o.product_id
                where row(o.*) is distinct from row(n.*)
                on conflict do nothing
            )
            select movement, product from bound",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_optional(&mut self.connection)
        .await?;
        ids(row)
    }

    /// Compares again the levels that the commits after `after` up to `to` touched.
    pub async fn compare_levels_of(
        &mut self,
        after: Version,
        to: Version,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "with touched as materialized (
                select g.inventory_id, row(o.*) is distinct from row(n.*) as differs
                from (
                    select distinct g.inventory_id from stock_commits c join stock_ledger g on g.batch = c.batch
                    where c.version > $1 and c.version <= $2
                ) g
                left join stock_levels o on o.inventory_id = g.inventory_id
                left join stock_levels_rebuilt n on n.inventory_id = g.inventory_id
            ), same as (
                delete from differing_levels d using touched t where d.inventory_id = t.inventory_id and not t.differs
            )
            insert into differing_levels select inventory_id from touched where differs on conflict do nothing",
        )
        .bind(after.number())
        .bind(to.number())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Compares again the lines that the commits after `after` up to `to` touched.
    pub async fn compare_lines_of(
        &mut self,
        after: Version,
        to: Version,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "with touched as materialized (
                select g.movement_id, g.product_id, row(o.*) is distinct from row(n.*) as differs
                from (
                    select distinct g.cause_id as movement_id, l.product_id
                    from stock_commits c
                    join stock_ledger g on g.batch = c.batch
                    join stock_levels l on l.inventory_id = g.inventory_id
                    where c.version > $1 and c.version <= $2 and g.kind in (1, 2, 13, 14) and g.cause_id is not null
                ) g
                left join movements o on o.movement_id = g.movement_id and o.product_id = g.product_id
                left join movements_rebuilt n on n.movement_id = g.movement_id and n.product_id = g.product_id
            ), same as (
                delete from differing_lines d using touched t
                where d.movement_id = t.movement_id and d.product_id = t.product_id and not t.differs
            )
            insert into differing_lines select movement_id, product_id from touched where differs on conflict do nothing",
        )
        .bind(after.number())
        .bind(to.number())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// How many levels and lines differ.
    pub async fn count_differing(&mut self) -> Result<(i64, i64), StoreError> {
        let row = sqlx::query(
            "select (select count(*) from differing_levels), (select count(*) from differing_lines)",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// The first levels that differ.
    pub async fn other_levels(&mut self, limit: i64) -> Result<Vec<OtherLevel>, StoreError> {
        let rows = sqlx::query(
            "select coalesce(o.warehouse_id, n.warehouse_id), coalesce(o.product_id, n.product_id),
                o.on_hand, o.reserved, o.revision, n.on_hand, n.reserved, n.revision
            from differing_levels d
            left join stock_levels o on o.inventory_id = d.inventory_id
            left join stock_levels_rebuilt n on n.inventory_id = d.inventory_id
            where num_nonnulls(o.warehouse_id, n.warehouse_id) > 0
            order by d.inventory_id limit $1",
        )
        .bind(limit)
        .fetch_all(&mut self.connection)
        .await?;
        let sums = |row: &PgRow, at: usize| -> Result<Option<LedgerSums>, StoreError> {
            let [on_hand, reserved, revision] = [0, 1, 2].map(|n| row.try_get(at + n));
            let amounts: (Option<i64>, Option<i64>) = (on_hand?, reserved?);
            let amounts = amounts.0.zip(amounts.1).zip(revision?);
            Ok(amounts.map(|((on_hand, reserved), revision)| LedgerSums {
                on_hand,
                reserved,
                revision,
            }))
        };
        let level = |row: &PgRow| {
            Ok(OtherLevel {
                key: stock_key(row.try_get(0)?, row.try_get(1)?)?,
                was: sums(row, 2)?,
                is: sums(row, 5)?,
            })
        };
        rows.iter().map(level).collect()
    }

    /// The first lines that differ.
    pub async fn other_lines(&mut self, limit: i64) -> Result<Vec<OtherLine>, StoreError> {
        let rows = sqlx::query(
            "select d.movement_id, d.product_id, o.movement_id is not null, n.movement_id is not null,
                o.departure_at, o.departure_quantity, o.departure_warehouse_id,
                o.arrival_at, o.arrival_quantity, o.arrival_warehouse_id,
                n.departure_at, n.departure_quantity, n.departure_warehouse_id,
                n.arrival_at, n.arrival_quantity, n.arrival_warehouse_id
            from differing_lines d
            left join movements o on o.movement_id = d.movement_id and o.product_id = d.product_id
            left join movements_rebuilt n on n.movement_id = d.movement_id and n.product_id = d.product_id
            order by d.movement_id, d.product_id limit $1",
        )
        .bind(limit)
        .fetch_all(&mut self.connection)
        .await?;
        let line = |row: &PgRow, at: usize| -> Result<(LineId, MovementLine), StoreError> {
            LineRow {
                movement_id: row.try_get(0)?,
                product_id: row.try_get(1)?,
                departure_at: row.try_get(at)?,
                departure_quantity: row.try_get(at + 1)?,
                departure_warehouse_id: row.try_get(at + 2)?,
                arrival_at: row.try_get(at + 3)?,
                arrival_quantity: row.try_get(at + 4)?,
                arrival_warehouse_id: row.try_get(at + 5)?,
            }
            .into_line()
        };
        let other = |row: &PgRow| {
            let ((id, was), (_, is)) = (line(row, 4)?, line(row, 10)?);
            let (had, has): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
            Ok(OtherLine {
                id,
                was: had.then_some(was),
                is: has.then_some(is),
            })
        };
        rows.iter().map(other).collect()
    }

    /// What the planner knows of the new tables.
    pub async fn analyze(&mut self) -> Result<(), StoreError> {
        self.run("analyze movements_rebuilt, stock_levels_rebuilt")
            .await
    }

    /// Begins a transaction, so that what is added is added as a whole.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        self.run("begin").await
    }

    /// Begins the transaction that ends the rebuild: from here on nobody writes to the old tables. Fails before too many wait
    /// behind it.
    pub async fn stop_writers(&mut self) -> Result<(), StoreError> {
        self.begin().await?;
        self.run(WRITERS_WAIT).await?;
        // In the order in which writers take them, and whoever has locked a row is waited for.
        self.run("lock table movements, stock_levels in exclusive mode")
            .await
    }

    /// From here on nobody reads the old tables either.
    pub async fn stop_readers(&mut self) -> Result<(), StoreError> {
        self.run(READERS_WAIT).await?;
        // In the order of those that read both in one transaction.
        self.run("lock table stock_levels, movements in access exclusive mode")
            .await
    }

    /// Puts the new tables in the place of the old ones, which are gone with this.
    pub async fn swap(&mut self) -> Result<(), StoreError> {
        self.run(SWAP).await
    }

    /// Gives the newest commits other tags: whoever followed them begins anew.
    pub async fn retag(&mut self) -> Result<(), StoreError> {
        sqlx::query!("select pg_advisory_xact_lock(hashtext('stock_commits'))")
            .execute(&mut self.connection)
            .await?;
        sqlx::query!(
            "update stock_commits set tag = ('x' || left(gen_random_uuid()::text, 8))::bit(32)::integer
            where version > (select max(version) from stock_commits) - $1",
            RETAGGED
        )
        .execute(&mut self.connection)
        .await?;
        // Nobody's own: everybody looks.
        sqlx::query!("select pg_notify('stock_commits', '')")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    pub async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("commit").await
    }

    pub async fn rollback(&mut self) -> Result<(), StoreError> {
        self.run("rollback").await
    }

    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }

    async fn run(&mut self, statements: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(statements)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}

fn ids(row: Option<PgRow>) -> Result<LinesEnd, StoreError> {
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .transpose()
}
