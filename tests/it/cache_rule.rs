//! The rule of use under interleavings: slow readers, joined reads, writers here and elsewhere, reservations that run out, a lost
//! Redis, a paused follower, a restarted process, a restored database. And each condition of the rule is needed: without it, the same
//! exploration finds an answer that is not true.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use redis::AsyncCommands;
use stockyard::{
    app,
    cache::{
        CacheKey, Entry, Seat, Tier,
        rule::{Conditions, FOLLOWED_WITHIN},
    },
    clock::Clock,
    domain::{CommitPoint, ReservationId, Side, StockKey, Timestamp},
    inventory::{
        Inventory,
        feed::Nobody,
        follow::Follower,
        query::{Answer, Source},
        record::{Recorder, Taken},
    },
    metrics::Metrics,
    traces::Traces,
};

use crate::{
    schema::fact,
    support::{
        World, is_long,
        reserved::{DatabaseClock, End},
    },
};

const KEYS: u128 = 3;
const STEPS: usize = 120;
/// What a backup holds.
const TABLES: [&str; 7] = [
    "products",
    "warehouses",
    "movements",
    "stock_levels",
    "stock_ledger",
    "stock_commits",
    "reservations",
];
/// Longest a reservation lasts.
const LASTS_MAX_MS: u64 = 60;

/// One process: an inventory, its follower (which looks only when told), and what the process may be expected to know.
struct Process {
    inventory: Arc<Inventory>,
    follower: Follower,
    recorder: Recorder,
    clock: Clock,
    /// The newest commit of the database when the last finished look began, and when that was.
    known: CommitPoint,
    looked: Duration,
    /// Commits this process made itself: an answer to it holds them.
    own: BTreeMap<u128, i64>,
    /// Reads that were begun and not finished: the slow readers.
    slow: Vec<(CacheKey, Entry)>,
}

/// What stood of a key at a commit.
#[derive(Clone, Debug, Default)]
struct Stood {
    on_hand: i64,
    /// Active reservations: which, units, and until when they hold them, by the database's clock.
    reserved: Vec<(ReservationId, i64, Timestamp)>,
}

impl Stood {
    fn reserved_at(&self, moment: Timestamp) -> i64 {
        let holding = self.reserved.iter().filter(|(.., until)| moment < *until);
        holding.map(|(_, units, _)| units).sum()
    }

    /// Whether it was so at some moment from the first to the second.
    fn was(&self, shown: Shown, (from, to): (Timestamp, Timestamp)) -> bool {
        let ends = self.reserved.iter().map(|(.., until)| *until);
        let mut moments = ends
            .filter(|until| (from..=to).contains(until))
            .chain([from]);
        self.on_hand == shown.on_hand
            && moments.any(|moment| self.reserved_at(moment) == shown.reserved)
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug)]
struct Shown {
    on_hand: i64,
    reserved: i64,
}

/// By version: the commit, and what stood of each key then.
type History = BTreeMap<i64, (CommitPoint, BTreeMap<u128, Stood>)>;

/// What is true: at every version, what stood of each key, in this life of the database and in those before.
#[derive(Default)]
struct Truth {
    history: History,
    before_restores: Vec<History>,
}

impl Truth {
    fn newest(&self) -> CommitPoint {
        self.history.last_key_value().unwrap().1.0
    }

    fn holds_in(
        history: &History,
        at: CommitPoint,
        key: u128,
        shown: Shown,
        when: (Timestamp, Timestamp),
    ) -> bool {
        history
            .get(&at.version.number())
            .is_some_and(|(point, levels)| {
                let stood = levels.get(&key).cloned().unwrap_or_default();
                *point == at && stood.was(shown, when)
            })
    }

    /// The next commit.
    fn publish(&mut self, commit: CommitPoint, change: impl FnOnce(&mut BTreeMap<u128, Stood>)) {
        let mut levels = self.history.last_key_value().unwrap().1.1.clone();
        change(&mut levels);
        self.history
            .insert(commit.version.number(), (commit, levels));
    }

    /// What holds units of a key now by its state, whether or not it is due.
    fn active(&self) -> impl Iterator<Item = (ReservationId, Timestamp)> {
        let (_, levels) = self.history.last_key_value().unwrap().1;
        let lines = levels.values().flat_map(|stood| &stood.reserved);
        lines.map(|(id, _, until)| (*id, *until))
    }
}

