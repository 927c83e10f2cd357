//! A database of a test's own, made from a migrated template.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use stockyard::store::{Store, StoreSettings};
use tokio::sync::OnceCell;

use super::{server, unique};

/// A database that can be looked into, copied and put back.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
}

impl TestDatabase {
    pub async fn create() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE
            .get_or_init(|| async {
                let template = Self::empty().await;
                template.store("").migrate().await.expect("migrations");
                template.name
            })
            .await;
        let name = unique("test");
        admin(&format!("create database {name} template {template}")).await;
        Self {
            url: url(&name),
            name,
        }
    }

    /// A database without a schema.
    pub async fn empty() -> Self {
        let name = unique("test");
        admin(&format!("create database {name}")).await;
        Self {
            url: url(&name),
            name,
        }
    }

    /// A store over it, as that role.
    pub fn store(&self, role: &str) -> Store {
        Store::new(&StoreSettings {
            url: self.url.clone(),
            role: role.to_owned(),
            read_connections_max: 8,
            acquire_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_mins(1),
        })
        .expect("a store")
    }

    /// Runs statements as the owner.
    pub async fn run(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .expect(sql);
        connection.close().await.expect("close");
    }

    /// One number from the owner's view.
    pub async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.connect().await;
        let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut connection)
            .await
            .expect(sql);
        connection.close().await.expect("close");
        number
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("a connection")
    }

    /// A copy of the database as it is now: a backup. Clients are cut off for as long as it takes.
    pub async fn copy(&self) -> String {
        let copy = unique("copy");
        admin(&format!(
            "alter database {} allow_connections false",
            self.name
        ))
        .await;
        admin(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'",
            self.name
        ))
        .await;
        admin(&format!("create database {copy} template {}", self.name)).await;
        admin(&format!(
            "alter database {} allow_connections true",
            self.name
        ))
        .await;
        copy
    }

    /// Puts a copy in the database's place.
    pub async fn restore(&self, copy: &str) {
        admin(&format!("drop database {} with (force)", self.name)).await;
        admin(&format!("alter database {copy} rename to {}", self.name)).await;
    }

    pub async fn remove(&self) {
        admin(&format!(
            "drop database if exists {} with (force)",
            self.name
        ))
        .await;
    }
}

/// A statement outside every test's database. Copying waits for the one before it to let go of its template.
async fn admin(sql: &str) {
    let url = server("STOCKYARD_TEST_DATABASE_URL");
    let mut connection = PgConnection::connect(&url).await.expect("the server");
    super::eventually(sql, async || {
        match sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
        {
            Ok(_) => Some(()),
            // 55006: object in use.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55006") => None,
            Err(error) => panic!("{sql}: {error}"),
        }
    })
    .await;
    connection.close().await.expect("close");
}

fn url(database: &str) -> String {
    let server = server("STOCKYARD_TEST_DATABASE_URL");
    let (base, _) = server.rsplit_once('/').expect("a database URL");
    format!("{base}/{database}")
}
