//! The connections that questions share: lent for one of them, back with its answer.
//!
//! Invariant: a connection gives its place back at the moment its question ends, is given up or fails. One whose last
//! question was not answered is asked first whether it still answers, and holds up the next question no longer than
//! [`SETTLE_MAX`]: the server may be at the old one yet, or gone without a word. One whose transaction did not end is
//! closed, and with it the transaction.

use std::{fmt, io::ErrorKind, time::Duration};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    ConnectOptions, Connection, Describe, Either, Execute, Executor, PgConnection, Postgres,
    SqlStr, Transaction,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::{sleep, timeout};

use super::error::is_lost_connection;

/// Longest a connection may take to answer again, after a question that it did not answer.
const SETTLE_MAX: Duration = Duration::from_millis(250);
/// Between two tries to connect to a server that is about to serve.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
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
            Ok(Ok(kept)) => Ok(Lent {
                kept: Some(kept),
                is_in_transaction: false,
            }),
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

struct Maker(PgConnectOptions);

/// Without the password, which the options hold.
impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maker").finish_non_exhaustive()
    }
}

impl Manager for Maker {
    type Type = Kept;
    type Error = sqlx::Error;

    /// A server that is about to serve is waited for, as long as who asks waits.
    async fn create(&self) -> Result<Kept, sqlx::Error> {
        let mut pause = PAUSE_MIN;
        loop {
            // Apart: it is seldom, and larger than all the rest.
            match Box::pin(self.0.connect()).await {
                Ok(connection) => {
                    return Ok(Kept {
                        connection,
                        is_settled: true,
                    });
                }
                Err(error) if may_serve_soon(&error) => sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// One that went stale since its last answer is not noticed here: a read is tried once more instead.
    async fn recycle(&self, kept: &mut Kept, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > AGE_MAX {
            return Err(RecycleError::message("old"));
        }
        if !kept.is_settled {
            let answer = timeout(SETTLE_MAX, kept.connection.ping()).await;
            if !matches!(answer, Ok(Ok(()))) {
                tracing::debug!("a connection is not used again: it does not answer");
                return Err(RecycleError::message("silent"));
            }
        }
        kept.is_settled = false;
        Ok(())
    }
}

fn may_serve_soon(error: &sqlx::Error) -> bool {
    // cannot_connect_now, too_many_connections
    const SOON: [&str; 2] = ["57P03", "53300"];
    match error {
        sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| SOON.contains(&&*code)),
        _ => false,
    }
}

/// A connection while it is in use.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` once it is given back.
    kept: Option<Object<Maker>>,
    /// Whether a transaction was begun: if its end is not known, nobody else gets the connection.
    is_in_transaction: bool,
}

impl Lent {
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let kept = self.kept.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        Ok(&mut kept.connection)
    }

    /// Begins a transaction. Who ended it says so: [`Lent::settle`].
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        // First, for the answer may be missed while the server begins it.
        self.is_in_transaction = true;
        self.connection()?.begin().await
    }

    /// Everything it was asked is answered.
    pub(super) fn settle(mut self) {
        if let Some(kept) = &mut self.kept {
            kept.is_settled = true;
        }
    }

    /// With what its only question was answered. A connection that broke is seldom the only one: those that nobody uses
    /// right now are not tried one after the other.
    fn end<T>(self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &answer {
            Ok(_) => self.settle(),
            Err(error) if is_lost_connection(error) => {
                if let Some(pool) = self.kept.as_ref().and_then(Object::pool) {
                    drop(pool.retain(|_, _| false));
                }
            }
            Err(_) => {}
        }
        answer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else {
            return;
        };
        if self.is_in_transaction && !kept.is_settled {
            drop(Object::take(kept));
        }
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
            let steps = lent
                .connection()?
                .fetch_many(query)
                .try_collect::<Vec<Step>>()
                .await;
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
            let row = lent.connection()?.fetch_optional(query).await;
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
            let statement = lent.connection()?.prepare_with(sql, parameters).await;
            lent.end(statement)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let described = lent.connection()?.describe(sql).await;
            lent.end(described)
        })
    }
}
