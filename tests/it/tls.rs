//! HTTPS at the service's own doors, and TLS to its servers, with an authority that is thrown away afterwards.

use std::{fs::File, path::PathBuf};

use reqwest::{Client, Identity as ClientIdentity};
use serde_json::json;
use stockyard::{
    app::{Listeners, Parts},
    config::{Config, Kafka},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use crate::support::{
    Service, TestDatabase, World, eventually,
    live::LiveClient,
    messages::Move,
    own::OwnServer,
    process::{OwnRedis, Process, said, serve, stockyard},
    stream::mixed,
    tls::{Authority, Identity},
};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);
const BOTH: Parts = Parts {
    answers: true,
    ingests: true,
};
/// Log-in of the servers that are the test's own.
const USER: &str = "stockyard";
const PASSWORD: &str = "scram-is-asked-of-everybody";

fn shows(config: &mut Config, identity: &Identity) {
    config.http.tls.certificate = identity.certificate.display().to_string();
    config.http.tls.key = identity.key.display().to_string();
}

/// The certificate that is shown to the next client, as it is sent.
async fn shown(service: &Service) -> Vec<u8> {
    let client = Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true)
        .build()
        .unwrap();
    let url = format!("{}/livez", service.base);
    let answer = client.get(url).send().await.unwrap();
    let told = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    told.peer_certificate().unwrap().to_vec()
}

fn der(identity: &Identity) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_file(&identity.certificate).unwrap();
    certificate.as_ref().to_vec()
}

