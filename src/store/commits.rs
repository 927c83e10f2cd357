//! The order of commits, as a follower reads it.

use std::time::Duration;

use sqlx::{
    PgExecutor,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::{
    PgTime, Store, StoreError,
    connections::Connections,
    writer::{BatchNumber, Mark, Published, WriteTx, commit_point},
};
use crate::domain::{CommitPoint, Timestamp, TraceParent, Version};

/// After so long a silence a listener is asked whether it still hears.
const LISTEN_CHECK_AFTER: Duration = Duration::from_secs(5);

/// One row of the order.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub point: CommitPoint,
    pub committed_at: Timestamp,
    /// The `updated_at` of the levels that it changed, unless that of one was later already. `None` where it changed none, or the process
    /// that made it knows nothing of this.
    pub levels_changed_at: Option<Timestamp>,
    /// Of one that is recorded.
    pub trace: Option<TraceParent>,
}

/// What a look at the order of commits found.
#[derive(Clone, Debug)]
pub struct Looked {
    pub commits: Vec<Commit>,
    /// The database's clock at some moment of the look; `None` where it found nothing.
    pub clock: Option<Timestamp>,
}

impl Store {
    /// The newest commit, for an answer.
    pub async fn newest_commit(&self) -> Result<CommitPoint, StoreError> {
        newest(&self.reads).await
    }

    /// The commit with this version, if it was reached and is still there.
    pub async fn commit(&self, version: Version) -> Result<Option<CommitPoint>, StoreError> {
        let tag = sqlx::query_scalar!(
            "select tag from stock_commits where version = $1",
            version.number()
        )
        .fetch_optional(&self.reads)
        .await?;
        tag.map(|tag| commit_point(version.number(), tag))
            .transpose()
    }

    /// At most `limit` commits from `from` on, in order, `from` itself included.
    pub async fn commits_from(&self, from: Version, limit: i64) -> Result<Looked, StoreError> {
        commits_from(&self.follow, from, limit).await
    }

    /// A connection that is told of commits.
    pub async fn listen(&self) -> Result<CommitListener, StoreError> {
        // Not of the follower's pool: a listener that is given up says goodbye first, and keeps its place for as long as
        // a dead connection takes to be noticed.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.reading.clone());
        let listener = self.in_time(async {
            let mut listener = Box::pin(PgListener::connect_with(&pool)).await?;
            listener.listen("stock_commits").await?;
            Ok(listener)
        });
        Ok(CommitListener {
            listener: listener.await?,
            store: self.clone(),
        })
    }
}

pub(super) async fn commits_from(
    database: impl PgExecutor<'_>,
    from: Version,
    limit: i64,
) -> Result<Looked, StoreError> {
    let rows = sqlx::query!(
        r#"select version, tag, committed_at as "committed_at: PgTime", levels_changed_at as "levels_changed_at: PgTime", traceparent,
                clock_timestamp() as "clock!: PgTime"
            from stock_commits where version >= $1 order by version limit $2"#,
        from.number(),
        limit
    )
    .fetch_all(database)
    .await?;
    let clock = rows.last().map(|row| row.clock.0);
    let commits = rows.into_iter().map(|row| {
        Ok(Commit {
            point: commit_point(row.version, row.tag)?,
            committed_at: row.committed_at.0,
            levels_changed_at: row.levels_changed_at.map(|at| at.0),
            trace: trace_parent(row.traceparent.as_deref()),
        })
    });
    Ok(Looked {
        commits: commits.collect::<Result<_, StoreError>>()?,
        clock,
    })
}

/// What another process wrote that knows more of it than this one is none.
fn trace_parent(text: Option<&str>) -> Option<TraceParent> {
    text.and_then(|text| text.parse().ok())
}

async fn newest(pool: &Connections) -> Result<CommitPoint, StoreError> {
    let row = sqlx::query!("select version, tag from stock_commits order by version desc limit 1")
        .fetch_optional(pool)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
    commit_point(row.version, row.tag)
}

impl WriteTx<'_> {
    /// The newest commit that the transaction sees, and its batch.
    pub async fn newest(&mut self) -> Result<(CommitPoint, BatchNumber), StoreError> {
        let row = sqlx::query!(
            "select version, tag, batch from stock_commits order by version desc limit 1"
        )
        .fetch_optional(self.connection())
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        Ok((commit_point(row.version, row.tag)?, BatchNumber(row.batch)))
    }

    /// The commit of another transaction, if it was published.
    pub async fn published(&mut self, mark: Mark) -> Result<Option<Published>, StoreError> {
        let row = sqlx::query!(
            r#"select c.version, c.tag, c.committed_at as "committed_at: PgTime", c.levels_changed_at as "levels_changed_at: PgTime", c.traceparent,
                before.tag as previous_tag
            from stock_commits c join stock_commits before on before.version = c.version - 1
            where c.batch = $1 and c.tag = $2"#,
            mark.batch.0,
            mark.tag.0.cast_signed()
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(|row| {
            Ok(Published {
                point: commit_point(row.version, row.tag)?,
                previous: commit_point(row.version - 1, row.previous_tag)?,
                committed_at: row.committed_at.0,
                levels_changed_at: row.levels_changed_at.map(|at| at.0),
                trace: trace_parent(row.traceparent.as_deref()),
            })
        })
        .transpose()
    }
}

/// Hears of commits.
#[derive(Debug)]
pub struct CommitListener {
    listener: PgListener,
    store: Store,
}

impl CommitListener {
    /// Waits for the next commit; whether this process made it. An error when the connection is gone.
    pub async fn heard_own(&mut self) -> Result<bool, StoreError> {
        loop {
            if let Ok(heard) = timeout(LISTEN_CHECK_AFTER, self.listener.recv()).await {
                return Ok(heard?.payload() == self.store.name);
            }
            // Listening twice is listening once, so it can be asked by saying it again.
            let answer = async {
                let again = sqlx::raw_sql("listen stock_commits");
                again.execute(&mut self.listener).await?;
                Ok(())
            };
            self.store.in_time(answer).await?;
        }
    }
}
