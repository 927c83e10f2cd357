//! The ledger's ranges of batches: room is made ahead of need, and what is full is closed behind.
//!
//! Invariant: a closed range takes no more rows. A transaction that comes late with a number of one is refused with an error that
//! is no fault of its data, and goes in under a new number.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;

use super::{Store, StoreError, TCP_USER_TIMEOUT_MS};

/// A question looks at fewer rows than this of a key in each closed range: so many lie between two checkpoints at most.
pub const CHECKPOINT_ROWS: i64 = 1_000;
/// A range is sealed, gets its index, and is added up.
const STEPS: usize = 3;
/// Longest one step of closing may take on the server: on a partition of two million rows it takes about 5 s.
const STEP_STATEMENT_MAX: &str = "60s";
/// After that its connection counts as lost.
const STEP_MAX: Duration = Duration::from_secs(65);

impl Store {
    /// Makes sure the ledger has a partition for the batches to come.
    pub async fn make_ledger_room(&self, partition_bytes_max: i64) -> Result<(), StoreError> {
        self.in_time(async {
            sqlx::query!("select stock_ledger_make_room($1)", partition_bytes_max)
                .execute(&self.scans)
                .await?;
            Ok(())
        })
        .await
    }

    /// Closes the oldest range before the open one that is not closed, with a checkpoint about every so many rows; how many steps it
    /// took, fewer than all if another process is at it or somebody writes to the range this moment. Given up in the middle,
    /// the steps that were taken are. It takes one processor and no more: ingest goes on beside it.
    pub async fn close_ledger_range(&self, rows_between: i64) -> Result<usize, StoreError> {
        if !self.has_range_to_close().await? {
            return Ok(0);
        }
        let options = self.serving.clone().options([
            ("statement_timeout", STEP_STATEMENT_MAX),
            ("max_parallel_maintenance_workers", "0"),
            ("max_parallel_workers_per_gather", "0"),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
        ]);
        let mut connection = in_step(Box::pin(options.connect())).await?;
        let mut steps = 0;
        while steps < STEPS && in_step(close_next(&mut connection, rows_between)).await? {
            steps += 1;
        }
        in_step(connection.close()).await?;
        Ok(steps)
    }

    /// Whether the sequence of batch numbers has left a range that is not closed.
    async fn has_range_to_close(&self) -> Result<bool, StoreError> {
        self.in_time(async {
            let closed = sqlx::query_scalar!(
                r#"select (select count(*) from stock_ledger_ranges where closed_at is not null)
                    < (select last_value / 4294967296 from stock_batches) as "has!""#
            );
            Ok(closed.fetch_one(&self.scans).await?)
        })
        .await
    }
}

/// Takes the next step, a transaction of its own; whether there was one.
async fn close_next(connection: &mut PgConnection, rows_between: i64) -> Result<bool, sqlx::Error> {
    let took = sqlx::query_scalar!(
        r#"select stock_ledger_close_next($1) as "took!""#,
        rows_between
    );
    took.fetch_one(connection).await
}

async fn in_step<T>(step: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    let answer = timeout(STEP_MAX, step).await;
    Ok(answer.map_err(|_| StoreError::NoAnswer(STEP_MAX))??)
}