struct Exploration {
    world: World,
    database_clock: DatabaseClock,
    conditions: Conditions,
    random: SmallRng,
    /// The processes' clocks stand still within a step, and are moved on by what really passed before each.
    real: Clock,
    moved: Duration,
    processes: Vec<Process>,
    truth: Truth,
    movements: u128,
    /// One more with each restore.
    restores: usize,
    /// The restore each process has noticed.
    noticed: Vec<usize>,
    saved: Option<History>,
}

fn stock_key(key: u128) -> StockKey {
    let fact = fact(1, Side::Arrival, 1, key, 0);
    StockKey {
        warehouse: fact.report.warehouse,
        product: fact.product,
    }
}

impl Exploration {
    async fn new(conditions: Conditions, seed: u64) -> Self {
        let world = World::with(|config| {
            config.redis.retry_after_ms = 1;
            // A machine that is busy elsewhere is no wrong answer.
            config.database.acquire_timeout_ms = 10_000;
            config.database.read_timeout_ms = 10_000;
        })
        .await;
        let mut exploration = Self {
            database_clock: world.database.clock().await,
            world,
            conditions,
            random: SmallRng::seed_from_u64(seed),
            real: Clock::system(),
            moved: Duration::ZERO,
            processes: Vec::new(),
            truth: Truth::default(),
            movements: 0,
            restores: 0,
            noticed: Vec::new(),
            saved: None,
        };
        let store = exploration.world.database.store("stockyard_app");
        let first = store.newest_commit().await.unwrap();
        store.close().await;
        exploration
            .truth
            .history
            .insert(0, (first, BTreeMap::new()));
        for _ in 0..2 {
            let process = exploration.start_process().await;
            exploration.processes.push(process);
            exploration.noticed.push(0);
        }
        exploration
    }

    async fn start_process(&self) -> Process {
        let clock = Clock::manual();
        let (inventory, mut follower, _decider) = app::inventory(
            &self.world.config,
            &clock,
            Metrics::new().unwrap(),
            self.conditions,
            Arc::new(Nobody),
            Traces::default(),
        )
        .unwrap();
        follower.look().await.unwrap();
        Process {
            recorder: Recorder::new(Arc::clone(&inventory)),
            inventory,
            follower,
            looked: clock.elapsed(),
            clock,
            known: self.truth.newest(),
            own: BTreeMap::new(),
            slow: Vec::new(),
        }
    }

    /// Any of the things that can happen. `Err`: an answer that is not true.
    async fn step(&mut self) -> Result<(), String> {
        let at = self.random.random_range(0..self.processes.len());
        let key = self.random.random_range(1..=KEYS);
        self.move_clocks();
        match self.random.random_range(0..112) {
            0..30 => return self.read(at, key).await,
            30..45 => self.write(at, key).await,
            45..65 => self.look(at).await,
            65..74 => self.begin_slow_read(at, key).await,
            74..83 => self.finish_slow_read(at),
            83..91 => return self.join_a_read(at, key).await,
            91..94 => self.pause(at),
            94..96 => self.lose_redis().await,
            96..98 => self.restart(at).await,
            98 | 99 => self.save().await,
            100 | 101 => self.restore().await,
            102..108 => self.reserve(key).await,
            108..111 => self.let_something_run_out().await,
            _ => self.sweep().await,
        }
        Ok(())
    }

    fn move_clocks(&mut self) {
        let now = self.real.elapsed();
        for process in &self.processes {
            process.clock.advance(now.saturating_sub(self.moved));
        }
        self.moved = now;
    }

    /// What time it is in the database, before the processes' clocks are moved: they know of it.
    async fn now(&mut self) -> Timestamp {
        let now = self.database_clock.now().await;
        self.move_clocks();
        now
    }

    /// Somebody else reserves some units for a short time.
    async fn reserve(&mut self, key: u128) {
        let StockKey { warehouse, product } = stock_key(key);
        let units = self.random.random_range(1..4);
        let lasts = Duration::from_millis(self.random.random_range(1..LASTS_MAX_MS));
        let database = &self.world.database;
        let reserved = database
            .reserve(product.uuid(), &[(warehouse.uuid(), units)], Some(lasts))
            .await;
        self.truth.publish(reserved.commit, |levels| {
            let line = (reserved.id, units, reserved.expires_at.unwrap());
            levels.entry(key).or_default().reserved.push(line);
        });
    }

