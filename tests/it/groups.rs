//! Several consumers in one group, which come, go, die and freeze while messages are published: each fact once, each dead
//! letter there, nothing left over.
//!
//! The members are processes of their own; when what happens to them follows from how far ingest has come, and from a seed
//! (`STOCKYARD_TEST_SEED`).

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use sqlx::Connection;
use stockyard::app::Parts;
use uuid::Uuid;

use crate::support::{
    World, eventually, is_long,
    member::Member,
    messages::Move,
    process::is_frozen,
    stream::{mixed, seed},
};

const PARTITIONS: i32 = 8;
const MEMBERS: usize = 3;
/// The shortest that brokers allow unless told otherwise.
const SESSION_MS: &str = "6000";

/// Waits until all partitions are with these members, each of which has some.
async fn share_everything(members: &[&Member]) {
    eventually("all partitions are with the members", async || {
        let mut assigned = Vec::new();
        for member in members {
            assigned.push(member.assigned().await);
        }
        let is_all = assigned.iter().sum::<u64>() == u64::from(PARTITIONS.unsigned_abs());
        (is_all && !assigned.contains(&0)).then_some(())
    })
    .await;
}

async fn world(strategy: &str) -> World {
    World::with(|config| {
        config.kafka.partitions = PARTITIONS;
        config.ingest.max_batch_events = 200;
        for (name, value) in [
            ("partition.assignment.strategy", strategy),
            ("session.timeout.ms", SESSION_MS),
            ("heartbeat.interval.ms", "500"),
        ] {
            config
                .kafka
                .options
                .insert(name.to_owned(), value.to_owned());
        }
    })
    .await
}

/// What can happen to a member.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// It is stopped, the group goes on without it, another comes.
    Leaves,
    /// It dies, and another takes its place at once.
    Dies,
    /// It stands still until its partitions are with the others, and then wakes up.
    Freezes,
}

/// Waits until ingest has come on by some messages, or to the end of what is published.
async fn goes_on(world: &World, messages: i64, random: &mut SmallRng) {
    let wanted = world.taken().await + random.random_range(100..2_000);
    eventually("ingest goes on", async || {
        (world.taken().await >= wanted.min(messages)).then_some(())
    })
    .await;
}

async fn a_group_takes_everything_once(strategy: &str) {
    let seed = seed();
    eprintln!("{strategy}: STOCKYARD_TEST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let rounds = if is_long() { 20 } else { 1 };
    let world = world(strategy).await;
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Member::start(&world.config, &[]));
    }
    share_everything(&members.iter().collect::<Vec<_>>()).await;

    let options = mixed(15_000 * rounds, seed);
    let messages = i64::try_from(options.count).unwrap();
    let published = world.publish(&options, 1_000, &[]);
    for _ in 0..rounds {
        let mut happenings = [Happens::Leaves, Happens::Dies, Happens::Freezes];
        happenings.shuffle(&mut random);
        for happening in happenings {
            goes_on(&world, messages, &mut random).await;
            members.shuffle(&mut random);
            eprintln!(
                "{strategy}: {} taken, one {happening:?}",
                world.taken().await
            );
            match happening {
                Happens::Leaves => {
                    members[0].process.end("TERM").await;
                    share_everything(&[&members[1], &members[2]]).await;
                    goes_on(&world, messages, &mut random).await;
                    members[0] = Member::start(&world.config, &[]);
                }
                Happens::Dies => {
                    members[0].process.end("KILL").await;
                    members[0].begin();
                }
                Happens::Freezes => {
                    members[0].process.freeze();
                    is_frozen(members[0].process.id()).await;
                    share_everything(&[&members[1], &members[2]]).await;
                    goes_on(&world, messages, &mut random).await;
                    members[0].process.thaw();
                }
            }
        }
    }
    share_everything(&members.iter().collect::<Vec<_>>()).await;

    let produced = published.await.unwrap();
    world.is_caught_up(messages).await;
    // Kafka is told of what is done: recorded, and its dead letters acknowledged.
    eventually("the group has all of it", async || {
        (world.committed() == messages).then_some(())
    })
    .await;
    eventually("no lag is left", async || {
        for member in &members {
            let lag = member.sum("warehouse_ingest_lag_offsets").await;
            lag.filter(|lag| *lag == 0)?;
        }
        Some(())
    })
    .await;
    world.holds(&produced.oracle, strategy).await;
    for member in &mut members {
        member.process.end("TERM").await;
    }
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_group_takes_everything_once() {
    a_group_takes_everything_once("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eager_group_takes_everything_once() {
    a_group_takes_everything_once("range").await;
}

/// A member that has a name of its own and comes back in time gets its partitions back, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_member_that_comes_back_disturbs_nobody() {
    let strategies = ["cooperative-sticky", "range"];
    for strategy in &strategies[..if is_long() { 2 } else { 1 }] {
        let mut world = world(strategy).await;
        // In time means within this, also on a loaded machine.
        let session = ("session.timeout.ms".to_owned(), "45000".to_owned());
        world.config.kafka.options.extend([session]);
        let mut members = Vec::new();
        for name in ["one", "two", "three"] {
            members.push(Member::start(&world.config, &[("group.instance.id", name)]));
        }
        share_everything(&members.iter().collect::<Vec<_>>()).await;
        let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
        let mut sent = 0;
        for how in ["TERM", "KILL", "TERM"] {
            let mut before = Vec::new();
            for member in &members[1..] {
                before.push(member.rebalances().await);
            }
            members[0].process.end(how).await;
            // Some of it for the one who is away.
            for partition in 0..PARTITIONS {
                let message = Move::new(warehouse, product, 1).arrival();
                world.send_to(partition, &message).await;
                sent += 1;
            }
            members[0].begin();
            world.is_caught_up(sent).await;
            share_everything(&members.iter().collect::<Vec<_>>()).await;
            let mut after = Vec::new();
            for member in &members[1..] {
                after.push(member.rebalances().await);
            }
            assert_eq!(before, after, "{strategy}: after {how}");
            // The one that leads the group too.
            members.rotate_left(1);
        }
        assert_eq!(world.differences().await, [""; 0]);
        for member in &mut members {
            member.process.end("TERM").await;
        }
        world.database.remove().await;
    }
}

