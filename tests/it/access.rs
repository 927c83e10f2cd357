//! Who is let in: keys, tokens and tickets, on every route and every live connection.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{Router, routing::get};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use reqwest::Method;
use serde_json::{Value, json};
use stockyard::{
    access::issue::{self, NewKey},
    app::{self, Listeners, Parts},
    clock::Clock,
    domain::{Timestamp, access::Scope},
};
use tokio::{net::TcpListener, sync::Mutex, time::timeout};
use uuid::Uuid;

use crate::support::{
    Answer, Service, TestDatabase, World,
    browser::Browser,
    deadline, eventually,
    live::{LiveClient, UPGRADE},
    proxy::{Proxy, Way},
};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "stockyard";

/// A world in which everybody has to prove who they are.
async fn world() -> World {
    World::with(|config| {
        config.access.enabled = true;
        config.access.refresh_ms = 100;
    })
    .await
}

/// What a key is to be.
pub(crate) fn wanted(name: &str, scopes: &[Scope], warehouses: &[Uuid]) -> NewKey {
    NewKey {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        warehouses: warehouses.iter().map(Uuid::to_string).collect(),
        expires_at: None,
    }
}

/// Makes a key that is not known to any service yet; as a header's value.
async fn make(world: &World, new: NewKey) -> String {
    let store = app::store_of_owner(&world.config).unwrap();
    let secret = issue::create(&store, &new).await.unwrap();
    store.close().await;
    format!("Bearer {}", secret.reveal())
}

/// Makes a key, and waits until the service knows it.
pub(crate) async fn key(world: &World, service: &Service, new: NewKey) -> String {
    let key = make(world, new).await;
    eventually("the key is known", async || {
        let listed = with(service, &key, Method::GET, "/api/warehouses", None).await;
        [200, 403].contains(&listed.status.as_u16()).then_some(())
    })
    .await;
    key
}

async fn revoke(world: &World, name: &str) {
    let store = app::store_of_owner(&world.config).unwrap();
    issue::revoke(&store, name).await.unwrap();
    store.close().await;
}

pub(crate) async fn with(
    service: &Service,
    credential: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let headers = [("authorization", credential)];
    service.ask(method, path, &headers, body).await
}

/// Stores a product and warehouses without words of their own.
async fn put(service: &Service, admin: &str, product: Uuid, warehouses: &[Uuid]) {
    let paths = warehouses.iter().map(|id| format!("/api/warehouses/{id}"));
    for path in paths.chain([format!("/api/products/{product}")]) {
        let put = with(service, admin, Method::PUT, &path, Some(&json!({}))).await;
        assert_eq!(put.status, 201, "{put:?}");
    }
}

/// An operation of the document.
struct Operation {
    method: Method,
    /// The template.
    path: String,
    /// What it asks for; `None`: nothing.
    scope: Option<Scope>,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Every operation of the document that the service shows.
fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(stockyard::http::document()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| {
            let scope = operation["security"][0]["bearer"][0].as_str();
            Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                scope: scope.map(|scope| Scope::named(scope).unwrap()),
            }
        })
    });
    all.collect()
}

/// The template with ids in it.
fn filled(path: &str, warehouse: Uuid, reservation: Uuid) -> String {
    path.replace("{warehouse_id}", &warehouse.to_string())
        .replace("{reservation_id}", &reservation.to_string())
        .replace("{movement_id}", &Uuid::new_v4().to_string())
        .replace("{product_id}", &Uuid::new_v4().to_string())
        .replace("{id}", "1")
}

/// A body that asks about this warehouse, for operations that tell of warehouses by their bodies.
fn about(operation: &str, warehouse: Uuid, product: Uuid) -> Option<Value> {
    let adjustment =
        json!({"warehouse": warehouse, "product": product, "change": 1, "kind": "restock"});
    Some(match operation {
        "POST /api/adjustments" => adjustment,
        "POST /api/adjustments/bulk" => json!({"atomic": true, "adjustments": [adjustment]}),
        "POST /inventory/adjust" => {
            json!({"product_id": product, "warehouse_id": warehouse, "quantity": 1})
        }
        "POST /api/reservations" => {
            json!({"warehouse": warehouse, "product": product, "quantity": 1})
        }
        "POST /api/stock/query" => json!({"keys": [{"warehouse": warehouse, "product": product}]}),
        _ => return None,
    })
}

