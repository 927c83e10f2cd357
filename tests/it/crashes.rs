//! Processes that die at every step: whatever was under way, nothing is lost and nothing counts twice.
//!
//! They die by their own hand at a named point (`crash_point!` in the library, `FAILPOINTS` here), and by `kill -9` at any
//! moment; the next one goes on where the tables and the group say.

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use stockyard::produce::{Oracle, plan::PlanOptions};

use crate::support::{
    World, eventually, is_long,
    member::Member,
    process::signal,
    stream::{mixed, seed},
};

/// Where a process can be made to die, and whether it has to be told to stop to come there.
const POINTS: [(&str, bool); 8] = [
    ("after_decode", false),
    ("after_hand_over", false),
    ("within_transaction", false),
    ("after_commit", false),
    ("after_dead_letters", false),
    ("before_offset_commit", false),
    ("during_rebalance", true),
    ("during_shutdown", true),
];
/// Most messages a process takes before it dies at a point.
const MESSAGES_PER_LIFE: u64 = 1_000;
const BATCH_EVENTS: u64 = 50;

/// A stream that is published already, and processes that take it one after the other.
struct Story {
    world: World,
    options: PlanOptions,
    oracle: Oracle,
    random: SmallRng,
}

impl Story {
    async fn begin(name: &str, messages: u64) -> Self {
        let seed = seed();
        eprintln!("{name}: STOCKYARD_TEST_SEED={seed}");
        let world = World::with(|config| {
            config.ingest.max_batch_events = usize::try_from(BATCH_EVENTS).unwrap();
            config.ingest.offset_commit_interval_ms = 20;
        })
        .await;
        let options = mixed(messages, seed);
        let produced = world.publish(&options, 0, &[]);
        Self {
            world,
            options,
            oracle: produced.await.unwrap().oracle,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// A process that dies at its points.
    fn life(&self, points: &str) -> Member {
        // One that has a name of its own and comes back gets its partitions at once.
        let name = [("group.instance.id", "one"), ("session.timeout.ms", "6000")];
        Member::at_points(&self.world.config, &name, points)
    }

    /// Waits until so many messages more are taken.
    async fn comes_on(&self, messages: u64) {
        let wanted = self.world.taken().await + i64::try_from(messages).unwrap();
        eventually("ingest comes on", async || {
            (self.world.taken().await >= wanted).then_some(())
        })
        .await;
    }

    /// One process takes the rest. Everything is in, once, and every dead letter is there.
    async fn end(self) {
        let mut last = self.life("");
        let messages = i64::try_from(self.options.count).unwrap();
        eventually("the group has all of it", async || {
            (self.world.committed() == messages).then_some(())
        })
        .await;
        last.process.end("TERM").await;
        self.world.holds(&self.oracle, "after the last").await;
        self.world.database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_at_a_named_point_loses_and_doubles_nothing() {
    let deaths = if is_long() { 25 } else { 2 };
    let messages = POINTS.len() as u64 * deaths * (MESSAGES_PER_LIFE + 5 * BATCH_EVENTS);
    let mut story = Story::begin("named points", messages).await;
    for _ in 0..deaths {
        for (point, is_told) in POINTS {
            let mut passes = story
                .random
                .random_range(0..MESSAGES_PER_LIFE / BATCH_EVENTS);
            match point {
                "after_decode" => passes *= BATCH_EVENTS,
                _ if is_told => passes = 0,
                _ => {}
            }
            let first = if passes > 0 {
                format!("{passes}*off->")
            } else {
                String::new()
            };
            let mut life = story.life(&format!("{point}={first}return"));
            if is_told {
                story.comes_on(BATCH_EVENTS).await;
                signal(life.process.id(), "TERM");
            }
            life.process.ended().await;
            assert!(
                life.process.was_aborted(),
                "it died at {point}, and not otherwise"
            );
        }
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_moment_loses_and_doubles_nothing() {
    let (deaths, messages) = if is_long() {
        (110, 1_000_000)
    } else {
        (8, 30_000)
    };
    let mut story = Story::begin("kill -9", messages).await;
    for _ in 0..deaths {
        let mut life = story.life("");
        let more = story.random.random_range(1..messages / deaths);
        story.comes_on(more).await;
        life.process.end("KILL").await;
    }
    story.end().await;
}
