//! The two query APIs beyond their numbers: what a client may rely on.

use serde_json::json;
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move};

#[tokio::test]
async fn ids_may_be_written_in_any_form_or_be_names() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 7);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 7).await;
    world
        .database
        .run(&format!(
            "update warehouses set code = 'NORTH' where warehouse_id = '{}';
            update products set sku = 'W-1' where product_id = '{}'",
            moved.warehouse, moved.product
        ))
        .await;
    let warehouse = moved.warehouse.simple().to_string().to_uppercase();
    for (warehouse, product) in [
        (
            warehouse.as_str(),
            moved.product.braced().to_string().as_str(),
        ),
        ("NORTH", "W-1"),
        ("NORTH", moved.product.urn().to_string().as_str()),
    ] {
        let answer = service.stock(warehouse, product).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["on_hand"]),
            (200, &json!(7)),
            "{warehouse} {product}"
        );
    }
    assert_eq!(service.movement(moved.movement.simple()).await.status, 200);

    let nobody = service.stock(Uuid::new_v4(), moved.product).await;
    assert_eq!(
        (
            nobody.status.as_u16(),
            &nobody.body["revision"],
            &nobody.body["updated_at"]
        ),
        (200, &json!(0), &json!(null))
    );
    let nil = service.stock(Uuid::nil(), Uuid::nil()).await;
    assert_eq!(
        (nil.status.as_u16(), &nil.body["quantity"]),
        (200, &json!(0))
    );
    assert_eq!(service.movement(Uuid::nil()).await.status, 404);
    for (path, detail) in [
        (
            "/api/warehouses/SOUTH/products/W-1",
            "Invalid warehouse or product ID",
        ),
        (
            "/api/warehouses/NORTH/products/W-2",
            "Invalid warehouse or product ID",
        ),
        (
            "/api/warehouses/NORTH/products/%00",
            "Invalid warehouse or product ID",
        ),
        ("/api/movements/NORTH", "Invalid movement ID"),
    ] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["detail"]),
            (400, &json!(detail)),
            "{path}"
        );
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn several_products_are_lines_of_one_movement() {
    let world = World::new().await;
    let service = world.start().await;
    let movement = Uuid::new_v4();
    let [one, other] = [5, 9].map(|units| Move {
        movement,
        ..Move::new(Uuid::new_v4(), Uuid::new_v4(), units)
    });
    world.send(&one.departure()).await;
    world.send(&other.departure()).await;
    let body = eventually("both lines", async || {
        let body = service.movement(movement).await.body;
        (body["lines"].as_array().map(Vec::len) == Some(2)).then_some(body)
    })
    .await;
    assert_eq!(
        (&body["quantity_diff"], &body["status"]),
        (&json!(14), &json!("in_transit"))
    );
    assert_eq!(
        (&body["product_id"], &body["warehouse_id_from"]),
        (&json!(Uuid::nil()), &json!(Uuid::nil()))
    );
    assert_eq!(
        (&body["departure"], &body["arrival"]),
        (&json!(null), &json!(null))
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_client_that_has_the_answer_is_told_so() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 7);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 7).await;
    let path = format!(
        "/api/warehouses/{}/products/{}",
        moved.warehouse, moved.product
    );
    let hit = eventually("a hit", async || {
        let answer = service.get(&path).await;
        answer
            .header("cache-status")
            .starts_with("stockyard; hit")
            .then_some(answer)
    })
    .await;
    let etag = hit.header("etag").to_owned();
    let known = service
        .get_with(&path, &[("if-none-match", &format!("\"x\", W/{etag}"))])
        .await;
    assert_eq!(
        (known.status.as_u16(), known.header("etag")),
        (304, etag.as_str())
    );
    assert!(!known.header("stock-version").is_empty());

    world.send(&moved.departure()).await;
    service.has_on_hand(moved.warehouse, moved.product, 0).await;
    let changed = service.get_with(&path, &[("if-none-match", &etag)]).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), etag);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn an_answer_covers_the_version_that_is_wanted() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 7);
    world.send(&moved.arrival()).await;
    let answer = service.has_on_hand(moved.warehouse, moved.product, 7).await;
    let version = answer.header("stock-version").to_owned();
    let (number, tag) = version.split_once('-').unwrap();
    let path = format!("/api/movements/{}", moved.movement);
    let wanting = async |wanted: &str| {
        service
            .get_with(&path, &[("stock-min-version", wanted)])
            .await
    };

    for wanted in [number, version.as_str()] {
        assert_eq!(wanting(wanted).await.status, 200, "{wanted}");
    }
    let ahead = format!("{}", number.parse::<i64>().unwrap() + 1);
    for wanted in [ahead.clone(), format!("{ahead}-{tag}")] {
        let answer = wanting(&wanted).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "1"),
            "{wanted}"
        );
    }
    assert_eq!(wanting(&format!("{number}-00000000")).await.status, 410);
    for nonsense in ["", "x", "-1", "1-2", "1.5"] {
        assert_eq!(wanting(nonsense).await.status, 400, "{nonsense}");
    }

    // One that is under way is waited for.
    let departure = moved.departure();
    let (next, ()) = tokio::join!(wanting(&ahead), world.send(&departure));
    assert_eq!(next.status, 200);
    assert_eq!(next.body["departure"]["quantity"], 7);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_code_from_a_source_is_given_once_and_fails_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    let with_source = |moved: &Move, source: &str| {
        let mut message: serde_json::Value = serde_json::from_str(&moved.arrival()).unwrap();
        message["source"] = json!(source);
        message.to_string()
    };
    let [first, second] = [1, 2].map(|units| Move::new(Uuid::new_v4(), Uuid::new_v4(), units));
    world.send(&with_source(&first, "WH-1")).await;
    service.has_on_hand("WH-1", first.product, 1).await;
    // The code is taken: the fact counts, the code does not.
    world.send(&with_source(&second, "WH-1")).await;
    service
        .has_on_hand(second.warehouse, second.product, 2)
        .await;
    assert_eq!(
        service.stock("WH-1", second.product).await.body["on_hand"],
        0
    );
    // A duplicate brings a warehouse its code as well.
    world.send(&with_source(&second, "WH-2")).await;
    eventually("the code", async || {
        let answer = service.stock("WH-2", second.product).await;
        (answer.body["on_hand"] == 2).then_some(())
    })
    .await;
    // What has a code keeps it.
    world.send(&with_source(&second, "WH-3")).await;
    world.is_caught_up(4).await;
    assert_eq!(service.stock("WH-3", second.product).await.status, 400);
    service.stop().await;
    world.database.remove().await;
}
