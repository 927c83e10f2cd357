//! The commands' exit codes and what they say: what scripts rely on.

use uuid::Uuid;

use crate::support::{
    World,
    messages::Move,
    process::{free_port, said, stockyard},
};

#[tokio::test]
async fn verify_names_what_differs_and_fails() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 4);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 4).await;
    service.stop().await;
    let database = [("DATABASE_URL", world.database.url.as_str())];
    let clean = stockyard(&["verify"], &database);
    assert!(
        clean.status.success() && said(&clean).contains("0 differences"),
        "{}",
        said(&clean)
    );

    world
        .database
        .run("update stock_levels set on_hand = 5")
        .await;
    let spoilt = stockyard(&["verify"], &database);
    assert!(!spoilt.status.success(), "{}", said(&spoilt));
    assert!(
        said(&spoilt).contains(&moved.product.to_string()),
        "{}",
        said(&spoilt)
    );
    world.database.remove().await;
}

#[test]
fn what_cannot_be_is_said_in_a_line_and_fails() {
    type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)], &'c str);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nobody = format!("http://127.0.0.1:{}/readyz", free_port());
    let cases: [Case; 5] = [
        (&["config"], &[("STOCKYARD__INGEST__LANESS", "1")], "laness"),
        (
            &["serve"],
            &[("STOCKYARD__HTTP__LISTEN", taken.as_str())],
            "http.listen",
        ),
        (&["healthcheck", "--url", nobody.as_str()], &[], "readyz"),
        (&["produce", "--poison", "150"], &[], "percentage"),
        (&["verify", "--oracle", "nowhere.json"], &[], "oracle"),
    ];
    for (arguments, environment, expected) in cases {
        let output = stockyard(arguments, environment);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            said(&output).contains(expected),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    assert!(stockyard(&["config"], &[]).status.success());
    assert!(said(&stockyard(&["openapi"], &[])).starts_with('{'));
}