/// What somebody gets who speaks plain HTTP there.
async fn in_clear(address: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /api/warehouses HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // Cut off, or closed.
    drop(stream.read_to_end(&mut answer).await);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_served_by_https_and_nothing_in_clear() {
    let authority = Authority::new();
    let identity = authority.vouch("service", "localhost");
    let world = World::with(|config| shows(config, &identity)).await;
    let service = world.start_encrypted(&authority).await;
    let (warehouse, product) = service.stocked(7).await;
    let mut client = LiveClient::connect(&service, "").await;
    client.hear("snapshot").await;
    let body = json!({"warehouse": warehouse, "product": product, "change": 2, "kind": "restock"});
    let written = service.post("/api/adjustments", &body).await;
    assert_eq!(written.status, 201, "{written:?}");
    let update = client.hear("update").await;
    assert_eq!(update["data"]["on_hand"], 9, "{update}");
    assert_eq!(service.stock(warehouse, product).await.body["on_hand"], 9);
    let events = service.get("/events").await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    // Nearly as large as a body may be.
    let keys = vec![json!({"warehouse": warehouse, "product": product}); 1_000];
    let asked = json!({ "keys": keys });
    let many = service.post("/api/stock/query", &asked).await;
    assert!(many.status != 413 && many.status != 503, "{many:?}");
    // What the library answers by itself gets its document here, too.
    let long = "x".repeat(20_000);
    let refused = service.get_with("/livez", &[("x-long", &long)]).await;
    assert_eq!(refused.status, 431);
    assert_eq!(refused.header("content-type"), "application/problem+json");

    let heard = in_clear(service.address()).await;
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");

    let url = format!("{}/readyz", service.base);
    let ca = authority.ca.display().to_string();
    let at = format!("127.0.0.1:{}", service.base.rsplit(':').next().unwrap());
    let checks = |more: &[&str]| {
        let arguments = [&["healthcheck", "--url"], more].concat();
        stockyard(&arguments, &[])
    };
    tokio::task::block_in_place(|| {
        let checked = checks(&[&url, "--ca", &ca]);
        assert!(checked.status.success(), "{}", said(&checked));
        let checked = checks(&[&url, "--ca", &ca, "--at", &at]);
        assert!(checked.status.success(), "{}", said(&checked));
        let untrusted = said(&checks(&[&url]));
        assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
        let numbers = url.replace("localhost", "127.0.0.1");
        let other = said(&checks(&[&numbers, "--ca", &ca]));
        assert!(other.contains("not valid for name"), "{other}");
    });
    // Told that it stops, as everywhere.
    let stopping = tokio::spawn(service.stop());
    assert_eq!(client.closed().await, Some(1001));
    stopping.await.unwrap();
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_noticed_behind_the_encryption_too() {
    let authority = Authority::new();
    let identity = authority.vouch("service", "localhost");
    let world = World::with(|config| {
        shows(config, &identity);
        config.live.stalled_after_ms = 1_000;
        config.live.close_timeout_ms = 100;
    })
    .await;
    let service = world.start_encrypted(&authority).await;
    // More of them than kernel and library hold for a client.
    let mut options = mixed(20_000, 1);
    options.poison = 0.0;
    world.publish(&options, 0, &[]).await.unwrap();
    world.is_caught_up(20_000).await;
    let mut client = LiveClient::connect_narrowly(&service).await;
    eventually("the service has closed it", async || {
        let closes = r#"warehouse_live_closes_total{code="4008"}"#;
        let sockets = r#"warehouse_live_connections{kind="socket"}"#;
        let is_closed = service.count(closes).await == 1 && service.count(sockets).await == 0;
        is_closed.then_some(())
    })
    .await;
    assert_eq!(client.closed().await, Some(4008));
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_end_is_ended_and_holds_up_nobody() {
    const HALF_OPEN: usize = 50;
    let authority = Authority::new();
    let identity = authority.vouch("service", "localhost");
    let world = World::with(|config| {
        shows(config, &identity);
        config.http.header_timeout_ms = 2_000;
    })
    .await;
    let service = world.start_encrypted(&authority).await;
    let address = service.address().to_owned();
    let mut held = Vec::new();
    for number in 0..HALF_OPEN {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        if number % 2 == 0 {
            // The head of a ClientHello that never comes.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        }
        held.push(stream);
    }
    // Nobody waits for them.
    assert_eq!(service.get("/livez").await.status, 200);
    let mut trickling = TcpStream::connect(&address).await.unwrap();
    let trickled = eventually("the one that trickles is cut off", async || {
        let is_over = trickling.write_all(&[0x16]).await.is_err();
        is_over.then_some(())
    });
    trickled.await;
    for mut stream in held {
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        drop(
            tokio::time::timeout(crate::support::deadline(), end)
                .await
                .expect("an end"),
        );
    }
    let open = "warehouse_http_connections";
    eventually("they have given their places back", async || {
        (service.count(open).await < HALF_OPEN as u64 / 2).then_some(())
    })
    .await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_next_and_sockets_stay() {
    let authority = Authority::new();
    let identity = authority.vouch("service", "localhost");
    let old = der(&identity);
    let world = World::with(|config| {
        shows(config, &identity);
        config.http.tls.refresh_seconds = 1;
    })
    .await;
    let folder = identity.beside("serve.log", "");
    let mut settings = world.config.clone();
    settings.http.tls.refresh_seconds = 1;
    let (mut run, address) = serve(&settings, &folder.with_extension("toml"));
    let _process = Process::saying(&mut run, File::create(&folder).unwrap());
    let service = Service::at(&format!("http://{address}")).over_tls(&authority.ca);
    service.is_ready().await;
    assert_eq!(shown(&service).await, old);
    let (warehouse, product) = service.stocked(1).await;
    let mut client = LiveClient::connect(&service, "").await;
    client.hear("snapshot").await;

    // Somebody else's key: of no use with this certificate.
    let other = authority.vouch("other", "localhost");
    std::fs::copy(&other.key, &identity.key).unwrap();
    let complaint = "a new certificate cannot be used";
    eventually("that is told", async || {
        let log = std::fs::read_to_string(&folder).unwrap();
        log.contains(complaint).then_some(())
    })
    .await;
    assert_eq!(shown(&service).await, old);

    let renewed = authority.vouch("service", "localhost");
    eventually("the new one is shown", async || {
        (shown(&service).await == der(&renewed)).then_some(())
    })
    .await;
    let body = json!({"warehouse": warehouse, "product": product, "change": 1, "kind": "restock"});
    assert_eq!(service.post("/api/adjustments", &body).await.status, 201);
    assert_eq!(client.hear("update").await["data"]["on_hand"], 2);
    world.database.remove().await;
}

#[tokio::test]
async fn who_runs_the_service_shows_a_certificate_where_that_is_asked() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let identity = authority.vouch("service", "localhost");
    let world = World::with(|config| {
        shows(config, &identity);
        config.http.tls.admin_client_ca = authority.ca.display().to_string();
    })
    .await;
    let mut listeners = Vec::new();
    for _ in 0..2 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let port = listeners[1].local_addr().unwrap().port();
    let admin = listeners.pop().into_iter().collect();
    let doors = Listeners {
        open: listeners,
        admin,
    };
    let service = world.start_with(doors, BOTH).over_tls(&authority.ca);
    service.is_ready().await;
    let ask = async |identity: Option<Identity>| {
        let pem = std::fs::read(&authority.ca).unwrap();
        let trusted = reqwest::Certificate::from_pem_bundle(&pem).unwrap();
        let mut client = Client::builder().tls_certs_only(trusted);
        if let Some(identity) = identity {
            let pem = std::fs::read(&identity.both).unwrap();
            client = client.identity(ClientIdentity::from_pem(&pem).unwrap());
        }
        let url = format!("https://localhost:{port}/metrics");
        client.build().unwrap().get(url).send().await
    };
    ask(None).await.unwrap_err();
    ask(Some(strangers.vouch("stranger", "prometheus")))
        .await
        .unwrap_err();
    let known = ask(Some(authority.vouch("scraper", "prometheus")))
        .await
        .unwrap();
    assert_eq!(known.status(), 200);
    // At the other door nobody is asked.
    assert_eq!(service.get("/livez").await.status, 200);
    service.stop().await;
    world.database.remove().await;
}

/// Servers that are reached by TLS alone.
struct Servers {
    authority: Authority,
    postgres: OwnServer,
    redis: OwnRedis,
    kafka: OwnServer,
}

impl Servers {
    async fn start() -> Self {
        let authority = Authority::new();
        let [postgres, redis, kafka] =
            ["postgres", "redis", "kafka"].map(|server| authority.vouch(server, "localhost"));
        let (postgres, redis, kafka) = tokio::join!(
            OwnServer::postgres_by_tls(&postgres),
            OwnRedis::start_by_tls(&redis, USER, PASSWORD),
            OwnServer::kafka_by_tls(&kafka, USER, PASSWORD),
        );
        Self {
            authority,
            postgres,
            redis,
            kafka,
        }
    }

    fn database(&self, host: &str, password: &str, how: &str) -> String {
        let port = self.postgres.port;
        format!("postgres://stockyard:{password}@{host}:{port}/postgres?{how}")
    }

    /// As it should be.
    fn verified(&self, mode: &str) -> String {
        format!("sslmode={mode}&sslrootcert={}", self.authority.ca.display())
    }

    fn set(&self, config: &mut Config) {
        // An unoptimised client takes its time to prove who it is.
        config.database.acquire_timeout_ms = 20_000;
        let ca = self.authority.ca.display().to_string();
        config.redis.url = format!("rediss://{USER}@localhost:{}", self.redis.port);
        PASSWORD.clone_into(&mut config.redis.password);
        config.redis.ca_certificate.clone_from(&ca);
        config.kafka.bootstrap_servers = format!("localhost:{}", self.kafka.port);
        for (option, value) in [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
        ] {
            let options = &mut config.kafka.options;
            options.insert(option.to_owned(), value.to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_movement_goes_by_tls_from_kafka_to_a_socket() {
    let servers = Servers::start().await;
    let server = servers.database("localhost", "stockyard", &servers.verified("verify-full"));
    let database = TestDatabase::create_on(server, "").await;
    let identity = servers.authority.vouch("service", "localhost");
    let world = World::around(database, |config| {
        servers.set(config);
        shows(config, &identity);
    })
    .await;
    let service = world.start_encrypted(&servers.authority).await;
    let health = service.get("/health").await.body;
    for part in ["database", "redis", "ingest", "follower"] {
        eventually(part, async || {
            (service.get("/health").await.body[part] == "ok").then_some(())
        })
        .await;
    }
    assert_eq!(health["database"], "ok", "{health}");
    let mut client = LiveClient::connect(&service, "").await;
    client.hear("snapshot").await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 8).arrival())
        .await;
    let update = client.hear("update").await;
    assert_eq!(update["data"]["on_hand"], 8, "{update}");
    service.has_on_hand(WAREHOUSE, PRODUCT, 8).await;
    // What is none is refused by a producer of its own.
    world.send("no movement").await;
    world.is_caught_up(2).await;
    // Every connection of the service's is encrypted.
    let plain = world.database.number(
        "select count(*)::bigint from pg_stat_ssl join pg_stat_activity using (pid)
        where not ssl and client_addr is not null",
    );
    assert_eq!(plain.await, 0);
    let listed = world.command_as_configured(&["dlq", "list"]);
    assert!(said(&listed).contains("not_json"), "{}", said(&listed));
    let verified = world.command_as_configured(&["verify"]);
    assert!(
        said(&verified).contains("0 differences"),
        "{}",
        said(&verified)
    );
    service.stop().await;

    refusals_of_postgres(&servers, &world);
    let other = Authority::new();
    tokio::join!(
        refusal_of_kafka(&world, "wrong-password", "Authentication failed", |kafka| {
            let option = "sasl.password".to_owned();
            kafka.options.insert(option, "wrong".to_owned());
        }),
        refusal_of_kafka(
            &world,
            "other-authority",
            "certificate verify failed",
            |kafka| {
                let option = "ssl.ca.location".to_owned();
                kafka.options.insert(option, other.ca.display().to_string());
            }
        ),
        refusal_of_kafka(&world, "other-host", "certificate verify failed", |kafka| {
            kafka.bootstrap_servers = format!("127.0.0.1:{}", servers.kafka.port);
        }),
        refusal_of_kafka(&world, "in-clear", "isconnected", |kafka| kafka
            .options
            .clear()),
    );
    refusals_of_redis(&servers, &world).await;
}

/// Whoever answers is not believed, or does not believe: which is told.
fn refusals_of_postgres(servers: &Servers, world: &World) {
    let name = &world.database.name;
    let other = Authority::new();
    let by_other = format!("sslmode=verify-full&sslrootcert={}", other.ca.display());
    let (full, ca) = (
        servers.verified("verify-full"),
        servers.verified("verify-ca"),
    );
    for (host, password, how, told) in [
        ("localhost", "stockyard", full.as_str(), "0 differences"),
        ("127.0.0.1", "stockyard", &ca, "0 differences"),
        ("127.0.0.1", "stockyard", &full, "not valid for name"),
        ("localhost", "stockyard", &by_other, "UnknownIssuer"),
        (
            "localhost",
            "stockyard",
            "sslmode=verify-full",
            "UnknownIssuer",
        ),
        (
            "localhost",
            "wrong",
            &full,
            "password authentication failed",
        ),
        ("localhost", "stockyard", "sslmode=disable", "no encryption"),
    ] {
        let url = servers.database(host, password, how);
        let url = url.replace("/postgres?", &format!("/{name}?"));
        let output = stockyard(&["verify"], &[("DATABASE_URL", &url)]);
        assert!(said(&output).contains(told), "{url}: {}", said(&output));
        assert_eq!(output.status.success(), told == "0 differences", "{url}");
    }
}

/// A service of its own that is asked in clear, and its log.
struct Logged {
    service: Service,
    _process: Process,
    folder: PathBuf,
}

impl Logged {
    const LOG: &str = "serve.log";

    fn start(world: &World, name: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = std::env::temp_dir().join(crate::support::unique(name));
        std::fs::create_dir(&folder).unwrap();
        let (service, process) = world.start_process(&folder.join(Self::LOG), |config| {
            config.http.tls.certificate.clear();
            config.http.tls.key.clear();
            change(config);
        });
        Self {
            service,
            _process: process,
            folder,
        }
    }

    fn says(&self, what: &str) -> bool {
        let log = std::fs::read_to_string(self.folder.join(Self::LOG));
        log.unwrap().contains(what)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Starts a service with that Kafka: it is never ready, and its log says why.
async fn refusal_of_kafka(world: &World, name: &str, told: &str, change: impl FnOnce(&mut Kafka)) {
    let logged = Logged::start(world, name, |config| change(&mut config.kafka));
    eventually(&format!("{name}: {told}"), async || {
        logged.says(told).then_some(())
    })
    .await;
    let ready = logged.service.get("/readyz").await;
    assert_eq!(ready.status, 503, "{name}: {ready:?}");
}

/// The service works without it, and its log says why.
async fn refusals_of_redis(servers: &Servers, world: &World) {
    let other = Authority::new();
    let port = servers.redis.port;
    for (name, told, url, password, ca) in [
        (
            "fine",
            "",
            "rediss://stockyard@localhost",
            PASSWORD,
            &servers.authority.ca,
        ),
        (
            "wrong-password",
            "Password authentication failed",
            "rediss://stockyard@localhost",
            "wrong",
            &servers.authority.ca,
        ),
        (
            "other-authority",
            "UnknownIssuer",
            "rediss://stockyard@localhost",
            PASSWORD,
            &other.ca,
        ),
        (
            "other-host",
            "not valid for name",
            "rediss://stockyard@127.0.0.1",
            PASSWORD,
            &servers.authority.ca,
        ),
        (
            "in-clear",
            "left aside",
            "redis://stockyard@localhost",
            PASSWORD,
            &PathBuf::new(),
        ),
    ] {
        let logged = Logged::start(world, name, |config| {
            config.redis.url = format!("{url}:{port}");
            password.clone_into(&mut config.redis.password);
            config.redis.ca_certificate = ca.display().to_string();
        });
        logged.service.is_ready().await;
        let wanted = if told.is_empty() { "ok" } else { "degraded" };
        eventually(&format!("{name}: {wanted}"), async || {
            let health = logged.service.get("/health").await.body;
            (health["redis"] == wanted && logged.says(told)).then_some(())
        })
        .await;
    }
}
