//! What must hold when a server goes away in mid-stream and comes back, whichever it is and however it went: nothing is lost
//! or doubled, no message is blamed for it, memory is bounded, answers are right or none, and nobody restarts the service.
//!
//! The faults themselves are in `postgres_away`, `kafka_away`, `redis_away` and `full_disk`.

use std::{fs, path::PathBuf, time::Duration};

use stockyard::{clock::Clock, config::Config, domain::MovementId, produce::plan::PlanOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    readers::{Reads, Seen, Told, Watch, judge},
    support::{
        Service, World, eventually, is_long,
        own::OwnServer,
        process::{Process, RESIDENT_BYTES_MAX},
        proxy::{Proxy, Way},
        stream::mixed,
        unique,
    },
};

/// Messages before the fault, the first of which are read during it.
const BEFORE: u64 = 600;
const READ_OF: u64 = 400;
/// How the stream goes on through an absence of Kafka.
const NEVER_GIVES_UP: [(&str, &str); 4] = [
    ("delivery.timeout.ms", "600000"),
    // What is published again after a lost answer is there once.
    ("enable.idempotence", "true"),
    ("socket.timeout.ms", "5000"),
    ("reconnect.backoff.max.ms", "500"),
];
/// Between two looks at what a look costs something of.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest until everything is taken after the server is back: what came meanwhile has to be worked off by a build without
/// optimisation, beside other tests.
fn catch_up_max() -> Duration {
    Duration::from_secs(if is_long() { 500 } else { 45 })
}

/// How long a server is away.
pub fn away() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 4 })
}

/// What goes wrong with a server, and how it is put right.
pub trait Fault {
    async fn begin(&mut self);
    async fn end(&mut self);
}

/// How a server of the test's own goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Asked by that signal.
    Asked(&'static str),
    Killed,
    /// Frozen, with all its connections.
    Frozen,
}

impl Fault for (&mut OwnServer, Goes) {
    async fn begin(&mut self) {
        match self.1 {
            Goes::Asked(signal) => self.0.stop(signal).await,
            Goes::Killed => self.0.kill().await,
            Goes::Frozen => self.0.freeze().await,
        }
    }

    async fn end(&mut self) {
        match self.1 {
            Goes::Asked(_) | Goes::Killed => self.0.start_again().await,
            Goes::Frozen => self.0.thaw(),
        }
    }
}

impl Fault for (&Proxy, Way) {
    async fn begin(&mut self) {
        self.0.set(self.1);
    }

    async fn end(&mut self) {
        self.0.set(Way::Open);
    }
}

/// The ways in which connections to that server go, by name.
pub fn ways(server: &str) -> Vec<(String, Way)> {
    let mut ways = vec![(Way::Cut, "cut"), (Way::Silent, "half open")];
    // To a service that waits for an answer it is as silent as the one before; PostgreSQL goes on with what it was asked.
    if is_long() || server == "PostgreSQL" {
        ways.push((Way::Unanswered, "without answers"));
    }
    let named = |(way, is)| (format!("connections to {server} {is}"), way);
    ways.into_iter().map(named).collect()
}

/// Settings under which a short absence shows what a long one shows under the usual ones. (But for the group's session,
/// which outlives a short one: that the group takes partitions away meanwhile is for the long form.)
fn hurry(config: &mut Config, reads: Reads) {
    // Many batches, and buffers that are full soon.
    config.ingest.max_batch_events = 200;
    if is_long() {
        return;
    }
    if reads == Reads::Work {
        // A loaded machine is not what these stories are about.
        config.database.acquire_timeout_ms = 5_000;
    } else {
        config.database.acquire_timeout_ms = 300;
        config.database.read_timeout_ms = 500;
        config.database.write_timeout_ms = 5_000;
    }
    for (option, value) in [
        ("socket.timeout.ms", "2000"),
        ("api.version.request.timeout.ms", "1000"),
        ("reconnect.backoff.max.ms", "500"),
    ] {
        config
            .kafka
            .options
            .insert(option.to_owned(), value.to_owned());
    }
}

/// A service that lived through a fault.
pub struct Lived {
    pub service: Service,
    /// A movement that does not change any more.
    pub known: MovementId,
    _process: Process,
    log: Log,
}

