//! A stack of the test's own, whose servers are killed, frozen and cut off under load, one after the other, and come back.
//!
//! Two processes of the service stand over one Kafka, one `PostgreSQL` and one Redis. Between the service and each server lies a
//! way that can be cut; the account of the test goes by the straight one. What is broken, and in which order, is the seed's choice.

mod server;
pub mod way;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::seq::SliceRandom;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{LoadError, hosts::Hosts, monitor::Monitor, run::Run, service};
use crate::config::Config;
use server::{Server, Serving};
use way::{Proxy, Way};

/// The script that holds a server, from the folder of a checkout.
const SCRIPT: &str = "scripts/own-server.sh";
/// How long something is away.
const AWAY: Duration = Duration::from_secs(4);
/// Before the first one, so that there is something to compare with.
const CALM: Duration = Duration::from_secs(10);
/// Longest the service may take to be ready.
const READY_MAX: Duration = Duration::from_mins(1);
/// Longest a command of the service may take.
const COMMAND_MAX: Duration = Duration::from_mins(1);
/// Processes of the service.
const PROCESSES: usize = 2;

/// What is done to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Killed,
    Frozen,
    CutOff,
    Silent,
}

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Service(usize),
    Postgres,
    Kafka,
    Redis,
}

/// Everything that is done, each once in a round.
const FAULTS: [(What, How); 12] = [
    (What::Service(0), How::Killed),
    (What::Service(1), How::Frozen),
    (What::Postgres, How::Killed),
    (What::Postgres, How::Frozen),
    (What::Postgres, How::CutOff),
    (What::Postgres, How::Silent),
    (What::Kafka, How::Killed),
    (What::Kafka, How::Frozen),
    (What::Kafka, How::CutOff),
    (What::Redis, How::Killed),
    (What::Redis, How::Frozen),
    (What::Redis, How::CutOff),
];

impl What {
    fn words(self) -> String {
        match self {
            Self::Service(number) => format!("service {number}"),
            Self::Postgres => "PostgreSQL".to_owned(),
            Self::Kafka => "Kafka".to_owned(),
            Self::Redis => "Redis".to_owned(),
        }
    }
}

impl How {
    fn words(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::CutOff => "cut off",
            Self::Silent => "unreachable, in silence",
        }
    }
}

/// A server and the way to it.
struct Reached {
    server: Server,
    way: Proxy,
}

/// The stack.
pub struct Stack {
    parts: Mutex<Parts>,
    /// Straight to the servers.
    pub config: Config,
    pub hosts: Hosts,
    folder: PathBuf,
}

struct Parts {
    postgres: Reached,
    kafka: Reached,
    redis: Reached,
    services: Vec<Serving>,
}