/// Of no warehouse's stock: names, and what lets its owner do no more than before.
const OF_NO_WAREHOUSE: [&str; 3] = [
    "GET /api/products",
    "GET /api/warehouses",
    "POST /api/tickets",
];

#[tokio::test]
async fn every_operation_lets_in_who_may_and_nobody_else() {
    let world = world().await;
    let service = world.start().await;
    let admin = key(&world, &service, wanted("admin", &[Scope::Admin], &[])).await;
    let (mine, foreign, product) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    put(&service, &admin, product, &[mine, foreign]).await;
    let reservation = reserved(&service, &admin, foreign, product).await;
    let expired = NewKey {
        expires_at: Some(Timestamp::from_micros(Clock::system().unix_micros() - 1)),
        ..wanted("expired", &[Scope::Admin], &[])
    };
    let expired = make(&world, expired).await;
    // Known to the service by now as well: this one is newer.
    let limited = key(
        &world,
        &service,
        wanted("limited", &Scope::ALL[..3], &[mine]),
    )
    .await;
    let limited_admin = key(
        &world,
        &service,
        wanted("limited admin", &[Scope::Admin], &[mine]),
    )
    .await;
    let mut with_scope = Vec::new();
    for scope in Scope::ALL {
        let new = wanted(&format!("only {scope}"), &[scope], &[]);
        with_scope.push((scope, key(&world, &service, new).await));
    }
    let all = operations();
    assert!(all.len() > 40, "the document is read");
    for operation in &all {
        let name = operation.name();
        let path = filled(&operation.path, foreign, reservation);
        let body = about(&name, foreign, product);
        let ask = async |credential: Option<&str>| {
            let mut headers: Vec<(&str, &str)> = Vec::new();
            headers.extend(credential.map(|credential| ("authorization", credential)));
            if operation.path.starts_with("/ws") {
                headers.extend(UPGRADE);
            }
            let method = operation.method.clone();
            service.ask(method, &path, &headers, body.as_ref()).await
        };
        let Some(scope) = operation.scope else {
            assert!(
                ask(None).await.status.is_success(),
                "{name} is for everybody"
            );
            continue;
        };
        for (credential, what) in [
            (None, "nothing"),
            (Some("Bearer sy_0000"), "an unknown key"),
            (
                Some("Bearer eyJhbGciOiJub25lIn0.e30."),
                "a token, where none are taken",
            ),
            (Some(expired.as_str()), "an expired key"),
        ] {
            let answer = ask(credential).await;
            assert_eq!(answer.status, 401, "{name} with {what}: {answer:?}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
        assert_eq!(ask(Some("Basic YTpi")).await.status, 400, "{name}");
        for (has, key) in &with_scope {
            let answer = ask(Some(key)).await;
            if *has == scope || *has == Scope::Admin {
                assert!(
                    ![401, 403].contains(&answer.status.as_u16()),
                    "{name} with {has}: {answer:?}"
                );
            } else {
                assert_eq!(answer.status, 403, "{name} with {has}");
                assert!(
                    answer
                        .header("www-authenticate")
                        .contains("insufficient_scope")
                );
            }
        }
        // Whose scopes would do, and whose warehouses are others.
        let path_names_it = operation.path.starts_with("/ws") || operation.path == "/events";
        let path = if path_names_it {
            format!("{path}?warehouse={foreign}")
        } else {
            path
        };
        let mut headers = vec![("authorization", limited.as_str())];
        if scope == Scope::Admin {
            headers[0].1 = &limited_admin;
        }
        if operation.path.starts_with("/ws") {
            headers.extend(UPGRADE);
        }
        let answer = service
            .ask(operation.method.clone(), &path, &headers, body.as_ref())
            .await;
        let is_of_none = OF_NO_WAREHOUSE.contains(&name.as_str());
        assert_eq!(
            answer.status == 403,
            !is_of_none,
            "{name} elsewhere: {answer:?}"
        );
    }
    service.stop().await;
    world.database.remove().await;
}

/// Puts a unit more there.
async fn restock(service: &Service, admin: &str, warehouse: Uuid, product: Uuid) {
    let path = "/api/adjustments";
    let body = about("POST /api/adjustments", warehouse, product);
    let stocked = with(service, admin, Method::POST, path, body.as_ref()).await;
    assert_eq!(stocked.status, 201, "{stocked:?}");
}

/// A reservation in that warehouse.
async fn reserved(service: &Service, admin: &str, warehouse: Uuid, product: Uuid) -> Uuid {
    restock(service, admin, warehouse, product).await;
    let body = about("POST /api/reservations", warehouse, product).unwrap();
    let made = with(
        service,
        admin,
        Method::POST,
        "/api/reservations",
        Some(&body),
    )
    .await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn who_is_limited_works_with_their_own_warehouses() {
    let world = world().await;
    let service = world.start().await;
    let admin = key(&world, &service, wanted("admin", &[Scope::Admin], &[])).await;
    let (mine, foreign, product) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    put(&service, &admin, product, &[mine, foreign]).await;
    restock(&service, &admin, foreign, product).await;
    let limited = key(&world, &service, wanted("mine", &Scope::ALL[..3], &[mine])).await;
    let by_me = async |method, path: &str, body: Option<&Value>| {
        with(&service, &limited, method, path, body).await
    };
    for (name, status) in [
        ("POST /api/adjustments", 201),
        ("POST /api/adjustments/bulk", 200),
        ("POST /api/reservations", 201),
        ("POST /api/stock/query", 200),
    ] {
        let body = about(name, mine, product).unwrap();
        let path = name.strip_prefix("POST ").unwrap();
        let answer = by_me(Method::POST, path, Some(&body)).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    let anywhere = json!({"product": product, "quantity": 1});
    let answer = by_me(Method::POST, "/api/reservations", Some(&anywhere)).await;
    assert_eq!(answer.status, 403, "the service would choose");
    let both = json!({"atomic": false, "adjustments": [
        about("POST /api/adjustments", mine, product).unwrap(),
        about("POST /api/adjustments", foreign, product).unwrap(),
    ]});
    let answer = by_me(Method::POST, "/api/adjustments/bulk", Some(&both)).await;
    let statuses = [0, 1].map(|n| answer.body["results"][n]["status"].clone());
    assert_eq!(statuses, [201, 403], "{answer:?}");
    // What is told live is of their own warehouse, sums included.
    let headers = [("authorization", limited.as_str())];
    let mut client = LiveClient::connect_with(&service, "/ws", &headers)
        .await
        .unwrap();
    let snapshot = client.hear("snapshot").await;
    let told = &snapshot["data"][0];
    assert_eq!(
        (&told["total_stock"], &told["warehouses"]),
        (&json!(3), &json!({mine.to_string(): 3}))
    );
    assert_eq!(told["levels"].as_array().unwrap().len(), 1, "{told}");
    restock(&service, &admin, foreign, product).await;
    restock(&service, &admin, mine, product).await;
    let update = client.hear("update").await;
    assert_eq!(
        update["data"]["warehouse_id"],
        json!(mine),
        "nothing of the other before it"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn who_did_it_stands_in_the_ledger_and_their_answers_are_their_own() {
    let world = world().await;
    let service = world.start().await;
    let admin = key(&world, &service, wanted("planner", &[Scope::Admin], &[])).await;
    let shop = key(&world, &service, wanted("shop", &[Scope::Adjust], &[])).await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    put(&service, &admin, product, &[warehouse]).await;
    let body = about("POST /api/adjustments", warehouse, product).unwrap();
    let adjust = async |key: &str, said: Option<&str>| {
        let mut headers = vec![("authorization", key), ("idempotency-key", "one")];
        headers.extend(said.map(|said| ("stock-actor", said)));
        let path = "/api/adjustments";
        service.ask(Method::POST, path, &headers, Some(&body)).await
    };
    let first = adjust(&shop, None).await;
    let other = adjust(&admin, Some("Alice")).await;
    let again = adjust(&shop, None).await;
    assert_eq!(first.body["id"], again.body["id"]);
    assert_ne!(
        first.body["id"], other.body["id"],
        "another's key of the same text"
    );
    let path = format!("/api/warehouses/{warehouse}/products/{product}/history");
    let history = with(&service, &admin, Method::GET, &path, None).await;
    let actors = [0, 1].map(|n| history.body["history"][n]["actor"].clone());
    assert_eq!(actors, ["planner (Alice)", "shop"], "{history:?}");
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_ticket_opens_one_connection_that_ends_with_its_key() {
    let world = world().await;
    let service = world.start().await;
    let reader = key(&world, &service, wanted("page", &[Scope::Read], &[])).await;
    let ticket = async || {
        let given = with(&service, &reader, Method::POST, "/api/tickets", None).await;
        assert_eq!(given.status, 201, "{given:?}");
        assert_eq!(given.header("cache-control"), "no-store");
        given.body["ticket"].as_str().unwrap().to_owned()
    };
    let first = ticket().await;
    let path = format!("/ws?ticket={first}");
    let mut by_ticket = LiveClient::connect_to(&service, &path).await.unwrap();
    by_ticket.hear("snapshot").await;
    let again = service.get_with(&path, &UPGRADE).await;
    assert_eq!(again.status, 401, "a ticket is used once: {again:?}");
    let elsewhere = service
        .get(&format!("/summary?ticket={}", ticket().await))
        .await;
    assert_eq!(elsewhere.status, 401, "a ticket is for live connections");
    let foreign = [
        UPGRADE.as_slice(),
        &[("origin", "https://elsewhere.example")],
    ]
    .concat();
    let path = format!("/ws?ticket={}", ticket().await);
    assert_eq!(service.get_with(&path, &foreign).await.status, 403);

    let headers = [("authorization", reader.as_str())];
    let mut by_key = LiveClient::connect_with(&service, "/ws/inventory", &headers)
        .await
        .unwrap();
    let stream = format!("{}/events?ticket={}", service.base, ticket().await);
    let mut stream = reqwest::get(stream).await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let unused = ticket().await;
    revoke(&world, "page").await;
    is_closed(&mut by_ticket).await;
    is_closed(&mut by_key).await;
    let ends = async { while stream.chunk().await.unwrap().is_some() {} };
    timeout(deadline(), ends).await.expect("the stream ends");
    let late = service
        .get_with(&format!("/ws?ticket={unused}"), &UPGRADE)
        .await;
    assert_eq!(late.status, 401, "its ticket went with it: {late:?}");
    service.stop().await;
    world.database.remove().await;
}

/// Waits until the service says that who listens has to prove anew who they are.
async fn is_closed(client: &mut LiveClient) {
    // Heartbeats go on where it does not.
    let closed = timeout(deadline(), client.closed()).await;
    assert_eq!(closed.expect("it is closed"), Some(4001));
}

/// An identity provider: its key pairs, and the set that it publishes.
struct Issuer {
    published: Arc<Mutex<JwkSet>>,
    address: String,
}

/// A key pair and what it is called.
struct Pair {
    secret: EncodingKey,
    public: Jwk,
    kid: String,
}

impl Pair {
    fn new(kid: &str) -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let secret = EncodingKey::from_ec_der(document.as_ref());
        let mut public = Jwk::from_encoding_key(&secret, Algorithm::ES256).unwrap();
        public.common.key_id = Some(kid.to_owned());
        Self {
            secret,
            public,
            kid: kid.to_owned(),
        }
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::ES256)
        };
        format!("Bearer {}", encode(&header, claims, &self.secret).unwrap())
    }
}

impl Issuer {
    async fn start(first: &Pair) -> Self {
        let published = Arc::new(Mutex::new(JwkSet {
            keys: vec![first.public.clone()],
        }));
        let shown = Arc::clone(&published);
        let keys = get(move || {
            let shown = Arc::clone(&shown);
            async move { serde_json::to_string(&*shown.lock().await).unwrap() }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let discovered =
            json!({"issuer": address, "jwks_uri": format!("{address}/keys")}).to_string();
        let discovery = get(move || {
            let discovered = discovered.clone();
            async move { discovered }
        });
        let routes = Router::new()
            .route("/keys", keys)
            .route("/.well-known/openid-configuration", discovery);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { published, address }
    }
}

fn seconds_from_now(seconds: i64) -> i64 {
    Clock::system().unix_micros() / 1_000_000 + seconds
}

/// What a good token says.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": seconds_from_now(600), "scope": "openid read"})
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// A world that takes tokens with the issuer's keys.
async fn world_of(issuer: &Issuer) -> World {
    World::with(|config| {
        config.access.enabled = true;
        let tokens = &mut config.access.tokens;
        ISSUER.clone_into(&mut tokens.issuer);
        AUDIENCE.clone_into(&mut tokens.audience);
        tokens.keys = format!("{}/keys", issuer.address);
        tokens.leeway_seconds = 0;
        "warehouses".clone_into(&mut tokens.warehouses_claim);
    })
    .await
}

#[tokio::test]
async fn a_token_is_taken_as_its_issuer_signed_it() {
    let pair = Pair::new("one");
    let issuer = Issuer::start(&pair).await;
    let world = world_of(&issuer).await;
    let service = world.start().await;
    let summary = async |token: &str| with(&service, token, Method::GET, "/summary", None).await;
    let mut good = claims();
    good["warehouses"] = json!("*");
    let answer = summary(&pair.token(&good)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        summary(&pair.token(&claims())).await.status,
        403,
        "of no warehouse"
    );
    let other = Pair::new("one");
    let body_of = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let signed = pair.token(&good);
    let unsigned = format!(
        "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
        body_of(&signed)
    );
    // The public key, which everybody has, taken for a secret.
    let public = serde_json::to_vec(&pair.public).unwrap();
    let shared = encode(
        &Header::new(Algorithm::HS256),
        &good,
        &EncodingKey::from_secret(&public),
    );
    let shared = format!("Bearer {}", shared.unwrap());
    let forged = pair.token(&changed("warehouses", json!(["*"])));
    let forged = signed.replace(&body_of(&signed), &body_of(&forged));
    for (token, what, detail) in [
        (
            pair.token(&changed("exp", json!(seconds_from_now(-1)))),
            "expired",
            "expired",
        ),
        (
            pair.token(&changed("nbf", json!(seconds_from_now(600)))),
            "not yet",
            "not good yet",
        ),
        (
            pair.token(&changed("aud", json!("another"))),
            "for another",
            "audience",
        ),
        (
            pair.token(&changed("iss", json!("https://elsewhere.example"))),
            "of another",
            "issuer",
        ),
        (pair.token(&without("exp")), "for good", "lacks"),
        (pair.token(&without("aud")), "for nobody", "lacks"),
        (pair.token(&without("iss")), "of nobody", "lacks"),
        (pair.token(&without("sub")), "nobody's", "lacks"),
        (
            pair.token(&changed("exp", json!("soon"))),
            "with an odd time",
            "lacks",
        ),
        (other.token(&good), "signed by another", "not signed"),
        (forged, "changed", "not signed"),
        (unsigned, "not signed", "no token"),
        (shared, "signed with the public key", "signed in this way"),
        ("Bearer nonsense".to_owned(), "nonsense", "no token"),
    ] {
        let answer = summary(&token).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let told = answer.body["detail"].as_str().unwrap();
        assert!(told.contains(detail), "{what}: {told}");
    }
    let unscoped = pair.token(&changed("scope", json!(["openid", "profile"])));
    let answer = summary(&unscoped).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn an_issuer_may_change_its_keys_and_a_connection_ends_with_its_token() {
    let (first, second) = (Pair::new("first"), Pair::new("second"));
    let issuer = Issuer::start(&first).await;
    let mut world = world_of(&issuer).await;
    // Found by the issuer's own document.
    world
        .config
        .access
        .tokens
        .issuer
        .clone_from(&issuer.address);
    world.config.access.tokens.keys = String::new();
    let service = world.start().await;
    let good = |seconds: i64| {
        let mut claims = changed("iss", json!(issuer.address));
        claims["warehouses"] = json!("*");
        claims["exp"] = json!(seconds_from_now(seconds));
        claims
    };
    let summary = async |token: &str| with(&service, token, Method::GET, "/summary", None).await;
    assert_eq!(summary(&first.token(&good(600))).await.status, 200);
    // It has another one now, and the first is no more.
    issuer.published.lock().await.keys = vec![second.public.clone()];
    let new = second.token(&good(601));
    eventually("the new key is found", async || {
        (summary(&new).await.status == 200).then_some(())
    })
    .await;
    let old = summary(&first.token(&good(602))).await;
    assert_eq!(old.status, 401, "{old:?}");

    let short = second.token(&good(15));
    let headers = [("authorization", short.as_str())];
    let mut client = LiveClient::connect_with(&service, "/ws", &headers)
        .await
        .unwrap();
    client.hear("snapshot").await;
    is_closed(&mut client).await;
    assert_eq!(summary(&short).await.status, 401);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn keys_stay_good_while_the_database_is_away() {
    let database = TestDatabase::create().await;
    let (proxy, url) = Proxy::in_url(&database.url).await.unwrap();
    let world = World::around(database, |config| {
        config.access.enabled = true;
        config.access.refresh_ms = 100;
        config.database.url = url;
    })
    .await;
    let service = world.start().await;
    let reader = key(&world, &service, wanted("reader", &[Scope::Read], &[])).await;
    proxy.set(Way::Cut);
    let answer = eventually("the database is away", async || {
        let answer = with(&service, &reader, Method::GET, "/orders/recent", None).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(answer.header("www-authenticate").is_empty());
    // Several looks for keys later they are those that were known.
    for _ in 0..5 {
        let ask = with(&service, &reader, Method::GET, "/orders/recent", None);
        assert_eq!(ask.await.status, 503);
    }
    let unknown = with(
        &service,
        "Bearer sy_0000",
        Method::GET,
        "/orders/recent",
        None,
    )
    .await;
    assert_eq!(unknown.status, 401);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_dashboard_asks_for_a_key_and_works_with_it() {
    let world = world().await;
    let service = world.start().await;
    let admin = key(&world, &service, wanted("admin", &[Scope::Admin], &[])).await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    put(&service, &admin, product, &[warehouse]).await;
    restock(&service, &admin, warehouse, product).await;
    let reader = key(&world, &service, wanted("page", &[Scope::Read], &[])).await;

    let mut page = Browser::start(1440, 900).await;
    page.open(&service.base).await;
    page.sees("document.querySelector('#access').open").await;
    page.sees("document.querySelector('#access-problem').hidden")
        .await;
    enter(&mut page, "sy_0000").await;
    page.sees("document.querySelector('#access-problem').textContent.includes('no such key')")
        .await;
    enter(&mut page, reader.strip_prefix("Bearer ").unwrap()).await;
    page.sees("document.documentElement.dataset.state === 'live'")
        .await;
    page.sees("document.querySelector('#count').dataset.count === '1'")
        .await;
    page.sees("!document.querySelector('#access').open").await;
    revoke(&world, "page").await;
    page.sees("document.querySelector('#access').open").await;
    service.stop().await;
    world.database.remove().await;
}

async fn enter(page: &mut Browser, key: &str) {
    page.fill("#access-key", key).await;
    page.ask("document.querySelector('#access-enter').click()")
        .await;
}

#[tokio::test]
async fn administration_may_have_a_door_of_its_own() {
    let world = world().await;
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = Listeners {
        open: vec![bind().await],
        admin: vec![bind().await],
    };
    let inside = format!("http://{}", listeners.admin[0].local_addr().unwrap());
    let parts = Parts {
        answers: true,
        ingests: true,
    };
    let service = world.start_with(listeners, parts);
    service.is_ready().await;
    let inside = Service::at(&inside);
    let admin = key(&world, &service, wanted("admin", &[Scope::Admin], &[])).await;
    for operation in operations() {
        let name = operation.name();
        let path = filled(&operation.path, Uuid::new_v4(), Uuid::new_v4());
        let headers = [("authorization", admin.as_str())];
        let outside = service
            .ask(operation.method.clone(), &path, &headers, None)
            .await;
        let is_hidden = outside.body["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("nothing at"));
        assert_eq!(
            is_hidden,
            operation.scope == Some(Scope::Admin),
            "{name}: {outside:?}"
        );
        let without = inside.ask(operation.method.clone(), &path, &[], None).await;
        let is_open = operation.scope.is_none() || operation.path == "/metrics";
        assert!(
            !is_open || without.status == 200,
            "{name} inside: {without:?}"
        );
        assert_eq!(without.status != 401, is_open, "{name} inside: {without:?}");
    }
    inside.stop().await;
    service.stop().await;
    world.database.remove().await;
}
