//! What deciding reads and writes, in the order of its steps: levels are locked (and made) by one statement, which waits for those that
//! somebody else holds or passes over them, then what is due is expired, then reservations are read again, then everything that was
//! decided is written.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    PgTime, Store, StoreError, kinds,
    writer::{WriteTx, stock_key},
};
use crate::domain::{
    InventoryId, ProductId, ReservationId, Revision, StockKey, StockLevel, Timestamp,
    change::{ChangeKind, LedgerRow},
    command::Note,
    decide::{Due, Entry, Held, Made, Standing},
    reservation::State,
};

/// A level that may be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub key: StockKey,
    /// If it is not there, it comes to be.
    pub may_make: bool,
}

/// What is done about levels that somebody else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfHeld {
    Wait,
    /// They are not locked, and nothing is made either: who makes a level may wait for somebody who makes the same, and while others are
    /// locked that ends in deadlocks.
    PassOver,
}

/// Levels that are locked, and the time at which they were.
#[derive(Debug)]
pub struct Locked {
    pub levels: Vec<(InventoryId, Standing)>,
    pub now: Timestamp,
    /// Whether some of their reservations may be due; if not, none is.
    pub may_have_due: bool,
    /// Products of them that are archived.
    pub archived: Vec<Uuid>,
    /// Levels that are not locked, because somebody else holds them or because they would have to be made.
    pub passed_over: HashSet<StockKey>,
}

/// The same as it is read.
struct LockedColumns {
    inventory_ids: Vec<i64>,
    warehouses: Vec<Uuid>,
    products: Vec<Uuid>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    revisions: Vec<i64>,
    updated_at: Vec<PgTime>,
    now: PgTime,
    /// Somebody else changed one of them while the statement waited for it.
    is_old: bool,
    /// When the next of their reservations expires.
    expires_next: Option<PgTime>,
    archived: Vec<Uuid>,
    passed_over_in: Vec<Uuid>,
    passed_over_of: Vec<Uuid>,
}

/// A reservation's line beside its level's key.
struct LineRow {
    reservation_id: Uuid,
    warehouse_id: Uuid,
    product_id: Uuid,
    quantity: i64,
    state: i16,
    created_at: PgTime,
    expires_at: Option<PgTime>,
}

/// Reads levels that are locked: `$locked` says how (the tables `locked`, and what `$passed_over` names), of the warehouses `$1` and
/// products `$2`, and of the products `$3` everywhere.
macro_rules! locked_columns {
    ($locked:tt, $passed_over:tt, $($argument:expr),+) => {
        sqlx::query_as!(
            LockedColumns,
            $locked
            + r#"
            select coalesce(array_agg(l.inventory_id), '{}') as "inventory_ids!", coalesce(array_agg(l.warehouse_id), '{}') as "warehouses!",
                coalesce(array_agg(l.product_id), '{}') as "products!", coalesce(array_agg(l.on_hand), '{}') as "on_hand!",
                coalesce(array_agg(l.reserved), '{}') as "reserved!", coalesce(array_agg(l.revision), '{}') as "revisions!",
                coalesce(array_agg(l.updated_at), '{}') as "updated_at!: Vec<PgTime>", clock_timestamp() as "now!: PgTime",
                coalesce(bool_or(l.revision <> coalesce(seen.revision, 0)), false) as "is_old!",
                min(due.expires_at) as "expires_next: PgTime",
                stock_archived($2 || $3) as "archived!","#
            + $passed_over
            + r#"
            from locked l
            left join stock_levels seen on seen.inventory_id = l.inventory_id
            left join lateral (
                select r.inventory_id, r.expires_at from reservations r
                where l.reserved > 0 and r.state = 1 and (r.inventory_id, r.expires_at) > (l.inventory_id, '-infinity')
                order by r.inventory_id, r.expires_at limit 1
            ) due on due.inventory_id = l.inventory_id"#,
            $($argument),+
        )
    };
}

