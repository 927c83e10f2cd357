//! Redis may be lost, frozen, flushed or put back from an old dump: answers stay right.

use uuid::Uuid;

use crate::support::{Service, World, eventually, messages::Move, process::OwnRedis};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);
/// Nobody asks for it while Redis is away.
const ANOTHER: Uuid = Uuid::from_u128(3);

async fn arrives(world: &World, service: &Service, units: i64, then: i64) {
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, units).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, then).await;
}

/// Waits until the answer comes from that tier of the cache.
async fn is_kept(service: &Service, product: Uuid, tier: &str) {
    eventually("a hit", async || {
        let answer = service.stock(WAREHOUSE, product).await;
        let status = answer.header("cache-status");
        status.contains(&format!("detail={tier}")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lost_redis_costs_time_and_no_truth() {
    let mut redis = OwnRedis::start().await;
    let url = redis.url();
    let world = World::with(|config| {
        config.redis.url = url;
        config.redis.timeout_ms = 50;
        config.redis.retry_after_ms = 100;
        // Nothing stays in the process, so that every read asks Redis.
        config.cache.memory_bytes_max = 0;
    })
    .await;
    let service = world.start().await;
    arrives(&world, &service, 10, 10).await;
    let another = Move::new(WAREHOUSE, ANOTHER, 5);
    world.send(&another.arrival()).await;
    service.has_on_hand(WAREHOUSE, ANOTHER, 5).await;
    for product in [PRODUCT, ANOTHER] {
        is_kept(&service, product, "redis").await;
    }
    redis.save().await;

    // Frozen: slower, right, and still ready.
    redis.process().freeze();
    arrives(&world, &service, 1, 11).await;
    assert_eq!(service.get("/readyz").await.body["redis"], "degraded");
    redis.process().thaw();

    // Gone.
    redis.kill();
    world.send(&another.departure()).await;
    arrives(&world, &service, 1, 12).await;
    world.is_caught_up(5).await;
    let ready = service.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.body["status"]),
        (200, &"degraded".into())
    );

    // Back with the dump of an hour ago, so to speak: what it says is refused.
    let refused = r#"warehouse_cache_lookups_total{result="refused",tier="redis"}"#;
    let before = service.count(refused).await;
    redis.run().await;
    is_kept(&service, PRODUCT, "redis").await;
    let answer = service.stock(WAREHOUSE, PRODUCT).await;
    assert_eq!(answer.body["on_hand"], 12, "{:?}", answer.headers);
    let answer = service.stock(WAREHOUSE, ANOTHER).await;
    assert_eq!(answer.body["on_hand"], 0, "{:?}", answer.headers);
    assert!(
        service.count(refused).await > before,
        "the dump was met, and refused"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn without_redis_the_process_caches_alone() {
    let world = World::with(|config| config.redis.enabled = false).await;
    let service = world.start().await;
    arrives(&world, &service, 3, 3).await;
    is_kept(&service, PRODUCT, "memory").await;
    assert_eq!(service.get("/health").await.body["redis"], "off");
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn processes_share_what_one_of_them_read() {
    let world = World::new().await;
    let one = world.start().await;
    let other = world
        .start_parts(stockyard::app::Parts {
            answers: true,
            ingests: false,
        })
        .await;
    other.is_ready().await;
    world
        .send(&Move::new(WAREHOUSE, ANOTHER, 3).arrival())
        .await;
    eventually("the other has followed it", async || {
        (other.count("warehouse_feed_version").await > 0).then_some(())
    })
    .await;
    eventually("the one has left it in redis", async || {
        one.stock(WAREHOUSE, ANOTHER).await;
        world.redis_stock(WAREHOUSE, ANOTHER).await.map(drop)
    })
    .await;
    let answer = other.stock(WAREHOUSE, ANOTHER).await;
    assert_eq!(answer.body["on_hand"], 3);
    let status = answer.header("cache-status");
    assert!(status.contains("hit; detail=redis"), "{status}");
    // A change through the one is not hidden by what the other holds.
    for then in 1..17 {
        arrives(&world, &one, 1, then).await;
        other.has_on_hand(WAREHOUSE, PRODUCT, then).await;
    }
    one.stop().await;
    other.stop().await;
    world.database.remove().await;
}
