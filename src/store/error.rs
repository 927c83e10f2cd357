//! What can go wrong with the database, by what is to be done about it.

/// A failed statement or transaction.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not take the values themselves (SQLSTATE class 22 or 23): trying again cannot help.
    #[error("the database refused the data: {message} (SQLSTATE {code})")]
    DataRefused { code: String, message: String },
    /// The database's ingest position is not where this writer left it: it was restored, or another consumer has the
    /// partition.
    #[error("the database holds another position for {0} than the one this batch goes on from")]
    PositionMoved(String),
    /// What the database holds breaks a rule of its own schema or ours.
    #[error("the database is not as it should be: {0}")]
    Inconsistent(&'static str),
    /// Everything else: away, too slow, stopped, or a statement it does not understand.
    #[error("database: {0}")]
    Failed(#[from] sqlx::Error),
    /// The database took the request and did not answer.
    #[error("the database did not answer within {0:?}")]
    NoAnswer(std::time::Duration),
    /// Its address is of no use.
    #[error("the address of the database: {0}")]
    Address(String),
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl StoreError {
    /// The migrations make the first one.
    pub(super) const NO_COMMITS: Self = Self::Inconsistent("no commits, not even the first");

    /// It is about what was asked for, not about the database being away: the same again ends in the same way.
    pub fn is_of_request(&self) -> bool {
        matches!(self, Self::DataRefused { .. } | Self::Inconsistent(_))
    }

    /// The database takes no writes: a standby, or one that was told so.
    pub fn is_read_only(&self) -> bool {
        const READ_ONLY_TRANSACTION: &str = "25006";
        let Self::Failed(sqlx::Error::Database(error)) = self else {
            return false;
        };
        error
            .code()
            .is_some_and(|code| code == READ_ONLY_TRANSACTION)
    }

    /// Another row has the value that is to be unique.
    pub fn is_taken(&self) -> bool {
        const UNIQUE_VIOLATION: &str = "23505";
        matches!(self, Self::DataRefused { code, .. } if code == UNIQUE_VIOLATION)
    }

    /// The error of a transaction's end.
    pub(super) fn of_end(error: sqlx::Error) -> Self {
        const POSITION_MOVED: &str = "ST001";
        let moved = error.as_database_error().and_then(|database| {
            let is_moved = database.code().is_some_and(|code| code == POSITION_MOVED);
            is_moved.then(|| Self::PositionMoved(database.message().to_owned()))
        });
        moved.unwrap_or(Self::Failed(error))
    }

    /// The error of a statement that carried data.
    pub(super) fn of_data(error: sqlx::Error) -> Self {
        let refused = error.as_database_error().and_then(|database| {
            let code = database.code()?.into_owned();
            // A row without a partition is reported as a check violation, yet no value is at fault.
            let is_of_data = code.starts_with("22")
                || (code.starts_with("23") && (code != "23514" || database.constraint().is_some()));
            is_of_data.then(|| Self::DataRefused {
                code,
                message: database.message().to_owned(),
            })
        });
        refused.unwrap_or(Self::Failed(error))
    }

    /// A statement took longer than it may, or others were in its way: later, or smaller, it may well work.
    pub fn is_held_up(&self) -> bool {
        // query_canceled, lock_not_available, deadlock_detected.
        const HELD_UP: [&str; 3] = ["57014", "55P03", "40P01"];
        match self {
            Self::Failed(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| HELD_UP.contains(&&*code))
            }
            _ => false,
        }
    }

    /// The connection broke, so the same on another connection may well work.
    pub fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Failed(error) if is_lost_connection(error))
    }
}

/// The connection that says so is of no use any more.
pub(super) fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => {
            // 57P01 to 57P03: ended by an administrator, a crash, or not up yet; 08: the connection itself; 25P03:
            // idle in a transaction for too long.
            error.code().is_some_and(|code| {
                code.starts_with("57P") || code.starts_with("08") || code == "25P03"
            })
        }
        _ => false,
    }
}