    /// Waits until the next reservation is due, if there is one. No commit says so.
    async fn let_something_run_out(&mut self) {
        let now = self.now().await;
        let coming = self.truth.active().map(|(_, until)| until);
        let Some(next) = coming.filter(|until| now < *until).min() else {
            return;
        };
        self.database_clock.reach(next).await;
    }

    /// Somebody records that a reservation ran out.
    async fn sweep(&mut self) {
        let now = self.now().await;
        let mut due = self.truth.active().filter(|(_, until)| *until <= now);
        let Some((id, _)) = due.next() else {
            return;
        };
        drop(due);
        let commit = self.world.database.end(id, End::Expired).await;
        self.truth.publish(commit, |levels| {
            for stood in levels.values_mut() {
                stood.reserved.retain(|(of, ..)| *of != id);
            }
        });
    }

    /// A write through a process, which knows of it at once; the others do not.
    async fn write(&mut self, at: usize, key: u128) {
        self.movements += 1;
        let new = fact(self.movements, Side::Arrival, 1, key, 1);
        let recorded = self.processes[at]
            .recorder
            .record(&[new], Taken::default())
            .await
            .unwrap();
        let commit = recorded.commit.unwrap();
        self.truth.publish(commit, |levels| {
            levels.entry(key).or_default().on_hand += 1;
        });
        self.processes[at].own.insert(key, commit.version.number());
    }

    async fn look(&mut self, at: usize) {
        let newest = self.truth.newest();
        let process = &mut self.processes[at];
        process.follower.look().await.unwrap();
        process.known = newest;
        process.looked = process.clock.elapsed();
        if self.noticed[at] != self.restores {
            self.noticed[at] = self.restores;
            process.own.clear();
        }
    }

    async fn read(&mut self, at: usize, key: u128) -> Result<(), String> {
        let asked = self.now().await;
        let answer = self.answer(at, key).await;
        self.is_true(at, key, &answer, asked, "read").await
    }

    async fn answer(&self, at: usize, key: u128) -> Answer {
        let inventory = &self.processes[at].inventory;
        inventory.stock(stock_key(key), None).await.unwrap()
    }

    async fn begin_slow_read(&mut self, at: usize, key: u128) {
        let entry = self.read_entry(at, key).await;
        self.processes[at]
            .slow
            .push((CacheKey::Stock(stock_key(key)), entry));
    }

    /// What was read long ago is stored now.
    fn finish_slow_read(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if let Some((key, entry)) = process.slow.pop() {
            process.inventory.cache().fill(key, &entry);
        }
    }

    /// A read is under way, something is written and followed, another caller joins, the read lands.
    async fn join_a_read(&mut self, at: usize, key: u128) -> Result<(), String> {
        let cache_key = CacheKey::Stock(stock_key(key));
        let flights = Arc::clone(self.processes[at].inventory.cache().flights());
        let Seat::Leader(lead) = flights.board(cache_key) else {
            return Err("a flight was left".to_owned());
        };
        let entry = self.read_entry(at, key).await;
        let writer = self.random.random_range(0..self.processes.len());
        if self.random.random_bool(0.7) {
            self.write(writer, key).await;
        }
        if self.random.random_bool(0.7) {
            self.look(at).await;
        }
        if self.random.random_bool(0.3) {
            self.let_something_run_out().await;
        }
        let asked = self.now().await;
        let inventory = Arc::clone(&self.processes[at].inventory);
        let joining = async { inventory.stock(stock_key(key), None).await.unwrap() };
        let landing = async {
            // Once the other waits for it, or has an answer without it.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            lead.land(&entry);
        };
        let (answer, ()) = tokio::join!(joining, landing);
        self.is_true(at, key, &answer, asked, "joined read").await
    }

    /// Nobody looks for longer than the rule trusts.
    fn pause(&mut self, at: usize) {
        self.processes[at]
            .clock
            .advance(FOLLOWED_WITHIN + Duration::from_millis(1));
    }

