//! Redis goes away in mid-stream and comes back: nobody notices but by the time an answer takes. For what must hold see
//! `servers_away`; what it may have forgotten or remembered meanwhile is in `redis_faults`.

use stockyard::config::Config;

use crate::{
    readers::Reads,
    servers_away::{Fault, Lived, lives_through, ways},
    support::{
        World, eventually,
        process::OwnRedis,
        proxy::{Proxy, Way},
    },
};

#[derive(Clone, Copy)]
enum Goes {
    Killed,
    Frozen,
}

impl Fault for (&mut OwnRedis, Goes) {
    async fn begin(&mut self) {
        match self.1 {
            Goes::Killed => self.0.kill(),
            Goes::Frozen => self.0.process().freeze(),
        }
    }

    async fn end(&mut self) {
        match self.1 {
            Goes::Killed => self.0.run().await,
            Goes::Frozen => self.0.process().thaw(),
        }
    }
}

/// Nothing stays in the process, so that every read asks Redis.
fn only_redis(config: &mut Config, url: String) {
    config.redis.url = url;
    config.redis.timeout_ms = 100;
    config.cache.memory_bytes_max = 0;
}

async fn is_well(name: &str, lived: &Lived) {
    eventually(&format!("{name}: redis is in use again"), async || {
        let answer = lived.service.movement(lived.known).await;
        let status = answer.header("cache-status");
        status.contains("detail=redis").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_frozen_cut_off_and_half_open() {
    let mut redis = OwnRedis::start().await;
    for (name, goes) in [
        ("Redis killed", Goes::Killed),
        ("Redis frozen", Goes::Frozen),
    ] {
        let world = World::new().await;
        let url = redis.url();
        let change = |config: &mut Config| only_redis(config, url);
        let lived = lives_through(name, Reads::Work, &world, change, (&mut redis, goes)).await;
        is_well(name, &lived).await;
        drop(lived);
        world.database.remove().await;
    }
    for (name, way) in ways("Redis") {
        let world = World::new().await;
        let (proxy, url) = Proxy::in_url(&redis.url()).await.unwrap();
        let change = |config: &mut Config| only_redis(config, url);
        let lived = lives_through(&name, Reads::Work, &world, change, (&proxy, way)).await;
        is_well(&name, &lived).await;
        drop(lived);
        world.database.remove().await;
    }
}

/// Also without anybody who reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_finds_redis_again() {
    let redis = OwnRedis::start().await;
    let (proxy, url) = Proxy::in_url(&redis.url()).await.unwrap();
    let world = World::with(|config| only_redis(config, url)).await;
    let service = world.start().await;
    for (way, is) in [
        (Way::Open, "ok"),
        (Way::Silent, "degraded"),
        (Way::Open, "ok"),
    ] {
        proxy.set(way);
        eventually(&format!("redis is {is}"), async || {
            let ready = service.get("/readyz").await;
            (ready.body["redis"] == is).then_some(())
        })
        .await;
    }
    service.stop().await;
    world.database.remove().await;
}
