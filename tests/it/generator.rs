//! What `produce` publishes is what `verify` finds.

use stockyard::{
    clock::Clock,
    produce::{Oracle, plan::PlanOptions},
};

use crate::support::{World, eventually, is_long, stream::mixed, unique};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_what_the_tables_hold() {
    let world = World::with(|config| config.ingest.max_batch_events = 1_000).await;
    let service = world.start().await;
    let options = PlanOptions {
        warehouses: 50,
        products: 2_000,
        ..mixed(if is_long() { 1_000_000 } else { 30_000 }, 42)
    };
    let began = Clock::system();
    let produced = world.publish(&options, 0, &[]).await.unwrap();
    world
        .is_caught_up(i64::try_from(options.count).unwrap())
        .await;
    eprintln!(
        "{} messages published and taken in {:?}",
        options.count,
        began.elapsed()
    );

    // Through its file, as the commands do it.
    let path = std::env::temp_dir().join(unique("oracle"));
    stockyard::produce::write_oracle(&produced.oracle, &path).unwrap();
    let oracle = Oracle::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let totals = oracle.totals().clone();
    let (compared, found) = world.compare(Some(&oracle)).await;
    assert_eq!(found, [""; 0]);
    assert_eq!(compared.sides, totals.facts);

    let topic = &world.config.kafka.topic;
    for (status, expected) in [("ok", totals.facts), ("duplicate", totals.duplicates)] {
        let series = format!(
            r#"warehouse_kafka_consumer_messages_processed_total{{status="{status}",topic="{topic}"}}"#
        );
        eventually(&format!("{expected} {status}"), async || {
            (service.count(&series).await == expected).then_some(())
        })
        .await;
    }
    for (reason, expected) in &totals.dead_letters {
        let series = format!(r#"warehouse_ingest_dead_letters_total{{reason="{reason}"}}"#);
        eventually(&format!("{expected} {reason}"), async || {
            (service.count(&series).await == *expected).then_some(())
        })
        .await;
    }

    // What is wrong afterwards is named: a level, a line, a line too many.
    world
        .database
        .run(
            "update stock_levels set on_hand = on_hand + 1 where inventory_id = (select min(inventory_id) from stock_levels);
            update movements set departure_quantity = departure_quantity + 1
            where (movement_id, product_id) = (select movement_id, product_id from movements
                where departure_quantity is not null order by 1 limit 1);
            insert into movements (movement_id, product_id, departure_at, departure_quantity, departure_warehouse_id, sides_set_last)
            values (gen_random_uuid(), gen_random_uuid(), now(), 1, gen_random_uuid(), 1)",
        )
        .await;
    let (compared, found) = world.compare(Some(&oracle)).await;
    let said = |text: &str| {
        found
            .iter()
            .filter(|line| line.starts_with(text) || line.contains(text))
            .count()
    };
    assert_eq!(said("level is not the sum of its ledger"), 1, "{found:#?}");
    assert_eq!(said("level is not as expected"), 1, "{found:#?}");
    assert_eq!(said("ledger row that nothing confirms"), 1, "{found:#?}");
    assert_eq!(said("side without a ledger row"), 1, "{found:#?}");
    assert_eq!(
        found
            .iter()
            .filter(|line| line.starts_with("movement "))
            .count(),
        2,
        "{found:#?}"
    );
    assert_eq!(compared.differences, found.len() as u64);
    service.stop().await;
    world.database.remove().await;
}
