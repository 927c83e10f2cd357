//! Kafka goes away in mid-stream and comes back. For what must hold see `servers_away`.

use tokio::net::TcpListener;

use crate::{
    readers::Reads,
    servers_away::{Goes, lives_through, ways},
    support::{World, is_long, own::OwnServer, process::free_port, proxy::Proxy},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_killed_frozen_cut_off_and_half_open() {
    // The broker tells the service's clients to come by the proxy; the stream goes straight.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let by_proxy = free_port();
    let proxy = Proxy::on(listener, by_proxy).unwrap();
    let mut server = OwnServer::kafka(by_proxy, proxy.port).await;
    let straight = format!("127.0.0.1:{}", server.port);
    let around = format!("127.0.0.1:{}", proxy.port);
    let world =
        async || World::with(|config| config.kafka.bootstrap_servers.clone_from(&straight)).await;
    let change = |config: &mut stockyard::config::Config| {
        config.kafka.bootstrap_servers.clone_from(&around);
    };
    for (name, way) in ways("Kafka") {
        let world = world().await;
        lives_through(&name, Reads::Work, &world, change, (&proxy, way)).await;
        world.database.remove().await;
    }
    for (name, goes) in [
        ("Kafka frozen", Goes::Frozen),
        ("Kafka killed", Goes::Killed),
        ("Kafka stopped", Goes::Asked("TERM")),
    ] {
        let world = world().await;
        let change = |config: &mut stockyard::config::Config| {
            change(config);
            if goes != Goes::Frozen && !is_long() {
                // To start takes a broker longer than a short absence, and the group then waits until the session of the
                // member that was there before is over.
                let session = ("session.timeout.ms".to_owned(), "6000".to_owned());
                config.kafka.options.extend([session]);
            }
        };
        lives_through(name, Reads::Work, &world, change, (&mut server, goes)).await;
        world.database.remove().await;
    }
}