/// A table that is locked: batches wait, buffers fill, partitions are paused. Then another member comes.
async fn a_member_may_join_while_partitions_are_paused(strategy: &str) {
    let mut world = world(strategy).await;
    world.config.ingest.max_batch_events = 20;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    let parts = || Parts {
        answers: true,
        ingests: true,
    };
    let publish = async |each: usize| {
        for _ in 0..each {
            for partition in 0..PARTITIONS {
                let message = Move::new(warehouse, product, 1).arrival();
                world.send_to(partition, &message).await;
            }
        }
    };
    let one = world.start_parts(parts()).await;
    one.is_ready().await;
    let mut lock = world.database.connect().await;
    sqlx::raw_sql("begin; lock table movements in access exclusive mode")
        .execute(&mut lock)
        .await
        .unwrap();
    // Far more than is in a batch under way and the next one, of either lane.
    publish(50).await;
    // A writer gives up after 10 s in the queue for the lock, long after the partitions were paused.
    eventually("a batch is tried again", async || {
        let retries = one.count(r#"warehouse_ingest_retries_total{step="record"}"#);
        (retries.await > 0).then_some(())
    })
    .await;
    let other = world.start_parts(parts()).await;
    other.is_ready().await;
    assert_eq!(world.taken().await, 0, "all of it under the lock");
    lock.close().await.unwrap();
    let messages = 50 * i64::from(PARTITIONS);
    world.is_caught_up(messages).await;

    // None is left paused, wherever it is now and wherever it goes.
    publish(3).await;
    world
        .is_caught_up(messages + 3 * i64::from(PARTITIONS))
        .await;
    other.stop().await;
    publish(3).await;
    world
        .is_caught_up(messages + 6 * i64::from(PARTITIONS))
        .await;
    one.has_on_hand(warehouse, product, messages + 6 * i64::from(PARTITIONS))
        .await;
    assert_eq!(world.differences().await, [""; 0]);
    one.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_join_a_paused_cooperative_group() {
    a_member_may_join_while_partitions_are_paused("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_join_a_paused_eager_group() {
    a_member_may_join_while_partitions_are_paused("range").await;
}

/// A client that stands still and does not know it: the service notices, and connects anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_gets_nothing_is_begun_anew() {
    let mut world = world("cooperative-sticky").await;
    world.config.ingest.stalled_after_ms = 1_000;
    // After a few looks at what it is given, the partitions are paused behind its back.
    let member = Member::at_points(&world.config, &[], "stalled=5*off->1*return");
    share_everything(&[&member]).await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    let mut sent = 0;
    eventually("the stall is noticed", async || {
        let message = Move::new(warehouse, product, 1).arrival();
        world.send(&message).await;
        sent += 1;
        let stalls = member.sum("warehouse_ingest_stalls_total").await;
        stalls.filter(|stalls| *stalls > 0)
    })
    .await;
    world.is_caught_up(sent).await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
