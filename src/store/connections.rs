//! The connections that questions share: lent for one of them, back with its answer.
//!
//! Invariant: a connection gives its place back at the moment its question ends, is given up or fails, and what became of
//! it holds up nobody for longer than [`SETTLE_MAX`]. One whose last question was not answered is asked first whether it
//! still answers: the server may be at that question yet, or gone without a word.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    ConnectOptions, Connection, Describe, Either, Execute, Executor, PgConnection, Postgres,
    SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::timeout;

/// Longest a connection may take to answer again, after a question that it did not answer.
const SETTLE_MAX: Duration = Duration::from_millis(250);
/// A connection older than this is replaced: the server's memory of what it was asked is given back.
const AGE_MAX: Duration = Duration::from_mins(30);

/// At most so many connections, made when they are needed.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: Pool<Maker>,
    /// Longest to wait for a free connection, or a new one.
    acquire_timeout: Duration,
}

impl Connections {
    pub(super) fn new(
        options: PgConnectOptions,
        max: u32,
        acquire_timeout: Duration,
    ) -> Result<Self, sqlx::Error> {
        let pool = Pool::builder(Maker(options))
            .max_size(usize::try_from(max).unwrap_or(usize::MAX))
            .build()
            .map_err(|error| sqlx::Error::Configuration(error.into()))?;
        Ok(Self {
            pool,
            acquire_timeout,
        })
    }

    /// A connection for more than one statement. Who got all answers says so: [`Lent::settle`].
    pub(super) async fn lend(&self) -> Result<Lent, sqlx::Error> {
        match timeout(self.acquire_timeout, self.pool.get()).await {
            Ok(Ok(kept)) => Ok(Lent(kept)),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(_)) => Err(sqlx::Error::PoolClosed),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Most connections.
    pub(super) fn max(&self) -> u32 {
        u32::try_from(self.pool.status().max_size).unwrap_or(u32::MAX)
    }

    /// Connections: (all, idle ones).
    pub(super) fn count(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// Lends no more, and says goodbye on those that are back.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for kept in idle {
            drop(kept.connection.close().await);
        }
    }
}

/// A connection of the pool.
#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    /// Whether everything it was asked is answered.
    is_settled: bool,
}

#[derive(Debug)]
struct Maker(PgConnectOptions);

impl Manager for Maker {
    type Type = Kept;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Kept, sqlx::Error> {
        Ok(Kept {
            connection: self.0.connect().await?,
            is_settled: false,
        })
    }

    /// One that went stale since its last answer is not noticed here: a read is tried once more instead.
    async fn recycle(&self, kept: &mut Kept, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > AGE_MAX {
            return Err(RecycleError::message("old"));
        }
        if !std::mem::take(&mut kept.is_settled) {
            let answer = timeout(SETTLE_MAX, kept.connection.ping());
            answer
                .await
                .map_err(|_| RecycleError::message("silent"))??;
        }
        Ok(())
    }
}

/// A connection while it is in use.
#[derive(Debug)]
pub(super) struct Lent(Object<Maker>);

impl Lent {
    /// Everything it was asked is answered.
    pub(super) fn settle(mut self) {
        self.0.is_settled = true;
    }

    /// With what its only question was answered. A connection that broke is seldom the only one: those that nobody uses
    /// right now are not tried one after the other.
    fn end<T>(self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &answer {
            Ok(_) => self.settle(),
            Err(sqlx::Error::Io(_)) => {
                if let Some(pool) = Object::pool(&self.0) {
                    drop(pool.retain(|_, _| false));
                }
            }
            Err(_) => {}
        }
        answer
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }
}

type Step = Either<PgQueryResult, PgRow>;

impl<'c> Executor<'c> for &'c Connections {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        // All of it first, so that who reads it slowly holds no connection. Every question here has a limit.
        let steps = async move {
            let mut lent = self.lend().await?;
            let steps = lent.fetch_many(query).try_collect::<Vec<Step>>().await;
            lent.end(steps)
                .map(|steps| stream::iter(steps.into_iter().map(Ok)))
        };
        stream::once(steps).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let row = lent.fetch_optional(query).await;
            lent.end(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let statement = lent.prepare_with(sql, parameters).await;
            lent.end(statement)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let described = lent.describe(sql).await;
            lent.end(described)
        })
    }
}
