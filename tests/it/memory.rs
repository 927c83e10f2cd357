//! What an ingest process holds has a bound, however much there is to take and however long it cannot be recorded.

use rdkafka::producer::{FutureProducer, FutureRecord};
use stockyard::kafka;
use uuid::Uuid;

use crate::support::{
    World, eventually,
    member::Member,
    messages::Move,
    process::{RESIDENT_BYTES_MAX, resident_bytes},
};

/// Twice as much as the process may hold, in messages of this size.
const VALUE_BYTES: usize = 3_000;
const MESSAGES: usize = 100_000;
const PRODUCTS: usize = 500;

/// Publishes valid messages with white space behind them.
async fn publish(world: &World) {
    let producer: FutureProducer = kafka::producer_config(&world.config.kafka)
        .set("linger.ms", "20")
        .create()
        .unwrap();
    let warehouse = Uuid::new_v4();
    let products: Vec<Uuid> = (0..PRODUCTS).map(|_| Uuid::new_v4()).collect();
    let mut sent = Vec::with_capacity(MESSAGES);
    for product in products.iter().cycle().take(MESSAGES) {
        let value = Move::new(warehouse, *product, 1).padded(VALUE_BYTES);
        let record = FutureRecord::<[u8], [u8]>::to(&world.config.kafka.topic).payload(&value);
        sent.push(
            producer
                .send_result(record)
                .map_err(|(error, _)| error)
                .unwrap(),
        );
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_does_not_grow_the_process() {
    let world = World::new().await;
    publish(&world).await;
    let mut lock = world.database.connect().await;
    sqlx::raw_sql("begin; lock table movements in access exclusive mode")
        .execute(&mut lock)
        .await
        .unwrap();
    let member = Member::start(&world.config, &[]);
    let mut most = 0;
    let weigh = |most: &mut u64| *most = resident_bytes(member.process.id()).max(*most);
    // A writer gives up after 10 s in the queue for the lock: by then buffers are full and partitions paused.
    eventually("a batch is tried again", async || {
        weigh(&mut most);
        let retries = member
            .sum("warehouse_ingest_retries_total{step=\"record\"")
            .await?;
        (retries > 0).then_some(())
    })
    .await;
    drop(lock);
    let messages = i64::try_from(MESSAGES).unwrap();
    eventually("everything is taken", async || {
        weigh(&mut most);
        (world.taken().await >= messages).then_some(())
    })
    .await;
    eprintln!("an ingest process held {} MiB at most", most >> 20);
    assert!(most < RESIDENT_BYTES_MAX, "{most} bytes");
    world.database.remove().await;
}
