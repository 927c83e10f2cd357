//! Reservations behind the service's back, written as the service writes them: one transaction that is published.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use stockyard::domain::{CommitPoint, ReservationId, Tag, Timestamp, Version};
use uuid::Uuid;

use super::{TestDatabase, eventually};

/// A reservation that was made.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    pub id: ReservationId,
    pub commit: CommitPoint,
    /// By the database's clock.
    pub expires_at: Option<Timestamp>,
}

/// How a reservation ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Confirmed,
    Released,
    Expired,
}

impl End {
    /// The state it leaves, and the kind of its rows in the ledger.
    fn numbers(self) -> (i16, i16) {
        match self {
            Self::Confirmed => (2, 11),
            Self::Released => (3, 10),
            Self::Expired => (4, 12),
        }
    }
}

impl TestDatabase {
    /// Reserves units of a product in warehouses, whether or not there are so many.
    pub async fn reserve(
        &self,
        product: Uuid,
        units: &[(Uuid, i64)],
        expires_in: Option<Duration>,
    ) -> Reserved {
        let id = Uuid::new_v4();
        let expires_us = expires_in.map(|time| i64::try_from(time.as_micros()).expect("a time"));
        let mut connection = self.connect().await;
        let mut tx = connection.begin().await.expect("begin");
        let (batch, expires_at): (i64, Option<i64>) = sqlx::query_as(
            "select nextval('stock_batches'), ((extract(epoch from clock_timestamp()) * 1000000)::bigint + $1)",
        )
        .bind(expires_us)
        .fetch_one(&mut *tx)
        .await
        .expect("a batch");
        sqlx::query("insert into products (product_id) values ($1) on conflict do nothing")
            .bind(product)
            .execute(&mut *tx)
            .await
            .expect("the product");
        for (warehouse, quantity) in units {
            sqlx::query("insert into warehouses (warehouse_id) values ($1) on conflict do nothing")
                .bind(warehouse)
                .execute(&mut *tx)
                .await
                .expect("the warehouse");
            let level = sqlx::query(
                "insert into stock_levels as l (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
                values ($1, $2, 0, $3, 1, now())
                on conflict (warehouse_id, product_id) do update
                set reserved = l.reserved + excluded.reserved, revision = l.revision + 1, updated_at = greatest(l.updated_at, now())
                returning inventory_id",
            )
            .bind(warehouse)
            .bind(product)
            .bind(quantity)
            .fetch_one(&mut *tx)
            .await
            .expect("the level");
            let level: i64 = level.get(0);
            sqlx::query(
                "insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in)
                values ($1, $2, $3, 1, clock_timestamp(), 'epoch'::timestamptz + $4 * interval '1 microsecond', clock_timestamp(), $5)",
            )
            .bind(id)
            .bind(level)
            .bind(quantity)
            .bind(expires_at)
            .bind(batch)
            .execute(&mut *tx)
            .await
            .expect("the line");
            append(&mut tx, batch, level, (0, *quantity), id, 9).await;
        }
        let commit = publish(&mut tx, batch).await;
        tx.commit().await.expect("commit");
        connection.close().await.expect("close");
        Reserved {
            id: ReservationId::new(id).expect("an id"),
            commit,
            expires_at: expires_at.map(Timestamp::from_micros),
        }
    }