/// A port that was free a moment ago, below the range that the kernel gives to outgoing connections: it stays free while the server
/// on it is away.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Stack {
    /// Starts everything; the service answers then.
    pub async fn start() -> Result<Self, LoadError> {
        let script = Path::new(SCRIPT);
        if !script.exists() {
            let why = format!("chaos starts its own servers with {SCRIPT}: run it in a checkout");
            return Err(LoadError::Prepare(why));
        }
        let script = std::fs::canonicalize(script)?;
        let folder = std::env::temp_dir().join(format!("stockyard-chaos-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        // PostgreSQL may have to run as another user, who has to get in.
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;

        let postgres_port = free_port();
        let postgres = Reached {
            server: Server::start(&script, "postgres", &folder, &[postgres_port]).await?,
            way: Proxy::to(postgres_port).await?,
        };
        let redis_port = free_port();
        let redis = Reached {
            server: Server::start(&script, "redis", &folder, &[redis_port]).await?,
            way: Proxy::to(redis_port).await?,
        };
        // A broker tells its clients where to come, so it has to know of the way.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (kafka_port, by_way, way_port) =
            (free_port(), free_port(), listener.local_addr()?.port());
        let ports = [kafka_port, by_way, way_port];
        let kafka = Reached {
            server: Server::start(&script, "kafka", &folder, &ports).await?,
            way: Proxy::on(listener, by_way)?,
        };

        let straight = settings(kafka_port, postgres_port, redis_port);
        let config = Config::from_layers(None, straight.clone())
            .map_err(|error| LoadError::Prepare(error.to_string()))?;
        command(&folder, &config, &["migrate"]).await?;
        let by_ways = settings(kafka.way.port, postgres.way.port, redis.way.port);
        let mut services = Vec::new();
        for number in 0..PROCESSES {
            let port = free_port();
            let mut settings = by_ways.clone();
            settings.insert(
                "STOCKYARD__HTTP__LISTEN".to_owned(),
                format!("127.0.0.1:{port}"),
            );
            let config = Config::from_layers(None, settings)
                .map_err(|error| LoadError::Prepare(error.to_string()))?;
            let path = write(&folder, &format!("service-{number}.toml"), &config)?;
            let log = folder.join(format!("service-{number}.log"));
            services.push(Serving::start(path, log, port)?);
        }
        let stack = Self {
            config,
            hosts: services
                .iter()
                .map(Serving::host)
                .collect::<Vec<_>>()
                .into(),
            parts: Mutex::new(Parts {
                postgres,
                kafka,
                redis,
                services,
            }),
            folder,
        };
        service::is_ready(&stack.hosts, READY_MAX).await?;
        Ok(stack)
    }

    /// Breaks one thing after the other, in the seed's order, as many as there is time for; everything is whole again at the end.
    pub(super) async fn disturb(
        &self,
        run: &Run,
        monitor: &Monitor,
        lasts: Duration,
    ) -> Result<(), LoadError> {
        let mut random = run.random(usize::MAX >> 1);
        let mut faults = FAULTS.to_vec();
        faults.shuffle(&mut random);
        let began = run.clock.elapsed();
        let rounds = u32::try_from(faults.len()).unwrap_or(1);
        let every = (lasts.saturating_sub(CALM * 2) / rounds).max(AWAY * 2);
        for (number, (what, how)) in (0..).zip(faults) {
            let due = began + CALM + every * number;
            if due + every > began + lasts || !run.sleep_until(due).await {
                break;
            }
            monitor.event(format!("{} {}", what.words(), how.words()));
            let mut parts = self.parts.lock().await;
            parts.break_it(what, how).await?;
            sleep(AWAY).await;
            parts.mend(what, how).await?;
            drop(parts);
            monitor.event(format!("{} is back", what.words()));
        }
        Ok(())
    }

    /// Ends everything, and removes what it left, unless somebody wants to look.
    pub async fn end(self, keeps: bool) {
        let parts = self.parts.into_inner();
        // Killed when they are dropped: how they end is not what is tested.
        drop(parts.services);
        for reached in [parts.kafka, parts.redis, parts.postgres] {
            reached.server.end().await;
        }
        if !keeps {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }

    /// Where the services' logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Parts {
    fn reached(&mut self, what: What) -> Option<&mut Reached> {
        match what {
            What::Service(_) => None,
            What::Postgres => Some(&mut self.postgres),
            What::Kafka => Some(&mut self.kafka),
            What::Redis => Some(&mut self.redis),
        }
    }

    async fn break_it(&mut self, what: What, how: How) -> Result<(), LoadError> {
        if let What::Service(number) = what {
            let service = &mut self.services[number];
            if how == How::Killed {
                service.kill().await?;
            } else {
                service.freeze();
            }
        } else if let Some(reached) = self.reached(what) {
            match how {
                How::Killed => reached.server.kill().await?,
                How::Frozen => reached.server.freeze().await?,
                How::CutOff => reached.way.set(Way::Cut),
                How::Silent => reached.way.set(Way::Silent),
            }
        }
        Ok(())
    }

    async fn mend(&mut self, what: What, how: How) -> Result<(), LoadError> {
        if let What::Service(number) = what {
            let service = &mut self.services[number];
            if how == How::Killed {
                service.start_again()?;
            } else {
                service.thaw();
            }
        } else if let Some(reached) = self.reached(what) {
            match how {
                How::Killed => reached.server.start_again().await?,
                How::Frozen => reached.server.thaw(),
                How::CutOff | How::Silent => reached.way.set(Way::Open),
            }
        }
        Ok(())
    }
}

/// The settings of a service over these servers, as variables.
fn settings(kafka: u16, postgres: u16, redis: u16) -> HashMap<String, String> {
    let settings = [
        (
            "STOCKYARD__KAFKA__BOOTSTRAP_SERVERS",
            format!("127.0.0.1:{kafka}"),
        ),
        (
            "STOCKYARD__DATABASE__URL",
            format!("postgres://stockyard:stockyard@127.0.0.1:{postgres}/stockyard"),
        ),
        (
            "STOCKYARD__REDIS__URL",
            format!("redis://127.0.0.1:{redis}"),
        ),
        // A transaction whose connection fell silent is given up before the run is over.
        ("STOCKYARD__DATABASE__WRITE_TIMEOUT_MS", "5000".to_owned()),
    ];
    settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn write(folder: &Path, name: &str, config: &Config) -> Result<PathBuf, LoadError> {
    let path = folder.join(name);
    let text = toml::to_string(config).map_err(|error| LoadError::Prepare(error.to_string()))?;
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn command(folder: &Path, config: &Config, arguments: &[&str]) -> Result<(), LoadError> {
    let settings = write(folder, "command.toml", config)?;
    let log = folder.join("command.log");
    let mut running = server::run(&settings, &log, arguments)?;
    let ended = timeout(COMMAND_MAX, running.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        _ => {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let name = arguments.join(" ");
            Err(LoadError::Prepare(format!("stockyard {name}: {said}")))
        }
    }
}
