//! What a measurement runs in: a database and a topic of its own, and the programs beside it.

use std::{
    collections::HashMap,
    error::Error,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, DefaultConsumerContext},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use stockyard::{
    clock::Clock,
    config::Config,
    kafka,
    produce::{self, Pace, plan::PlanOptions},
    store::{Store, StoreSettings},
};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longest a run may take: far above what it needs, so that a hang ends.
pub const RUN_MAX: Duration = Duration::from_mins(20);
/// How often a run's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The address of a server of this run.
#[expect(clippy::disallowed_methods, reason = "where the servers are")]
fn server(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set: run `make bench`").into())
}

/// The configuration of everything here: the defaults, and this run's servers.
pub fn config(topic: &str, database: &str, port: u16) -> Outcome<Config> {
    Ok(Config::from_layers(
        None,
        environment(topic, database, port)?,
    )?)
}

/// The same as variables, for a process.
fn environment(topic: &str, database: &str, port: u16) -> Outcome<HashMap<String, String>> {
    let variables = [
        (
            "STOCKYARD__KAFKA__BOOTSTRAP_SERVERS",
            server("STOCKYARD_TEST_KAFKA")?,
        ),
        ("STOCKYARD__KAFKA__TOPIC", topic.to_owned()),
        ("STOCKYARD__KAFKA__GROUP", unique("group")),
        ("STOCKYARD__DATABASE__URL", url_of(database)?),
        ("STOCKYARD__REDIS__URL", server("STOCKYARD_TEST_REDIS_URL")?),
        ("STOCKYARD__REDIS__PREFIX", format!("{}:", unique("bench"))),
        ("STOCKYARD__HTTP__LISTEN", format!("127.0.0.1:{port}")),
        ("STOCKYARD__LOG__FILTER", "warn".to_owned()),
    ];
    Ok(variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// A name nobody else uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}

pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn url_of(database: &str) -> Outcome<String> {
    let server = server("STOCKYARD_TEST_DATABASE_URL")?;
    let (base, _) = server
        .rsplit_once('/')
        .ok_or("a database's address has a name")?;
    Ok(format!("{base}/{database}"))
}

/// A migrated database, dropped with [`Database::remove`].
pub struct Database {
    pub name: String,
    pub url: String,
}

impl Database {
    pub async fn create() -> Outcome<Self> {
        let name = unique("bench");
        admin(&format!("create database {name}")).await?;
        let database = Self {
            url: url_of(&name)?,
            name,
        };
        let store = database.store()?;
        store.migrate().await?;
        store.close().await;
        // Every run begins with the log written out: none pays for the one before.
        admin("checkpoint").await?;
        Ok(database)
    }

    pub fn store(&self) -> Outcome<Store> {
        Ok(Store::new(&StoreSettings {
            url: self.url.clone(),
            password: String::new(),
            role: String::new(),
            read_connections_max: 4,
            scan_connections_max: 4,
            acquire_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_mins(1),
        })?)
    }

    pub async fn connect(&self) -> Outcome<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    pub async fn run(&self, sql: &str) -> Outcome<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    pub async fn remove(self) -> Outcome<()> {
        admin(&format!("drop database {} with (force)", self.name)).await
    }
}

/// A statement outside every database of a run.
pub async fn admin(sql: &str) -> Outcome<()> {
    let mut connection = PgConnection::connect(&server("STOCKYARD_TEST_DATABASE_URL")?).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// A setting of the server.
pub async fn setting(name: &str) -> Outcome<String> {
    let mut connection = PgConnection::connect(&server("STOCKYARD_TEST_DATABASE_URL")?).await?;
    let value = sqlx::query_scalar("select current_setting($1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(value)
}

/// The server's main process.
pub async fn postmaster() -> Outcome<u32> {
    let mut connection = PgConnection::connect(&server("STOCKYARD_TEST_DATABASE_URL")?).await?;
    let text: String =
        sqlx::query_scalar("select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    Ok(text.trim().parse()?)
}

/// A topic with a plan's messages in it.
pub struct Backlog {
    pub topic: String,
    pub options: PlanOptions,
}

impl Backlog {
    pub async fn publish(options: &PlanOptions) -> Outcome<Self> {
        let topic = unique("bench");
        let config = config(&topic, "none", 0)?;
        kafka::make_topics(&config.kafka).await?;
        publish(&config, options.clone(), 0).await?;
        Ok(Self {
            topic,
            options: options.clone(),
        })
    }
}

/// Publishes a plan, at a rate or (0) as fast as Kafka takes it.
pub async fn publish(config: &Config, options: PlanOptions, rate: u64) -> Outcome<()> {
    let kafka = config.kafka.clone();
    let pace = Pace {
        rate,
        is_quiet: true,
    };
    tokio::task::spawn_blocking(move || produce::produce(&kafka, &options, pace, &Clock::system()))
        .await??;
    Ok(())
}

/// The service as a process, ended with its owner.
pub struct Service {
    process: Child,
    pub port: u16,
    pub config: Config,
}

impl Service {
    /// Starts it; it is not ready yet.
    pub fn start(topic: &str, database: &Database, role: &str) -> Outcome<Self> {
        Self::start_with(topic, database, role, &[])
    }

    /// One with other settings, as variables.
    pub fn start_with(
        topic: &str,
        database: &Database,
        role: &str,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        Self::run(topic, &database.name, role, settings)
    }

    /// Another process over the same database and topic, with caches of its own.
    pub fn beside(&self, role: &str) -> Outcome<Self> {
        self.beside_with(role, &[])
    }

    /// One with other settings, as variables.
    pub fn beside_with(&self, role: &str, settings: &[(&str, &str)]) -> Outcome<Self> {
        let (_, database) = self
            .config
            .database
            .url
            .rsplit_once('/')
            .ok_or("a database's address has a name")?;
        Self::run(&self.config.kafka.topic, database, role, settings)
    }

    /// The same, in a group that was told to begin with the topic again.
    pub fn rewound(topic: &str, database: &Database, role: &str) -> Outcome<Self> {
        let port = free_port()?;
        let variables = environment(topic, &database.name, port)?;
        let config = Config::from_layers(None, variables.clone())?;
        let group: BaseConsumer<DefaultConsumerContext> =
            kafka::consumer(&config.kafka, DefaultConsumerContext)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..config.kafka.partitions {
            all.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        group.commit(&all, CommitMode::Sync)?;
        Self::spawn(variables, port, role)
    }

    fn run(topic: &str, database: &str, role: &str, settings: &[(&str, &str)]) -> Outcome<Self> {
        let port = free_port()?;
        let mut variables = environment(topic, database, port)?;
        let settings = settings.iter();
        variables.extend(settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self::spawn(variables, port, role)
    }

    fn spawn(variables: HashMap<String, String>, port: u16, role: &str) -> Outcome<Self> {
        let process = Command::new(env!("CARGO_BIN_EXE_stockyard"))
            .args(["serve", "--role", role])
            .envs(&variables)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self {
            process,
            port,
            config: Config::from_layers(None, variables)?,
        })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it says that it is ready: an ingest role has its partitions then and begins to fetch.
    pub async fn ready(&self) -> Outcome<()> {
        let client = reqwest::Client::new();
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        until("the service is ready", async || {
            let answer = client.get(&url).send().await;
            Ok(answer
                .is_ok_and(|answer| answer.status().is_success())
                .then_some(()))
        })
        .await
    }

    pub fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        // Killed on purpose: how it ends is not what is measured.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let clock = Clock::system();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if clock.elapsed() > RUN_MAX {
            return Err(format!("not within {RUN_MAX:?}: {what}").into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
