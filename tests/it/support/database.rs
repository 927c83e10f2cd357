//! A database of a test's own, made from a migrated template.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use stockyard::store::{Store, StoreSettings};
use tokio::sync::OnceCell;

use super::{server, unique};

/// Names the server that the tests share.
const SERVER: &str = "STOCKYARD_TEST_DATABASE_URL";

/// Runs a statement on any server, which may not be well.
pub async fn run_on(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    statement.execute(&mut connection).await?;
    connection.close().await
}

/// A database that can be looked into, copied and put back.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
    /// What administers it: a database beside it.
    server: String,
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
        let database = Self::named(unique("test"), server(SERVER));
        let name = &database.name;
        database
            .admin(&format!("create database {name} template {template}"))
            .await;
        database
    }

    /// A database without a schema.
    pub async fn empty() -> Self {
        Self::empty_on(server(SERVER), "").await
    }

    /// A database of a server of the test's own, with the options of `create database`.
    pub async fn create_on(server: String, options: &str) -> Self {
        let database = Self::empty_on(server, options).await;
        database.store("").migrate().await.expect("migrations");
        database
    }

    async fn empty_on(server: String, options: &str) -> Self {
        let database = Self::named(unique("test"), server);
        let name = &database.name;
        database
            .admin(&format!("create database {name} {options}"))
            .await;
        database
    }

    /// The database of that name, which is there.
    pub fn of_name(name: &str) -> Self {
        Self::named(name.to_owned(), server(SERVER))
    }

    fn named(name: String, server: String) -> Self {
        let (address, how) = match server.split_once('?') {
            Some((address, how)) => (address, format!("?{how}")),
            None => (server.as_str(), String::new()),
        };
        let (base, _) = address.rsplit_once('/').expect("a database URL");
        Self {
            url: format!("{base}/{name}{how}"),
            name,
            server,
        }
    }

    /// A store over it, as that role.
    pub fn store(&self, role: &str) -> Store {
        Store::new(&StoreSettings {
            url: self.url.clone(),
            password: String::new(),
            role: role.to_owned(),
            read_connections_max: 8,
            scan_connections_max: 8,
            acquire_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_mins(1),
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
        self.admin(&format!(
            "alter database {} allow_connections false",
            self.name
        ))
        .await;
        self.admin(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'",
            self.name
        ))
        .await;
        self.admin(&format!("create database {copy} template {}", self.name))
            .await;
        self.admin(&format!(
            "alter database {} allow_connections true",
            self.name
        ))
        .await;
        copy
    }

    /// Puts a copy in the database's place.
    pub async fn restore(&self, copy: &str) {
        self.admin(&format!("drop database {} with (force)", self.name))
            .await;
        self.admin(&format!("alter database {copy} rename to {}", self.name))
            .await;
    }

    pub async fn remove(&self) {
        self.admin(&format!(
            "drop database if exists {} with (force)",
            self.name
        ))
        .await;
    }

    /// A statement outside the database. Copying waits for the one before it to let go of its template.
    async fn admin(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.server)
            .await
            .expect("the server");
        super::eventually(sql, async || {
            match sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
                .execute(&mut connection)
                .await
            {
                Ok(_) => Some(()),
                // 55006: object in use.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55006") => {
                    None
                }
                Err(error) => panic!("{sql}: {error}"),
            }
        })
        .await;
        connection.close().await.expect("close");
    }
}
