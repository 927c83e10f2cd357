//! How the service tells how it is, and how it starts and stops.

use stockyard::{
    app::Parts,
    http,
    metrics::{REVISION, VERSION},
};

use crate::support::{World, eventually, process::said};

#[tokio::test]
async fn a_ready_service_tells_of_all_its_parts() {
    let world = World::new().await;
    let service = world.start().await;
    for path in ["/health", "/health/"] {
        let health = service.get(path).await.body;
        for part in ["status", "database", "redis", "ingest", "follower"] {
            assert_eq!(health[part], "ok", "{path} {part}");
        }
    }
    assert_eq!(service.get("/livez").await.body["status"], "ok");
    for path in ["/metrics", "/metrics/"] {
        let answer = service.get(path).await;
        assert!(
            answer.header("content-type").starts_with("text/plain"),
            "{path}"
        );
        assert!(
            answer
                .body
                .as_str()
                .unwrap()
                .contains("\nwarehouse_http_requests_total{"),
            "{path}"
        );
    }
    let metrics = service.get("/metrics").await.body;
    let text = metrics.as_str().unwrap();
    assert!(
        text.contains(r#"handler="/health",method="GET",status="200""#),
        "templates, not paths"
    );
    assert!(text.contains("process_resident_memory_bytes") || !cfg!(target_os = "linux"));
    // What is full and what is away is told against its limit, from the beginning.
    for series in [
        format!(r#"build_info{{revision="{REVISION}",version="{VERSION}"}} 1"#),
        r#"database_pool_connections_max{pool="read"} 8"#.to_owned(),
        "command_queue_requests 0".to_owned(),
        "command_queue_requests_max 10000".to_owned(),
        r#"server_up{server="redis"} 1"#.to_owned(),
        r#"http_unavailable_total{cause="database"} 0"#.to_owned(),
        "access_keys_read_timestamp_seconds 0".to_owned(),
    ] {
        assert!(
            text.contains(&format!("\nwarehouse_{series}\n")),
            "{series}"
        );
    }
    let said = said(&world.stockyard(&["--version"]));
    assert_eq!(said, format!("stockyard {VERSION} ({REVISION})\n"));
    eventually("Kafka is known to answer", async || {
        let kafka = r#"warehouse_server_up{server="kafka"}"#;
        let metrics = service.get("/metrics").await.body;
        let text = metrics.as_str()?;
        text.contains(&format!("\n{kafka} 1\n")).then_some(())
    })
    .await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn roles_do_their_own_part() {
    let world = World::new().await;
    let api = world
        .start_parts(Parts {
            answers: true,
            ingests: false,
        })
        .await;
    api.is_ready().await;
    assert_eq!(api.get("/health").await.body["ingest"], "off");
    let ingest = world
        .start_parts(Parts {
            answers: false,
            ingests: true,
        })
        .await;
    ingest.is_ready().await;
    assert_eq!(ingest.get("/api/movements/x").await.status, 404);
    let health = ingest.get("/health").await.body;
    assert_eq!(
        (&health["status"], &health["follower"]),
        (&"ok".into(), &"off".into())
    );
    let moved = crate::support::messages::Move::new(uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), 4);
    world.send(&moved.arrival()).await;
    api.has_on_hand(moved.warehouse, moved.product, 4).await;
    api.stop().await;
    ingest.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_not_ready_until_it_is_migrated() {
    let world = World::new().await;
    let empty = crate::support::TestDatabase::empty().await;
    let mut other = world;
    other.config.database.url.clone_from(&empty.url);
    let service = other
        .start_parts(Parts {
            answers: true,
            ingests: false,
        })
        .await;
    assert_eq!(service.get("/readyz").await.status, 503);
    stockyard::app::migrate(&other.config).await.unwrap();
    service.is_ready().await;
    service.stop().await;
    empty.remove().await;
    other.database.remove().await;
}

#[tokio::test]
async fn the_committed_document_is_the_one_that_is_served() {
    let world = World::new().await;
    let service = world.start().await;
    let committed = std::fs::read_to_string("openapi.json").expect("openapi.json");
    assert_eq!(committed, http::document(), "run `make openapi`");
    let served = service.get("/openapi.json").await.body;
    assert_eq!(
        served,
        serde_json::from_str::<serde_json::Value>(&committed).unwrap()
    );
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/api/movements/{movement_id}",
        "/api/warehouses/{warehouse_id}/products/{product_id}",
        "/readyz",
    ] {
        assert!(served["paths"][path]["get"].is_object(), "{path}");
    }
    // The page and what it loads come from the binary.
    let page = service.get("/docs/").await;
    assert!(
        page.body.as_str().unwrap().contains("swagger-ui"),
        "{:?}",
        page.status
    );
    for asset in ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"] {
        assert_eq!(service.get(asset).await.status, 200, "{asset}");
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn bodies_are_compressed_when_asked_for() {
    let world = World::new().await;
    let service = world.start().await;
    let answer = service
        .get_with("/openapi.json", &[("accept-encoding", "gzip")])
        .await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    // A compressed answer is another representation: its tag is weak, and good for asking again.
    let path = format!("/api/warehouses/{0}/products/{0}", uuid::Uuid::from_u128(7));
    let plain = service.get(&path).await.header("etag").to_owned();
    let packed = service
        .get_with(&path, &[("accept-encoding", "gzip")])
        .await;
    assert_eq!(packed.header("etag"), format!("W/{plain}"));
    let again = service
        .get_with(&path, &[("if-none-match", packed.header("etag"))])
        .await;
    assert_eq!(
        (
            again.status.as_u16(),
            again.header("vary").contains("accept-encoding")
        ),
        (304, true)
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn an_occupied_port_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = http::bind(&[address]).unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("http.listen"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stop_loses_nothing() {
    let world = World::new().await;
    let (warehouse, product) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut service = world.start().await;
    for round in 0..3 {
        for _ in 0..100 {
            world
                .send(&crate::support::messages::Move::new(warehouse, product, 1).arrival())
                .await;
        }
        service.stop().await;
        service = world.start().await;
        eprintln!("stopped and started {} times", round + 1);
    }
    service.has_on_hand(warehouse, product, 300).await;
    eventually("no lag", async || {
        (world.taken().await == 300).then_some(())
    })
    .await;
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}
