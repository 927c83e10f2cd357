//! Two processes behind a load balancer are restarted one after the other while a shop sells, movements come in and sockets listen:
//! nobody is turned away, and nothing is lost. With `STOCKYARD_TEST_OLD`, the program of an older version, it is an upgrade: the old
//! version begins, on the schema it knows; the new one migrates that under load, and takes its place process by process.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stockyard::load::{self, Options, Profile, Scenario, Target};

use crate::support::{
    TestDatabase, World,
    balancer::Balancer,
    eventually,
    process::{Process, free_port, said, signal},
    unique,
};

/// Requests a second, of which some are orders, and messages a second.
const RATE: f64 = 60.0;
const MESSAGES: f64 = 200.0;
const SOCKETS: usize = 20;
/// Requests that each process is sent before the next one is restarted.
const ASKED: u64 = 150;
const NEW: &str = env!("CARGO_BIN_EXE_stockyard");

/// A command of one version or the other: settings that one of them does not know would stop it, so only what differs is set.
fn command(program: &Path, world: &World) -> Command {
    let config = &world.config;
    let mut command = Command::new(program);
    command.env_clear().envs([
        ("DATABASE_URL", config.database.url.as_str()),
        ("REDIS_URL", &config.redis.url),
        ("STOCKYARD__REDIS__PREFIX", &config.redis.prefix),
        ("STOCKYARD__REDIS__TIMEOUT_MS", "2000"),
        ("KAFKA_BOOTSTRAP_SERVERS", &config.kafka.bootstrap_servers),
        ("KAFKA_TOPIC_NAME", &config.kafka.topic),
        ("STOCKYARD__KAFKA__GROUP", &config.kafka.group),
        (
            "STOCKYARD__KAFKA__PARTITIONS",
            &config.kafka.partitions.to_string(),
        ),
    ]);
    command
}

fn migrate(program: &Path, world: &World) {
    let ran = command(program, world).arg("migrate").output().unwrap();
    assert!(ran.status.success(), "{}", said(&ran));
}

/// A place behind the balancer for a process.
struct Instance {
    address: SocketAddr,
    log: PathBuf,
}

impl Instance {
    fn new() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            log: env::temp_dir().join(unique("instance")),
        }
    }

    /// Starts a process there, and waits until it is sent requests.
    async fn start(&self, program: &Path, world: &World, balancer: &Balancer) -> Process {
        let mut command = command(program, world);
        command
            .arg("serve")
            .env("STOCKYARD__HTTP__LISTEN", self.address.to_string())
            // As long as may be: the balancer, too, is on the loaded machine.
            .env("STOCKYARD__HTTP__LAME_DUCK_MS", "4000");
        let process = Process::saying(&mut command, fs::File::create(&self.log).unwrap());
        eventually("it is sent requests", async || {
            balancer.sends_to(self.address).then_some(())
        })
        .await;
        process
    }

    /// Tells it to stop, and waits until it has, in order and in time.
    async fn stop(&self, mut process: Process) {
        signal(process.id(), "TERM");
        let code = process.code().await;
        let log = fs::read_to_string(&self.log).unwrap();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("in time"), "{log}");
        fs::remove_file(&self.log).unwrap();
    }
}

/// Shoppers, a stream of movements, and sockets that see all of it.
fn shop() -> Profile {
    let mut profile = Profile::of(Scenario::Quick);
    profile.stages[0].sockets = SOCKETS;
    profile.messages = MESSAGES;
    profile.rate = Some(RATE);
    // How fast it is meanwhile is not what is tested.
    profile.limits.clear();
    profile
}

async fn are_asked(balancer: &Balancer, instances: &[Instance]) {
    let sent = || instances.iter().map(|it| balancer.sent_to(it.address));
    let before: Vec<u64> = sent().collect();
    eventually("all are asked a lot", async || {
        let mut pairs = before.iter().zip(sent());
        pairs
            .all(|(before, now)| now >= before + ASKED)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_turned_away_while_two_processes_are_restarted() {
    let new = Path::new(NEW);
    let old = env::var_os("STOCKYARD_TEST_OLD").map(PathBuf::from);
    let world = match &old {
        None => World::new().await,
        Some(old) => {
            let world = World::around(TestDatabase::empty().await, |_| {}).await;
            migrate(old, &world);
            world
        }
    };
    let instances = [Instance::new(), Instance::new()];
    let addresses = [instances[0].address, instances[1].address];
    let balancer = Balancer::before(&addresses).await;
    let mut running = Vec::new();
    for instance in &instances {
        let program = old.as_deref().unwrap_or(new);
        running.push(instance.start(program, &world, &balancer).await);
    }

    let options = Options {
        run_time: Some(Duration::from_mins(10)),
        seed: 7,
        is_quiet: true,
        folder: env::temp_dir().join(unique("load")),
        ..Options::default()
    };
    let target = Target {
        hosts: vec![balancer.host.clone()].into(),
        config: &world.config,
        store: Some(world.database.store("")),
        stack: None,
    };
    let restarting = async {
        are_asked(&balancer, &instances).await;
        if old.is_some() {
            migrate(new, &world);
        }
        let mut restarted = Vec::new();
        for (instance, process) in instances.iter().zip(running) {
            are_asked(&balancer, &instances).await;
            instance.stop(process).await;
            restarted.push(instance.start(new, &world, &balancer).await);
        }
        are_asked(&balancer, &instances).await;
        options.interrupt.cancel();
        restarted
    };
    let (reported, running) = tokio::join!(load::run(&target, shop(), &options), restarting);
    assert_eq!(balancer.failures(), [""; 0]);
    let outcome = reported.unwrap().outcome;
    assert!(!outcome.is_red(), "{:#?}", load::summary(&outcome));
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    eprintln!(
        "{} requests, {} frames, none failed",
        outcome.all().requests(),
        outcome.measured.frames.count
    );
    for (instance, process) in instances.iter().zip(running) {
        instance.stop(process).await;
    }
    fs::remove_dir_all(&options.folder).unwrap();
    world.database.remove().await;
}
