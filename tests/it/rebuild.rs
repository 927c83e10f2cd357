//! Levels and movements made anew from the ledger while the service goes on: nobody notices, unless something was not so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};
use stockyard::{
    app::Parts,
    clock::Clock,
    inventory::{
        difference::Difference,
        rebuild::{RebuildError, Rebuilt, rebuild},
    },
};
use tokio::{task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::support::{
    Service, World, deadline, eventually,
    live::LiveClient,
    messages::Move,
    process::{Process, said},
    stream::{mixed, seed},
};

const API_ONLY: Parts = Parts {
    answers: true,
    ingests: false,
};

/// All that the catalogue says of the two tables, by names.
const CATALOGUE: &str = "
    with tables as (
        select oid, relname from pg_class where oid in ('movements'::regclass, 'stock_levels'::regclass)
    ), indexes as (
        select i.*, t.relname as of_table from pg_index i join tables t on t.oid = i.indrelid
    )
    select format('%s %s', c.relname, concat_ws(' ', c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity, c.reltablespace,
        c.relowner::regrole, c.reloptions, obj_description(c.oid), (select array_agg(a::text order by a::text) from unnest(c.relacl) a)))
    from pg_class c where c.oid in (select oid from tables) or c.oid in (select indexrelid from indexes)
    union all
    select format('%s.%s %s', t.relname, a.attname, concat_ws(' ', row_number() over (partition by t.oid order by a.attnum),
        format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attcompression, a.attidentity, a.attgenerated, a.attacl,
        pg_get_expr(d.adbin, d.adrelid)))
    from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
    union all
    select format('%s %s', of_table, concat_ws(' ', pg_get_indexdef(indexrelid), indisprimary, indisvalid, indisready, indisreplident))
    from indexes
    union all
    select format('%s %s', t.relname, concat_ws(' ', k.conname, k.contype, k.convalidated, pg_get_constraintdef(k.oid)))
    from tables t join pg_constraint k on k.conrelid = t.oid
    union all
    select format('%s sequence %s', t.relname, d.objid::regclass)
    from tables t join pg_depend d on d.refobjid = t.oid and d.deptype = 'a' and d.classid = 'pg_class'::regclass
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    union all
    select format('table %s', relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
    order by 1";

/// All that stands in them.
const ROWS: &str = "
    select 'level ' || l::text as row from stock_levels l union all select 'line ' || m::text from movements m order by 1";

impl World {
    async fn texts(&self, sql: &str) -> Vec<String> {
        let mut connection = self.database.connect().await;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn rebuild(&self, is_dry: bool) -> (Rebuilt, Vec<String>) {
        let mut found = Vec::new();
        let store = self.database.store("");
        let mut tell = |difference: &Difference| found.push(difference.to_string());
        let rebuilt = rebuild(&store, &Clock::system(), is_dry, &mut tell)
            .await
            .unwrap();
        (rebuilt, found)
    }

    /// Starts the command in a process to which something happens at named points.
    fn rebuild_at(&self, points: &str) -> Process {
        Process::start(self.command(&["rebuild"]).env("FAILPOINTS", points))
    }

    /// A movement of which the departure was wrong, taken back and corrected; one that was taken back altogether; and one that is
    /// as it was.
    async fn with_voids(&self, service: &Service) -> [Move; 3] {
        let moves = [5, 6, 7].map(|units| Move::new(Uuid::new_v4(), Uuid::new_v4(), units));
        for moved in &moves {
            self.send(&moved.departure()).await;
            let (warehouse, product) = (moved.warehouse, moved.product);
            service.has_on_hand(warehouse, product, -moved.units).await;
        }
        for moved in &moves[..2] {
            let path = format!("/api/movements/{}/void", moved.movement);
            let because = json!({"side": "departure", "reason": "counted twice"});
            let voided = service.send(Method::POST, &path, &because).await;
            assert_eq!(voided.status, 200);
        }
        let right = Move {
            units: 4,
            ..moves[0]
        };
        self.send(&right.departure()).await;
        service
            .has_on_hand(right.warehouse, right.product, -4)
            .await;
        [right, moves[1], moves[2]]
    }
}

#[tokio::test]
async fn what_is_made_anew_is_what_was_there_to_the_last_name() {
    let world = World::new().await;
    let service = world.start().await;
    world.with_voids(&service).await;
    let (catalogue, rows) = (world.texts(CATALOGUE).await, world.texts(ROWS).await);
    assert_eq!(rows.len(), 6);
    assert!(
        catalogue.iter().any(|line| line.contains("movements_open")),
        "{catalogue:#?}"
    );
    for _ in 0..2 {
        let (rebuilt, found) = world.rebuild(false).await;
        assert_eq!((rebuilt.differences(), found.len()), (0, 0), "{found:#?}");
        assert_eq!(rebuilt.version, world.newest_version().await);
        assert_eq!(world.texts(CATALOGUE).await, catalogue);
        assert_eq!(world.texts(ROWS).await, rows);
    }
    // A number that was never given comes next.
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 1);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 1).await;
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    let said = said(&world.stockyard(&["rebuild"]));
    assert!(said.contains("0 levels and 0 lines differed"), "{said}");
    assert_eq!(world.texts(CATALOGUE).await, catalogue);
    world.database.remove().await;
}

/// Asks for what stands in some place again and again, until told to stop; how often it was answered.
fn read_on(service: &Service, stop: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let (base, stop) = (service.base.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let service = Service::at(&base);
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            for path in [
                format!("/api/movements/{}", Uuid::new_v4()),
                format!(
                    "/api/warehouses/{}/products/{}",
                    Uuid::new_v4(),
                    Uuid::new_v4()
                ),
                "/api/movements?status=in_transit&limit=5".to_owned(),
                "/inventory?limit=5".to_owned(),
                "/summary".to_owned(),
            ] {
                let answer = service.get(&path).await;
                let status = answer.status.as_u16();
                assert!([200, 404].contains(&status), "{path}: {answer:?}");
                asked += 1;
            }
        }
        asked
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_where_nothing_differs() {
    const MESSAGES: u64 = 12_000;
    let seed = seed();
    eprintln!("STOCKYARD_TEST_SEED={seed}");
    let world = World::new().await;
    let service = world.start().await;
    let mut client = LiveClient::connect(&service, "").await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3).map(|_| read_on(&service, &stop)).collect();
    let produced = world.publish(&mixed(MESSAGES, seed), 1_000, &[]);
    eventually("the stream flows", async || {
        (world.taken().await >= 1_000).then_some(())
    })
    .await;
    let mut versions = Vec::new();
    for _ in 0..2 {
        let before = world.newest_version().await;
        let (rebuilt, found) = world.rebuild(false).await;
        assert_eq!(rebuilt.differences(), 0, "{found:#?}");
        assert!(rebuilt.version >= before);
        versions.push(rebuilt.version);
        let taken = world.taken().await;
        eventually("the stream flows on", async || {
            (world.taken().await > taken).then_some(())
        })
        .await;
    }
    assert!(
        versions[0] < versions[1] && versions[1] < world.newest_version().await,
        "it is made anew in mid-stream"
    );
    let oracle = produced.await.unwrap().oracle;
    world.is_caught_up(i64::try_from(MESSAGES).unwrap()).await;
    let newest = world.newest_version().await;
    client.reach(newest).await;
    assert_eq!(client.picture.resyncs, 0);
    assert_eq!(client.picture.model, world.model_at(newest).await);
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    service.stop().await;
    world.holds(&oracle, "after two rebuilds").await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_was_not_so_is_repaired_and_everybody_begins_anew() {
    let mut world = World::new().await;
    let service = world.start().await;
    let [spoilt, gone, lost] = world.with_voids(&service).await;
    service.stop().await;
    // What was cached so far is forgotten.
    world.config.redis.prefix.push_str("after:");
    let right = world.texts(ROWS).await;
    let version = world.newest_version().await;
    world
        .database
        .run(&format!(
            "update stock_levels set on_hand = on_hand + 1 where product_id = '{0}';
            update movements set departure_quantity = 9 where movement_id = '{1}';
            update movements set sides_voided = 2 where movement_id = '{2}';
            delete from movements where movement_id = '{3}';
            insert into movements (movement_id, product_id, arrival_at, arrival_quantity, arrival_warehouse_id, sides_set_last)
            values ('{4}', '{4}', now(), 1, '{4}', 2);
            insert into stock_levels (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
            values ('{4}', '{4}', 1, 0, 1, now())",
            lost.product,
            spoilt.movement,
            gone.movement,
            lost.movement,
            Uuid::new_v4()
        ))
        .await;
    let planted = world.texts(ROWS).await;
    let service = world.start().await;
    let other = world.start_parts(API_ONLY).await;
    other.is_ready().await;
    // What is wrong is what everybody is told, from every cache.
    let mut clients = Vec::new();
    for service in [&service, &other] {
        service.has_on_hand(lost.warehouse, lost.product, -6).await;
        assert_eq!(service.movement(lost.movement).await.status, 404);
        let shown = service.movement(spoilt.movement).await;
        assert_eq!(shown.body["departure"]["quantity"], 9);
        let mut client = LiveClient::connect(service, "").await;
        client.reach(version).await;
        clients.push(client);
    }

    let (rebuilt, found) = world.rebuild(true).await;
    assert_eq!((rebuilt.levels, rebuilt.lines), (2, 4), "{found:#?}");
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(
        world.texts(ROWS).await,
        planted,
        "a dry one changes nothing"
    );
    let (rebuilt, again) = world.rebuild(false).await;
    assert_eq!((rebuilt.levels, rebuilt.lines), (2, 4), "{again:#?}");
    assert_eq!(again, found);
    assert_eq!(world.texts(ROWS).await, right);
    assert_eq!(world.newest_version().await, version, "versions stay");
    for (service, client) in [&service, &other].into_iter().zip(&mut clients) {
        let heard = timeout(deadline(), client.hear("resync")).await;
        heard.expect("a resync");
        client.hear("snapshot").await;
        client.reach(version).await;
        assert_eq!(client.picture.model, world.model_at(version).await);
        service.has_on_hand(lost.warehouse, lost.product, -7).await;
        let shown = service.movement(spoilt.movement).await;
        assert_eq!(shown.body["departure"]["quantity"], 4);
        assert_eq!(service.movement(lost.movement).await.status, 200);
    }
    let (rebuilt, found) = world.rebuild(false).await;
    assert_eq!(rebuilt.differences(), 0, "{found:#?}");
    assert_eq!(world.differences().await, [""; 0]);
    let moved = Move::new(lost.warehouse, lost.product, 8);
    world.send(&moved.arrival()).await;
    for (service, client) in [&service, &other].into_iter().zip(&mut clients) {
        service.has_on_hand(moved.warehouse, moved.product, 1).await;
        let update = client.hear("update").await;
        assert_eq!(update["data"]["change"], 1, "{update}");
        assert_eq!(client.picture.resyncs, 1);
    }
    other.stop().await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_the_ledger_cannot_say_is_left_alone() {
    let world = World::new().await;
    let service = world.start().await;
    let [_, _, lost] = world.with_voids(&service).await;
    service.stop().await;
    let product = lost.product;
    world
        .database
        .run(&format!(
            "delete from stock_levels where product_id = '{product}'"
        ))
        .await;
    let before = world.texts(ROWS).await;
    let tables = world.texts(CATALOGUE).await;
    let store = world.database.store("");
    let refused = rebuild(&store, &Clock::system(), false, &mut |_| {})
        .await
        .unwrap_err();
    assert!(matches!(refused, RebuildError::LevelsLost(_)), "{refused}");
    assert_eq!(world.texts(ROWS).await, before);
    assert_eq!(
        world.texts(CATALOGUE).await,
        tables,
        "nothing is left behind"
    );
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_or_stops_at_any_step_leaves_what_was_there() {
    let world = World::new().await;
    let service = world.start().await;
    world.with_voids(&service).await;
    let catalogue = world.texts(CATALOGUE).await;
    for point in ["rebuild_filled", "rebuild_locked", "rebuild_swapped"] {
        let rows = world.texts(ROWS).await;
        let mut dies = world.rebuild_at(&format!("{point}=return"));
        dies.ended().await;
        assert!(dies.was_aborted(), "it died at {point}, and not otherwise");
        let left = world.texts(CATALOGUE).await.len() - catalogue.len();
        assert_eq!(left, 2, "what it made is there and not used");
        assert_eq!(world.texts(ROWS).await, rows);
        let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 1);
        world.send(&moved.arrival()).await;
        service.has_on_hand(moved.warehouse, moved.product, 1).await;
        world
            .send(
                &Move {
                    movement: Uuid::new_v4(),
                    ..moved
                }
                .departure(),
            )
            .await;
        service.has_on_hand(moved.warehouse, moved.product, 0).await;

        // One that stands still holds nobody up for long, and no other begins meanwhile.
        let stands = world.rebuild_at(&format!("{point}=pause"));
        let waits = "select count(*) from pg_locks where locktype = 'advisory' and database =
            (select oid from pg_database where datname = current_database()) and objid::bigint = hashtext('stock_rebuild')::bigint::bit(32)::bigint";
        eventually("it is at work", async || {
            (world.database.number(waits).await == 1).then_some(())
        })
        .await;
        let store = world.database.store("");
        let refused = rebuild(&store, &Clock::system(), false, &mut |_| {}).await;
        assert!(
            matches!(refused, Err(RebuildError::NotAlone)),
            "{refused:?}"
        );
        let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 1);
        world.send(&moved.arrival()).await;
        service.has_on_hand(moved.warehouse, moved.product, 1).await;
        drop(stands);
        eventually("it is over", async || {
            (world.database.number(waits).await == 0).then_some(())
        })
        .await;
        let now = world.texts(ROWS).await;
        let (rebuilt, found) = world.rebuild(false).await;
        assert_eq!(rebuilt.differences(), 0, "{found:#?}");
        assert_eq!(world.texts(CATALOGUE).await, catalogue);
        assert_eq!(world.texts(ROWS).await, now);
    }
    service.stop().await;
    world.database.remove().await;
}

/// Readers of several statements that come at the moment of the swap see what is there, and not the new tables as they were before
/// it: what such a reader sees is of one moment, and it waits for its tables before that moment is chosen.
#[tokio::test]
async fn who_comes_at_the_moment_of_the_swap_sees_what_is_there() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 3);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 3).await;
    let entry = json!({"name": "Widget A", "reorder_point": 2});
    service
        .put(&format!("/api/products/{}", moved.product), entry)
        .await;
    service.stop().await;
    let inventory = world.inventory();
    let mut swaps = world.database.connect().await;
    sqlx::raw_sql(
        "begin;
        lock table stock_levels, movements in access exclusive mode;
        create table made (like stock_levels including all);
        insert into made select * from stock_levels;
        alter sequence stock_inventory_ids owned by made.inventory_id;
        drop table stock_levels;
        alter table made rename to stock_levels;
        grant select, insert, update on stock_levels to stockyard_app",
    )
    .execute(&mut swaps)
    .await
    .unwrap();
    let store = inventory.store();
    let (totals, beginning, ()) = tokio::join!(store.totals(1.0), store.beginning(), async {
        let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait", async || {
            (world.database.number(waits).await == 2).then_some(())
        })
        .await;
        sqlx::raw_sql("commit").execute(&mut swaps).await.unwrap();
    });
    assert_eq!(totals.unwrap().value.units, 3);
    let available: Vec<i64> = beginning.unwrap().available.iter().map(|a| a.1).collect();
    assert_eq!(available, [3]);
    inventory.store().close().await;
    world.database.remove().await;
}