    async fn lose_redis(&mut self) {
        let client = redis::Client::open(self.world.config.redis.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = connection
            .keys(format!("{}*", self.world.config.redis.prefix))
            .await
            .unwrap();
        if !keys.is_empty() {
            let _: i64 = connection.del(keys).await.unwrap();
        }
    }

    async fn restart(&mut self, at: usize) {
        self.processes[at].inventory.store().close().await;
        self.processes[at] = self.start_process().await;
        self.noticed[at] = self.restores;
    }

    /// A backup: the tables as they are.
    async fn save(&mut self) {
        let sql: Vec<String> = TABLES.iter().map(|table| format!("drop table if exists saved_{table}; create table saved_{table} as table {table};")).collect();
        self.world.database.run(&sql.concat()).await;
        self.saved = Some(self.truth.history.clone());
    }

    /// The backup is put back, and life goes on from there.
    async fn restore(&mut self) {
        let Some(saved) = self.saved.clone() else {
            return;
        };
        let sql: Vec<String> = TABLES
            .iter()
            .map(|table| {
                format!("delete from {table}; insert into {table} select * from saved_{table};")
            })
            .collect();
        self.world
            .database
            .run(&format!("begin; {} commit", sql.concat()))
            .await;
        self.restores += 1;
        let old = std::mem::replace(&mut self.truth.history, saved);
        self.truth.before_restores.push(old);
    }

    async fn read_entry(&self, at: usize, key: u128) -> Entry {
        let read = self.processes[at]
            .inventory
            .store()
            .read_stock(stock_key(key))
            .await
            .unwrap();
        let body = (stockyard::http::body::DOCUMENTS.stock)(stock_key(key), &read.value.level);
        Entry {
            as_of: read.as_of,
            valid_until: read.value.expires_next,
            body: Some(body),
            level: Some(read.value.level),
        }
    }

    /// The answer is what was true at the version it names, at some time since it was asked for; that is not older than what the
    /// process was sure of, if it looked within the last second, and else the present; and it holds what the process wrote itself.
    async fn is_true(
        &mut self,
        at: usize,
        key: u128,
        answer: &Answer,
        asked: Timestamp,
        what: &str,
    ) -> Result<(), String> {
        let when = (asked, self.database_clock.now().await);
        if answer.as_of == self.truth.newest() {
            self.is_as_read(at, key, answer, what).await?;
        }
        let process = &self.processes[at];
        let body: serde_json::Value =
            serde_json::from_slice(answer.body.as_ref().unwrap()).unwrap();
        let shown = Shown {
            on_hand: body["on_hand"].as_i64().unwrap(),
            reserved: body["reserved"].as_i64().unwrap(),
        };
        let version = answer.as_of.version.number();
        let is_fresh = process.clock.elapsed().saturating_sub(process.looked) <= FOLLOWED_WITHIN;
        let has_noticed = self.noticed[at] == self.restores;
        let own = process.own.get(&key).copied().unwrap_or(0);
        let floor = if is_fresh {
            process.known
        } else {
            self.truth.newest()
        };

        let now = Truth::holds_in(&self.truth.history, answer.as_of, key, shown, when)
            && (!has_noticed && is_fresh || version >= floor.version.number())
            && (!has_noticed || version >= own);
        // For a second after a restore nobody can know of it.
        let just_before = is_fresh
            && !has_noticed
            && self.truth.before_restores.iter().any(|old| {
                Truth::holds_in(old, answer.as_of, key, shown, when)
                    && version >= process.known.version.number()
            });
        if now || just_before {
            return Ok(());
        }
        Err(format!(
            "{what} of key {key} in process {at}: {shown:?} as of {} ({:?}); known {}, newest {}, own {own}, fresh {is_fresh}, noticed {has_noticed}",
            answer.as_of,
            answer.source,
            process.known,
            self.truth.newest()
        ))
    }

    /// An answer of the newest commit says of the level's changes what the database says, wherever it comes from.
    async fn is_as_read(
        &self,
        at: usize,
        key: u128,
        answer: &Answer,
        what: &str,
    ) -> Result<(), String> {
        let read = self.read_entry(at, key).await;
        let [told, read] = [&answer.body, &read.body].map(|body| {
            let body: serde_json::Value = serde_json::from_slice(body.as_ref().unwrap()).unwrap();
            (body["revision"].clone(), body["updated_at"].clone())
        });
        if told == read {
            return Ok(());
        }
        Err(format!(
            "{what} of key {key} in process {at}: {told:?} as of {} ({:?}); it is {read:?}",
            answer.as_of, answer.source
        ))
    }

    async fn end(self) {
        for process in &self.processes {
            process.inventory.store().close().await;
        }
        self.world.database.remove().await;
    }
}

/// The first answer that is not true, if there is one.
async fn explore(conditions: Conditions, seed: u64) -> Result<(), String> {
    let mut exploration = Exploration::new(conditions, seed).await;
    let mut result = Ok(());
    for step in 0..STEPS {
        result = exploration
            .step()
            .await
            .map_err(|error| format!("seed {seed} step {step}: {error}"));
        if result.is_err() {
            break;
        }
    }
    exploration.end().await;
    result
}

#[tokio::test]
async fn no_answer_is_older_than_it_may_be() {
    for seed in 0..if is_long() { 200 } else { 20 } {
        explore(Conditions::ALL, seed).await.unwrap();
    }
}

/// What a process has read once it knows after each commit that it follows, of its own and of another process, as a read would tell it.
#[tokio::test]
async fn what_was_read_is_carried_on_over_what_is_followed() {
    let mut exploration = Exploration::new(Conditions::ALL, 0).await;
    let (reader, other, key) = (0, 1, 1);
    let first = exploration.answer(reader, key).await;
    assert_eq!(first.source, Source::Miss, "nothing was read before");
    for writer in [other, other, reader, other] {
        exploration.write(writer, key).await;
        is_carried(&mut exploration, reader, key).await;
    }
    let metrics = exploration.processes[reader].inventory.metrics();
    assert_eq!(metrics.cache_carried_total.get(), 4);

    // Until when a promise holds, the ledger does not say.
    let StockKey { warehouse, product } = stock_key(key);
    let line = [(warehouse.uuid(), 1)];
    let database = &exploration.world.database;
    let reserved = database.reserve(product.uuid(), &line, None).await;
    exploration.look(reader).await;
    let read = exploration.answer(reader, key).await;
    assert_eq!((read.source, read.as_of), (Source::Miss, reserved.commit));
    // It stays as it is while other things change, and is nothing once it has ended.
    exploration.write(other, key).await;
    is_carried(&mut exploration, reader, key).await;
    let database = &exploration.world.database;
    database.end(reserved.id, End::Released).await;
    is_carried(&mut exploration, reader, key).await;
    exploration.end().await;
}

/// The process follows, and has the same in its memory as the database has.
async fn is_carried(exploration: &mut Exploration, at: usize, key: u128) {
    exploration.look(at).await;
    let carried = exploration.answer(at, key).await;
    let read = exploration.read_entry(at, key).await;
    assert_eq!(
        (carried.source, carried.as_of, carried.body),
        (Source::Hit(Tier::Memory), read.as_of, read.body)
    );
}

/// Most explorations until one shows the fault: far more than any needs.
const SEEDS_MAX: u64 = 150;

async fn is_needed(condition: &str, without: Conditions) {
    for seed in 0..SEEDS_MAX {
        if let Err(fault) = explore(without, seed).await {
            eprintln!("without {condition}: {fault}");
            return;
        }
    }
    panic!("without {condition} every answer was still true");
}

#[tokio::test]
async fn unchanged_since_is_needed() {
    is_needed(
        "`unchanged`",
        Conditions {
            unchanged: false,
            ..Conditions::ALL
        },
    )
    .await;
}

#[tokio::test]
async fn not_ahead_is_needed() {
    is_needed(
        "`not_ahead`",
        Conditions {
            not_ahead: false,
            ..Conditions::ALL
        },
    )
    .await;
}

#[tokio::test]
async fn not_before_is_needed() {
    is_needed(
        "`not_before`",
        Conditions {
            not_before: false,
            ..Conditions::ALL
        },
    )
    .await;
}

#[tokio::test]
async fn the_same_database_is_needed() {
    is_needed(
        "`same_database`",
        Conditions {
            same_database: false,
            ..Conditions::ALL
        },
    )
    .await;
}

#[tokio::test]
async fn a_recent_look_is_needed() {
    is_needed(
        "`followed`",
        Conditions {
            followed: false,
            ..Conditions::ALL
        },
    )
    .await;
}

#[tokio::test]
async fn a_time_that_is_not_over_is_needed() {
    is_needed(
        "`in_time`",
        Conditions {
            in_time: false,
            ..Conditions::ALL
        },
    )
    .await;
}
