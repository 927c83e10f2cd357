//! `PostgreSQL` goes away in mid-stream and comes back. For what must hold see `servers_away`.

use std::time::Duration;

use stockyard::store::{Store, StoreError, StoreSettings};
use tokio::time::timeout;

use crate::{
    readers::Reads,
    servers_away::{Goes, Lived, lives_through, ways},
    support::{
        TestDatabase, World, eventually,
        own::OwnServer,
        proxy::{Proxy, Way},
    },
};

/// How often connections fall silent, each time in another step of a read.
const FALLS_SILENT: usize = 8;
/// So that connections are in use when they do.
const READS_BEFORE: usize = 3;
/// By how many turns of the scheduler each time is later than the one before.
const STEPS_A_ROUND: usize = 20;

/// No read holds a connection for ever.
async fn holds_nothing(name: &str, lived: &Lived) {
    eventually(&format!("{name}: no connection is held"), async || {
        let used = r#"warehouse_database_read_connections{state="used"}"#;
        (lived.service.count(used).await == 0).then_some(())
    })
    .await;
}

/// The follower listens, over a connection that answers: one that fell silent still seems to be there.
async fn listens(name: &str, world: &World) {
    let now = world
        .database
        .number("select extract(epoch from now())::bigint")
        .await;
    let since_now = format!(
        "select count(*) from pg_stat_activity where datname = current_database()
        and query ilike 'listen%' and state_change > to_timestamp({now})"
    );
    eventually(&format!("{name}: somebody listens"), async || {
        (world.database.number(&since_now).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_killed_and_frozen() {
    let mut server = OwnServer::postgres().await;
    for (name, goes) in [
        ("PostgreSQL stopped fast", Goes::Asked("INT")),
        ("PostgreSQL stopped at once", Goes::Asked("QUIT")),
        ("PostgreSQL killed", Goes::Killed),
        ("PostgreSQL frozen", Goes::Frozen),
    ] {
        let database = TestDatabase::create_on(server.url(), "").await;
        let world = World::around(database, |_| {}).await;
        let lived = lives_through(name, Reads::Fail, &world, |_| {}, (&mut server, goes)).await;
        holds_nothing(name, &lived).await;
        if goes == Goes::Killed {
            listens(name, &world).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_and_half_open() {
    for (name, way) in ways("PostgreSQL") {
        let world = World::new().await;
        let (proxy, url) = Proxy::in_url(&world.database.url).await.unwrap();
        let change = |config: &mut stockyard::config::Config| config.database.url = url;
        let lived = lives_through(&name, Reads::Fail, &world, change, (&proxy, way)).await;
        holds_nothing(&name, &lived).await;
        if way == Way::Silent {
            listens(&name, &world).await;
        }
        drop((lived, proxy));
        world.database.remove().await;
    }
}

/// A connection that falls silent in whatever step, also when it is just being given back, does not hold its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_place_is_lost_to_a_silent_connection() {
    let database = TestDatabase::create().await;
    let (proxy, url) = Proxy::in_url(&database.url).await.unwrap();
    let store = impatient_store(url);
    for (round, way) in [Way::Silent, Way::Unanswered]
        .repeat(FALLS_SILENT / 2)
        .into_iter()
        .enumerate()
    {
        for _ in 0..READS_BEFORE {
            eventually("an answer", async || reads_all(&store).await.ok()).await;
        }
        let falls_silent = async {
            for _ in 0..round * STEPS_A_ROUND {
                tokio::task::yield_now().await;
            }
            proxy.set(way);
        };
        let _ = tokio::join!(reads_all(&store), falls_silent);
        eventually("no answer", async || reads_all(&store).await.err()).await;
        proxy.set(Way::Open);
    }
    eventually("an answer", async || reads_all(&store).await.ok()).await;
    store.close().await;
    database.remove().await;
}

/// One connection of each kind, for which nobody waits long.
fn impatient_store(url: String) -> Store {
    Store::new(&StoreSettings {
        url,
        password: String::new(),
        role: "stockyard_app".to_owned(),
        read_connections_max: 1,
        scan_connections_max: 1,
        acquire_timeout: Duration::from_millis(600),
        read_timeout: Duration::from_millis(200),
        write_timeout: Duration::from_secs(1),
    })
    .unwrap()
}

/// One read on each kind of connection: for an answer, for the follower, and a transaction that looks through much.
async fn reads_all(store: &Store) -> Result<(), StoreError> {
    let newest = store.in_time(store.newest_commit()).await?;
    let looked = store.commits_from(newest.version, 1);
    store.in_time(looked).await?;
    store.in_time(store.totals(1.0)).await.map(drop)
}

/// The limits that the server keeps are of no use when it cannot be heard.
#[tokio::test]
async fn what_the_ledger_is_asked_has_an_end() {
    let database = TestDatabase::create().await;
    let (proxy, url) = Proxy::in_url(&database.url).await.unwrap();
    let store = impatient_store(url);
    eventually("a connection", async || {
        store.make_ledger_room(i64::MAX).await.ok()
    })
    .await;
    // It is what the next question goes by.
    eventually("an idle connection", async || {
        (store.read_connections() == (1, 1)).then_some(())
    })
    .await;
    proxy.set(Way::Silent);
    let asked = timeout(Duration::from_secs(20), store.make_ledger_room(i64::MAX)).await;
    let error = asked.expect("an end").unwrap_err();
    assert!(matches!(error, StoreError::NoAnswer(_)), "{error}");
    proxy.set(Way::Open);
    eventually("the next one is answered", async || {
        store.make_ledger_room(i64::MAX).await.ok()
    })
    .await;
    store.close().await;
    database.remove().await;
}