    /// Ends an active reservation.
    pub async fn end(&self, reservation: ReservationId, end: End) -> CommitPoint {
        let (state, kind) = end.numbers();
        let mut connection = self.connect().await;
        let mut tx = connection.begin().await.expect("begin");
        let batch: i64 = sqlx::query_scalar("select nextval('stock_batches')")
            .fetch_one(&mut *tx)
            .await
            .expect("a batch");
        let lines: Vec<(i64, i64)> = sqlx::query_as(
            "update reservations set state = $2, changed_at = clock_timestamp(), ended_in = $3
            where reservation_id = $1 and state = 1 returning inventory_id, quantity",
        )
        .bind(reservation.uuid())
        .bind(state)
        .bind(batch)
        .fetch_all(&mut *tx)
        .await
        .expect("lines");
        assert!(!lines.is_empty(), "it is active");
        for (level, quantity) in lines {
            let on_hand = if kind == 11 { -quantity } else { 0 };
            sqlx::query(
                "update stock_levels set on_hand = on_hand + $2, reserved = reserved - $3, revision = revision + 1,
                    updated_at = greatest(updated_at, now()) where inventory_id = $1",
            )
            .bind(level)
            .bind(on_hand)
            .bind(quantity)
            .execute(&mut *tx)
            .await
            .expect("the level");
            append(
                &mut tx,
                batch,
                level,
                (on_hand, -quantity),
                reservation.uuid(),
                kind,
            )
            .await;
        }
        let commit = publish(&mut tx, batch).await;
        tx.commit().await.expect("commit");
        connection.close().await.expect("close");
        commit
    }

    /// A clock that shows the database's time.
    pub async fn clock(&self) -> DatabaseClock {
        DatabaseClock(self.connect().await)
    }
}

/// Holds every commit up, and with it the levels it has locked.
pub struct HeldCommits(PgConnection);

impl TestDatabase {
    pub async fn hold_commits(&self) -> HeldCommits {
        let mut connection = self.connect().await;
        sqlx::raw_sql("select pg_advisory_lock(hashtext('stock_commits'))")
            .execute(&mut connection)
            .await
            .expect("the lock");
        HeldCommits(connection)
    }

    /// Waits until somebody waits for a commit that is held up.
    pub async fn one_waits_to_commit(&self) {
        self.one_waits_on("advisory").await;
    }

    /// Waits until somebody waits for a row that somebody else has locked.
    pub async fn one_waits_for_a_row(&self) {
        self.one_waits_on("transactionid").await;
    }

    async fn one_waits_on(&self, event: &str) {
        let waiting = format!(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event = '{event}'"
        );
        eventually(event, async || {
            (self.number(&waiting).await == 1).then_some(())
        })
        .await;
    }
}

impl HeldCommits {
    pub async fn let_go(self) {
        self.0.close().await.expect("close");
    }
}

/// The database's clock, over a connection of its own.
pub struct DatabaseClock(PgConnection);

impl DatabaseClock {
    pub async fn now(&mut self) -> Timestamp {
        let now: i64 =
            sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
                .fetch_one(&mut self.0)
                .await
                .expect("the time");
        Timestamp::from_micros(now)
    }

    /// Waits until it shows that time, or a later one.
    pub async fn reach(&mut self, time: Timestamp) {
        while self.now().await < time {}
    }
}

/// A row of the ledger, beside the level as it is now.
async fn append(
    connection: &mut PgConnection,
    batch: i64,
    level: i64,
    (on_hand, reserved): (i64, i64),
    cause: Uuid,
    kind: i16,
) {
    sqlx::query(
        "insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
            occurred_at, cause_id, kind)
        select $1, inventory_id, revision, $3, $4, on_hand, reserved, clock_timestamp(), $5, $6 from stock_levels where inventory_id = $2",
    )
    .bind(batch)
    .bind(level)
    .bind(on_hand)
    .bind(reserved)
    .bind(cause)
    .bind(kind)
    .execute(connection)
    .await
    .expect("a row of the ledger");
}

async fn publish(connection: &mut PgConnection, batch: i64) -> CommitPoint {
    let published = "select version, tag from stock_publish($1, $2, now(), null)";
    let (version, tag): (i64, i32) = sqlx::query_as(published)
        .bind(batch)
        .bind(rand::random::<i32>())
        .fetch_one(connection)
        .await
        .expect("published");
    CommitPoint {
        version: Version::new(version).expect("a version"),
        tag: Tag(tag.cast_unsigned()),
    }
}