/// Streams, takes the server away and gives it back; checks everything that must hold whatever the fault is.
pub async fn lives_through(
    name: &str,
    reads: Reads,
    world: &World,
    change: impl FnOnce(&mut Config),
    mut fault: impl Fault,
) -> Lived {
    let log = Log::new();
    let (service, mut process) = world.start_process(&log.0, |config| {
        hurry(config, reads);
        change(config);
    });
    service.is_ready().await;
    let rate = if is_long() { 2_000 } else { 500 };
    let options = PlanOptions {
        products: 500,
        ..mixed(BEFORE + rate * away().as_secs() + BEFORE / 2, 11)
    };
    let stream = world.publish(&options, rate, &NEVER_GIVES_UP);
    taken_at_least(world, BEFORE).await;
    let told = Told::by(&options, READ_OF);
    told.is_taken(world).await;
    let known = told.known;
    eventually("the known movement is cached", async || {
        let answer = service.movement(known).await;
        assert!(told.is_right(known, &answer), "{answer:?}");
        answer.header("cache-status").contains("hit").then_some(())
    })
    .await;
    let clock = Clock::system();
    let watch = Watch::start(&service.base, &told, &clock);
    let memory = watch_memory(&process, watch.stop.clone());

    fault.begin().await;
    let from = clock.elapsed();
    eventually("the server was away for long enough", async || {
        (clock.elapsed() >= from + away()).then_some(())
    })
    .await;
    let to = clock.elapsed();
    fault.end().await;
    let back = clock.elapsed();

    let produced = stream.await.expect("no panic");
    taken_at_least(world, options.count).await;
    let caught_up = clock.elapsed().saturating_sub(back);
    assert!(
        caught_up <= catch_up_max(),
        "{name}: caught up after {caught_up:?}"
    );
    is_well(world, &service, &options, known).await;
    assert!(process.runs(), "{name}: the same process all the time");

    let seen = watch.seen().await;
    let in_window = judge(name, reads, &seen, (from, to));
    let resident = memory.await.expect("no panic");
    let slowest = seen.iter().map(Seen::took).max();
    eprintln!(
        "{name}: away for {:?}, caught up {caught_up:.1?} after it was back; {} answers, {in_window} of them while it was away, the slowest after {:.1?}; {} MB at most",
        to.saturating_sub(from),
        seen.len(),
        slowest.unwrap_or_default(),
        resident >> 20
    );
    assert!(
        resident > 0 && resident <= RESIDENT_BYTES_MAX,
        "{name}: {resident} bytes in memory"
    );
    world.holds(&produced.oracle, name).await;
    Lived {
        service,
        known,
        _process: process,
        log,
    }
}

/// Waits until so many messages are taken.
async fn taken_at_least(world: &World, messages: u64) {
    let messages = i64::try_from(messages).expect("a count");
    seldom("everything is taken", async || {
        (world.taken().await >= messages).then_some(())
    })
    .await;
}

/// Waits as `eventually` does, for what is dear to look at: this machine has a stream to carry.
pub async fn seldom(what: &str, mut look: impl AsyncFnMut() -> Option<()>) {
    eventually(what, async || {
        let found = look().await;
        if found.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        found
    })
    .await;
}

/// Lag 0, by Kafka and by the service's own word; ready; and the cache in use.
async fn is_well(world: &World, service: &Service, options: &PlanOptions, known: MovementId) {
    let count = i64::try_from(options.count).expect("a count");
    seldom("Kafka knows that everything is done", async || {
        (world.committed() == count).then_some(())
    })
    .await;
    for partition in 0..world.config.kafka.partitions {
        let series = format!(r#"warehouse_ingest_lag_offsets{{partition="{partition}"}}"#);
        seldom("no lag", async || {
            (service.count(&series).await == 0).then_some(())
        })
        .await;
    }
    service.is_ready().await;
    eventually("the cache is in use again", async || {
        let answer = service.movement(known).await;
        answer.header("cache-status").contains("hit").then_some(())
    })
    .await;
}

/// The most memory that the process ever held, in bytes.
fn watch_memory(process: &Process, stop: CancellationToken) -> JoinHandle<u64> {
    let id = process.id();
    tokio::spawn(async move {
        let mut most = 0;
        while !stop.is_cancelled() {
            most = most.max(crate::support::process::resident_bytes(id));
            tokio::time::sleep(LOOK_EVERY * 4).await;
        }
        most
    })
}

/// The service's log, shown if the test fails.
struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(unique("service"));
        fs::create_dir(&folder).expect("a folder");
        Self(folder.join("log"))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.0).unwrap_or_default();
            let from = text.len().saturating_sub(6_000);
            let from = text.ceil_char_boundary(from);
            eprintln!("the service's log ends so:\n{}", &text[from..]);
        }
        if let Some(folder) = self.0.parent() {
            drop(fs::remove_dir_all(folder));
        }
    }
}

impl Lived {
    /// Whether the log says so.
    pub fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log.0).is_ok_and(|log| log.contains(text))
    }
}