impl LockedColumns {
    fn locked(self) -> Result<Locked, StoreError> {
        let mut levels = Vec::with_capacity(self.inventory_ids.len());
        for (place, inventory_id) in self.inventory_ids.into_iter().enumerate() {
            let key = stock_key(self.warehouses[place], self.products[place])?;
            let revision = Revision(self.revisions[place]);
            let level = StockLevel {
                on_hand: self.on_hand[place],
                reserved: self.reserved[place],
                revision,
                // One that was just made was never updated.
                updated_at: (revision.0 > 0).then_some(self.updated_at[place].0),
            };
            levels.push((InventoryId(inventory_id), Standing { key, level }));
        }
        let now = self.now.0;
        let passed_over = self.passed_over_in.into_iter().zip(self.passed_over_of);
        Ok(Locked {
            levels,
            now,
            may_have_due: self.is_old || self.expires_next.is_some_and(|next| next.0 <= now),
            archived: self.archived,
            passed_over: passed_over
                .map(|(warehouse, product)| stock_key(warehouse, product))
                .collect::<Result<_, StoreError>>()?,
        })
    }
}

impl WriteTx<'_> {
    /// Locks levels, and makes those that may be made, in the order of their keys: those that are wanted, and where anything of
    /// these products stands.
    ///
    /// One pass over all of them: two, or locking first and making later, would end in deadlocks. A level that somebody else held
    /// is locked as he left it, but reservations are seen as they were when the statement began: the level's revision tells. What
    /// expires next is looked for in rows, because then only the index of a level's active reservations can serve.
    pub async fn lock_levels(
        &mut self,
        wanted: &[Wanted],
        everywhere: &[Uuid],
        if_held: IfHeld,
    ) -> Result<Locked, StoreError> {
        let makes = wanted.iter().any(|wanted| wanted.may_make);
        let read = match if_held {
            IfHeld::PassOver => self.lock_free_ones(wanted, everywhere).await?,
            IfHeld::Wait if makes => self.lock_or_make(wanted, everywhere).await?,
            IfHeld::Wait => self.lock_what_is_there(wanted, everywhere).await?,
        };
        let mut locked = read.locked()?;
        if makes && if_held == IfHeld::PassOver {
            let there: HashSet<StockKey> = locked.levels.iter().map(|(_, at)| at.key).collect();
            let to_be_made = wanted
                .iter()
                .filter(|wanted| wanted.may_make && !there.contains(&wanted.key))
                .map(|wanted| wanted.key);
            locked.passed_over.extend(to_be_made);
        }
        Ok(locked)
    }

    async fn lock_or_make(
        &mut self,
        wanted: &[Wanted],
        everywhere: &[Uuid],
    ) -> Result<LockedColumns, StoreError> {
        let (warehouses, products) = ids(wanted);
        let may_make: Vec<bool> = wanted.iter().map(|w| w.may_make).collect();
        locked_columns!(
            r#"with wanted as (
                select w, p from unnest($1::uuid[], $2::uuid[], $4::boolean[]) as k (w, p, may_make)
                where may_make or exists (
                    select from stock_levels there where there.warehouse_id = k.w and there.product_id = k.p
                )
                union
                select warehouse_id, product_id from stock_levels where product_id = any($3) and on_hand > 0
            ), locked as (
                insert into stock_levels as l (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
                select w, p, 0, 0, 0, clock_timestamp() from wanted order by w, p
                on conflict (warehouse_id, product_id) do update set revision = l.revision
                returning inventory_id, warehouse_id, product_id, on_hand, reserved, revision, updated_at
            )"#,
            r#" '{}'::uuid[] as "passed_over_in!", '{}'::uuid[] as "passed_over_of!""#,
            &warehouses,
            &products,
            everywhere,
            &may_make
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::of_data)
    }

    /// The same where nothing is to be made, for less than half: nothing is written.
    async fn lock_what_is_there(
        &mut self,
        wanted: &[Wanted],
        everywhere: &[Uuid],
    ) -> Result<LockedColumns, StoreError> {
        let (warehouses, products) = ids(wanted);
        locked_columns!(
            r#"with locked as materialized (
                select inventory_id, warehouse_id, product_id, on_hand, reserved, revision, updated_at from stock_levels
                where inventory_id = any(array(
                    select there.inventory_id from unnest($1::uuid[], $2::uuid[]) as k (w, p)
                    join stock_levels there on there.warehouse_id = k.w and there.product_id = k.p
                    union all
                    select inventory_id from stock_levels where product_id = any($3) and on_hand > 0
                ))
                order by warehouse_id, product_id
                for no key update
            )"#,
            r#" '{}'::uuid[] as "passed_over_in!", '{}'::uuid[] as "passed_over_of!""#,
            &warehouses,
            &products,
            everywhere
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::of_data)
    }

    /// Those of them that nobody else holds: it waits for nobody.
    async fn lock_free_ones(
        &mut self,
        wanted: &[Wanted],
        everywhere: &[Uuid],
    ) -> Result<LockedColumns, StoreError> {
        let (warehouses, products) = ids(wanted);
        locked_columns!(
            r#"with there as materialized (
                select l.inventory_id, l.warehouse_id, l.product_id from unnest($1::uuid[], $2::uuid[]) as k (w, p)
                join stock_levels l on l.warehouse_id = k.w and l.product_id = k.p
                union
                select inventory_id, warehouse_id, product_id from stock_levels where product_id = any($3) and on_hand > 0
            ), locked as materialized (
                select inventory_id, warehouse_id, product_id, on_hand, reserved, revision, updated_at from stock_levels
                where inventory_id = any(array(select inventory_id from there))
                order by warehouse_id, product_id
                for no key update skip locked
            ), passed_over as materialized (
                select warehouse_id, product_id from there
                where not exists (select from locked where locked.inventory_id = there.inventory_id)
            )"#,
            r#"
                coalesce((select array_agg(warehouse_id) from passed_over), '{}') as "passed_over_in!",
                coalesce((select array_agg(product_id) from passed_over), '{}') as "passed_over_of!""#,
            &warehouses,
            &products,
            everywhere
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::of_data)
    }

    /// Takes away levels that were made to be locked and that nothing touched.
    pub async fn forget_levels(&mut self, levels: &[i64]) -> Result<(), StoreError> {
        sqlx::query!("select stock_levels_forget($1)", levels)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Expires what is due on levels that are locked, the longest due first, so many lines at most: a statement of its own, because one that waited for the locks does not see
    /// what others did meanwhile.
    pub async fn expire_due(
        &mut self,
        levels: &[(InventoryId, Standing)],
        now: Timestamp,
        lines_max: i64,
    ) -> Result<Vec<Due>, StoreError> {
        let batch = self.batch().0;
        let ids: Vec<i64> = levels.iter().map(|(id, _)| id.0).collect();
        let rows = sqlx::query!(
            r#"update reservations set state = 4, ended_in = $1, changed_at = $3
            where (reservation_id, inventory_id) in (
                select reservation_id, inventory_id from reservations
                where state = 1 and inventory_id = any($2) and expires_at <= $3
                order by expires_at limit $4
            )
            returning reservation_id, inventory_id, quantity, expires_at as "expires_at!: PgTime""#,
            batch,
            &ids,
            PgTime(now) as _,
            lines_max
        )
        .fetch_all(self.connection())
        .await?;
        let keys: HashMap<i64, StockKey> = levels.iter().map(|(id, at)| (id.0, at.key)).collect();
        rows.into_iter()
            .map(|row| {
                let key = keys.get(&row.inventory_id);
                let (reservation, key) = ReservationId::new(row.reservation_id)
                    .zip(key)
                    .ok_or(StoreError::Inconsistent("a reservation's ids"))?;
                Ok(Due {
                    reservation,
                    key: *key,
                    quantity: row.quantity,
                    expires_at: row.expires_at.0,
                })
            })
            .collect()
    }

    /// These reservations, as far as they are there, with their lines by key.
    pub async fn reservations(
        &mut self,
        ids: &[Uuid],
    ) -> Result<Vec<(ReservationId, Held)>, StoreError> {
        let rows = sqlx::query_as!(
            LineRow,
            r#"select r.reservation_id, l.warehouse_id, l.product_id, r.quantity, r.state,
                r.created_at as "created_at: PgTime", r.expires_at as "expires_at: PgTime"
            from reservations r join stock_levels l on l.inventory_id = r.inventory_id
            where r.reservation_id = any($1)
            order by r.reservation_id, l.warehouse_id, l.product_id"#,
            ids
        )
        .fetch_all(self.connection())
        .await?;
        rows.chunk_by(|a, b| a.reservation_id == b.reservation_id)
            .map(held)
            .collect()
    }

    /// Of these products and warehouses, those that are not in the catalogue, or archived. The others are not archived before the end of
    /// the transaction.
    pub async fn unknown(
        &mut self,
        products: &[Uuid],
        warehouses: &[Uuid],
    ) -> Result<Vec<Uuid>, StoreError> {
        let unknown = sqlx::query_scalar!(
            r#"with held as (
                select product_id from products where product_id = any($1) and archived_at is null order by product_id for share
            )
            select id as "id!" from unnest($1::uuid[]) id
            where not exists (select from held where held.product_id = id)
            union all
            select id from unnest($2::uuid[]) id
            where not exists (select from warehouses w where w.warehouse_id = id)"#,
            products,
            warehouses
        )
        .fetch_all(self.connection())
        .await?;
        Ok(unknown)
    }

    /// Writes levels as they are now, ledger rows and reservations.
    pub async fn write_decided(
        &mut self,
        levels: &[(InventoryId, StockLevel)],
        rows: &[LedgerRow],
        entries: &[&Entry],
        made: &[Made],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let batch = self.batch().0;
        let levels = LevelColumns::of(levels);
        let ledger = EntryColumns::of(rows, entries)?;
        let lines = MadeColumns::of(made, rows)?;
        // Unnested side by side, arrays are read as they go; as a table each is first copied out.
        let written = sqlx::query_scalar!(
            r#"with levels as (
                update stock_levels l set on_hand = v.on_hand, reserved = v.reserved, revision = v.revision, updated_at = v.updated_at
                from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $21::timestamptz[])
                    as v (id, on_hand, reserved, revision, updated_at)
                where l.inventory_id = v.id
                returning l.inventory_id
            ), ledger as (
                insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta,
                    on_hand_after, reserved_after, occurred_at, cause_id, kind)
                select $1, unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::bigint[]), unnest($11::bigint[]),
                    unnest($12::bigint[]), unnest($13::timestamptz[]), unnest($14::uuid[]), unnest($15::smallint[])
            ), made as (
                insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in, reference)
                select unnest($16::uuid[]), unnest($17::bigint[]), unnest($18::bigint[]), 1, $6, unnest($19::timestamptz[]), $6, $1,
                    unnest($20::text[])
            )
            select count(*) as "levels!" from levels"#,
            batch,
            &levels.ids,
            &levels.on_hand,
            &levels.reserved,
            &levels.revisions,
            PgTime(now) as _,
            &ledger.ids,
            &ledger.revisions,
            &ledger.on_hand_deltas,
            &ledger.reserved_deltas,
            &ledger.on_hand,
            &ledger.reserved,
            &ledger.occurred_at as _,
            &ledger.causes,
            &ledger.kinds,
            &lines.ids,
            &lines.levels,
            &lines.quantities,
            &lines.expires_at as _,
            &lines.references as _,
            &levels.updated_at as _
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        if usize::try_from(written) == Ok(levels.ids.len()) {
            self.changed_levels(now)
        } else {
            Err(StoreError::Inconsistent("a level that was locked"))
        }
    }

    /// Notes who did it and why, once for each cause and kind.
    pub async fn write_notes(&mut self, entries: &[&Entry]) -> Result<(), StoreError> {
        let noted: Vec<&&Entry> = entries.iter().filter(|e| !e.note.is_empty()).collect();
        if noted.is_empty() {
            return Ok(());
        }
        let batch = self.batch().0;
        let causes: Vec<Uuid> = noted.iter().map(|entry| entry.cause).collect();
        let kinds: Vec<i16> = noted.iter().filter_map(|e| kinds::number(e.kind)).collect();
        let text = |of: fn(&Note) -> Option<&str>| -> Vec<Option<String>> {
            let texts = noted.iter().map(|entry| of(&entry.note));
            texts.map(|text| text.map(str::to_owned)).collect()
        };
        sqlx::query!(
            "insert into stock_notes (batch, cause_id, kind, actor, reason, reference)
            select $1, n.* from unnest($2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::text[]) as n
            on conflict do nothing",
            batch,
            &causes,
            &kinds,
            &text(|note| note.actor.as_deref()) as _,
            &text(|note| note.reason.as_deref()) as _,
            &text(|note| note.reference.as_deref()) as _
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(())
    }

    /// Writes the new states of reservations.
    pub async fn move_reservations(
        &mut self,
        moved: &[(ReservationId, State)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let batch = self.batch().0;
        let ids: Vec<Uuid> = moved.iter().map(|(id, _)| id.uuid()).collect();
        let states: Vec<i16> = moved.iter().map(|(_, state)| state.number()).collect();
        // Several steps of one in one commit: the last one counts.
        sqlx::query!(
            "update reservations r set state = v.state, ended_in = coalesce(r.ended_in, $1), changed_at = $2
            from (
                select distinct on (id) id, state
                from unnest($3::uuid[], $4::smallint[]) with ordinality as v (id, state, place)
                order by id, place desc
            ) v
            where r.reservation_id = v.id",
            batch,
            PgTime(now) as _,
            &ids,
            &states
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Writes when reservations expire now.
    pub async fn extend_reservations(
        &mut self,
        extended: &[(ReservationId, Timestamp)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = extended.iter().map(|(id, _)| id.uuid()).collect();
        let until: Vec<PgTime> = extended.iter().map(|(_, at)| PgTime(*at)).collect();
        sqlx::query!(
            "update reservations r set expires_at = v.until, changed_at = $1
            from (
                select id, max(until) as until from unnest($2::uuid[], $3::timestamptz[]) as v (id, until) group by id
            ) v
            where r.reservation_id = v.id and r.state = 1",
            PgTime(now) as _,
            &ids,
            &until as _
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// Of warehouses and products.
fn ids(wanted: &[Wanted]) -> (Vec<Uuid>, Vec<Uuid>) {
    let ids = wanted
        .iter()
        .map(|w| (w.key.warehouse.uuid(), w.key.product.uuid()));
    ids.unzip()
}

fn held(rows: &[LineRow]) -> Result<(ReservationId, Held), StoreError> {
    const BROKEN: StoreError = StoreError::Inconsistent("a reservation");
    let first = rows.first().ok_or(BROKEN)?;
    let states = rows.iter().map(|row| State::stored(row.state));
    let states: Vec<State> = states.collect::<Option<_>>().ok_or(BROKEN)?;
    // One whose time has run out may have been tidied up on some of its levels only.
    let expired = states.iter().find(|state| **state == State::Expired);
    let state = *expired.or(states.first()).ok_or(BROKEN)?;
    let lines = rows
        .iter()
        .map(|row| Ok((stock_key(row.warehouse_id, row.product_id)?, row.quantity)));
    let id = ReservationId::new(first.reservation_id).ok_or(BROKEN)?;
    let held = Held {
        state,
        created_at: first.created_at.0,
        expires_at: first.expires_at.as_ref().map(|at| at.0),
        lines: lines.collect::<Result<_, StoreError>>()?,
    };
    Ok((id, held))
}

struct LevelColumns {
    ids: Vec<i64>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    revisions: Vec<i64>,
    /// None of them is empty: each level has changed.
    updated_at: Vec<Option<PgTime>>,
}

impl LevelColumns {
    fn of(levels: &[(InventoryId, StockLevel)]) -> Self {
        Self {
            ids: levels.iter().map(|(id, _)| id.0).collect(),
            on_hand: levels.iter().map(|(_, level)| level.on_hand).collect(),
            reserved: levels.iter().map(|(_, level)| level.reserved).collect(),
            revisions: levels.iter().map(|(_, level)| level.revision.0).collect(),
            updated_at: levels
                .iter()
                .map(|(_, level)| level.updated_at.map(PgTime))
                .collect(),
        }
    }
}

struct EntryColumns {
    ids: Vec<i64>,
    revisions: Vec<i64>,
    on_hand_deltas: Vec<i64>,
    reserved_deltas: Vec<i64>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    occurred_at: Vec<PgTime>,
    causes: Vec<Uuid>,
    kinds: Vec<i16>,
}

impl EntryColumns {
    /// Rows and entries are of one length and order.
    fn of(rows: &[LedgerRow], entries: &[&Entry]) -> Result<Self, StoreError> {
        let kinds = entries.iter().map(|entry| kind(entry.kind));
        Ok(Self {
            ids: rows.iter().map(|row| row.inventory_id.0).collect(),
            revisions: rows.iter().map(|row| row.revision.0).collect(),
            on_hand_deltas: rows.iter().map(|row| row.delta.on_hand).collect(),
            reserved_deltas: rows.iter().map(|row| row.delta.reserved).collect(),
            on_hand: rows.iter().map(|row| row.after.on_hand).collect(),
            reserved: rows.iter().map(|row| row.after.reserved).collect(),
            occurred_at: entries.iter().map(|e| PgTime(e.occurred_at)).collect(),
            causes: entries.iter().map(|entry| entry.cause).collect(),
            kinds: kinds.collect::<Result<_, _>>()?,
        })
    }
}

fn kind(kind: ChangeKind) -> Result<i16, StoreError> {
    kinds::number(kind).ok_or(StoreError::Inconsistent("a kind of change"))
}

struct MadeColumns {
    ids: Vec<Uuid>,
    levels: Vec<i64>,
    quantities: Vec<i64>,
    expires_at: Vec<Option<PgTime>>,
    references: Vec<Option<String>>,
}

impl MadeColumns {
    /// The numbers of the levels are those of the ledger rows, which are by key.
    fn of(made: &[Made], rows: &[LedgerRow]) -> Result<Self, StoreError> {
        let mut columns = Self {
            ids: Vec::with_capacity(made.len()),
            levels: Vec::with_capacity(made.len()),
            quantities: Vec::with_capacity(made.len()),
            expires_at: Vec::with_capacity(made.len()),
            references: Vec::with_capacity(made.len()),
        };
        for one in made {
            for (key, quantity) in &one.lines {
                let place = rows.binary_search_by_key(key, |row| row.key);
                let row = place.ok().and_then(|place| rows.get(place));
                let row = row.ok_or(StoreError::Inconsistent("a level that was reserved of"))?;
                columns.ids.push(one.id.uuid());
                columns.levels.push(row.inventory_id.0);
                columns.quantities.push(*quantity);
                columns.expires_at.push(one.expires_at.map(PgTime));
                let reference = one.note.reference.as_deref();
                columns.references.push(reference.map(str::to_owned));
            }
        }
        Ok(columns)
    }
}

/// A product and how much of it an order is for.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    pub reservation: ReservationId,
    pub product: ProductId,
    pub quantity: i64,
}

impl WriteTx<'_> {
    /// Writes orders, each with its product's price; their numbers, in the order of `orders`.
    pub async fn write_orders(
        &mut self,
        orders: &[Ordered],
        now: Timestamp,
    ) -> Result<Vec<(ReservationId, i64)>, StoreError> {
        let reservations: Vec<Uuid> = orders.iter().map(|o| o.reservation.uuid()).collect();
        let products: Vec<Uuid> = orders.iter().map(|o| o.product.uuid()).collect();
        let quantities: Vec<i64> = orders.iter().map(|o| o.quantity).collect();
        let rows = sqlx::query!(
            "insert into orders (reservation_id, product_id, quantity, unit_price, created_at)
            select o.reservation, o.product, o.quantity, coalesce(p.price, 0), $4
            from unnest($1::uuid[], $2::uuid[], $3::bigint[]) with ordinality as o (reservation, product, quantity, place)
            left join products p on p.product_id = o.product
            order by o.place
            returning order_id, reservation_id",
            &reservations,
            &products,
            &quantities,
            PgTime(now) as _
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        let numbers = rows.into_iter();
        Ok(numbers
            .filter_map(|row| Some((ReservationId::new(row.reservation_id)?, row.order_id)))
            .collect())
    }
}

impl Store {
    /// At most `limit` levels with something due, the longest due first.
    pub async fn due_levels(&self, limit: i64) -> Result<Vec<StockKey>, StoreError> {
        let rows = sqlx::query!(
            "select distinct l.warehouse_id, l.product_id
            from (
                select inventory_id from reservations
                where state = 1 and expires_at <= now() and not pg_is_in_recovery()
                order by expires_at limit $1
            ) r
            join stock_levels l on l.inventory_id = r.inventory_id",
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let keys = rows.into_iter();
        keys.map(|row| stock_key(row.warehouse_id, row.product_id))
            .collect()
    }
}
