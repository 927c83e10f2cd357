//! The demonstration's catalogue, and the clients that were written for others' services: what they ask works here.

use reqwest::StatusCode;
use serde_json::json;
use stockyard::{app, demo::Loaded};

use crate::support::{World, browser::Browser, live::LiveClient};

#[tokio::test]
async fn the_examples_work_on_the_demonstration() {
    let world = World::new().await;
    let loaded = app::seed_demo(&world.config).await.unwrap();
    assert_eq!((loaded.entries, loaded.levels), (9, 7));
    let again = app::seed_demo(&world.config).await.unwrap();
    assert_eq!(again, Loaded::default(), "again, nothing changes");
    let service = world.start().await;

    // The flat dialect: numbers as ids.
    let mut flat = LiveClient::connect_to(&service, "/ws/inventory")
        .await
        .unwrap();
    let adjust = json!({"product_id": 1, "warehouse_id": 1, "quantity": -5, "reason": "Sale"});
    let adjusted = service.post("/inventory/adjust", &adjust).await;
    assert_eq!(adjusted.status, StatusCode::OK, "{adjusted:?}");
    assert_eq!(adjusted.body["status"], "success");
    let data = &adjusted.body["data"];
    assert_eq!(
        (
            &data["product_id"],
            &data["warehouse_id"],
            &data["quantity"],
            &data["min_stock"]
        ),
        (&json!(1), &json!(1), &json!(95), &json!(10))
    );
    let update = flat.hear("inventory_update").await;
    assert_eq!(update["action"], "adjusted");
    assert_eq!(update["inventory_id"], data["inventory_id"]);
    let below = json!({"product_id": "1", "warehouse_id": "1", "quantity": -96, "reason": "Sale"});
    assert_eq!(
        service.post("/inventory/adjust", &below).await.status,
        StatusCode::CONFLICT
    );
    let low = json!({"product_id": 45, "warehouse_id": 2, "quantity": -142, "reason": "Sale"});
    service.post("/inventory/adjust", &low).await;
    let alert = flat.hear("low_stock_alert").await;
    assert_eq!(
        (
            &alert["product_id"],
            &alert["current_quantity"],
            &alert["product_name"]
        ),
        (&json!(45), &json!(8), &json!("Widget A"))
    );

    // The inventory API.
    let all = service.get("/inventory").await;
    assert_eq!(all.body["total"], 5);
    let sunglasses = service.get("/inventory/OLJCESPC7Z").await;
    assert_eq!(
        sunglasses.body["warehouses"],
        json!({"US-WEST": 150, "US-EAST": 200})
    );
    let sale = json!({"warehouse": "US-WEST", "change": -5, "update_type": "sale"});
    let sold = service.post("/inventory/OLJCESPC7Z/update", &sale).await;
    assert_eq!(sold.status, StatusCode::OK, "{sold:?}");
    assert_eq!(sold.body["warehouses"]["US-WEST"], 145);
    assert_eq!(sold.body, service.get("/inventory/OLJCESPC7Z").await.body);
    let reserved = service
        .post("/inventory/OLJCESPC7Z/reserve", &json!({"quantity": 2}))
        .await;
    assert_eq!(reserved.status, StatusCode::OK, "{reserved:?}");
    assert_eq!(reserved.body["success"], true);
    assert_eq!(reserved.body["available_stock"], 343);
    let refused = service
        .post("/inventory/OLJCESPC7Z/reserve", &json!({"quantity": 344}))
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        (&refused.body["success"], &refused.body["error"]),
        (&json!(false), &json!("Insufficient stock"))
    );
    let invalid = service
        .post("/inventory/OLJCESPC7Z/reserve", &json!({"quantity": "two"}))
        .await;
    assert_eq!(
        (invalid.status, &invalid.body["error"]),
        (StatusCode::BAD_REQUEST, &json!("Invalid request"))
    );
    let unknown = service.get("/inventory/nothing").await;
    assert_eq!(
        (unknown.status, &unknown.body["error"]),
        (StatusCode::NOT_FOUND, &json!("Product not found"))
    );
    assert_eq!(
        service.get("/stock").await.body,
        json!({"product": "Product X", "quantity": 12})
    );
    let kept = service
        .post_once("/inventory/OLJCESPC7Z/update", "u", &sale)
        .await;
    service.post("/inventory/OLJCESPC7Z/update", &sale).await;
    let again = service
        .post_once("/inventory/OLJCESPC7Z/update", "u", &sale)
        .await;
    assert_eq!(again.body, kept.body);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// As a page does it: it updates, reserves, and reorders when little is left.
#[tokio::test]
async fn a_page_updates_reserves_and_reorders() {
    let world = World::new().await;
    app::seed_demo(&world.config).await.unwrap();
    let service = world.start().await;
    let address = service.address().to_owned();
    let mut page = Browser::start(800, 600).await;
    page.open(&service.base).await;
    page.sees("document.documentElement.dataset.state === 'live'")
        .await;
    page.ask(&format!(
        r"(() => {{
            const post = (path, body) => fetch(`http://{address}${{path}}`, {{
                method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: JSON.stringify(body)
            }});
            window.stock = {{}};
            window.orders = [];
            const socket = new WebSocket('ws://{address}/ws');
            socket.onmessage = ({{data}}) => {{
                const frame = JSON.parse(data);
                if (frame.type === 'snapshot') frame.data.forEach(product => window.stock[product.product_id] = product);
                if (frame.type !== 'update') return;
                window.updated = frame.data;
                const product = window.stock[frame.data.product_id];
                product.warehouses[frame.data.warehouse] = frame.data.quantity;
                if (frame.data.available_stock < product.reorder_point) window.orders.push(frame.data.product_id);
            }};
            window.sell = (product, warehouse, change, update_type) =>
                post(`/inventory/${{product}}/update`, {{warehouse, change, update_type}});
            window.hold = async (product, quantity) => (await post(`/inventory/${{product}}/reserve`, {{quantity}})).json();
        }})()"
    ))
    .await;
    page.sees("window.stock.OLJCESPC7Z?.available_stock === 350")
        .await;
    page.ask("window.sell('OLJCESPC7Z', 'US-WEST', -5, 'sale')")
        .await;
    page.sees("window.stock.OLJCESPC7Z.warehouses['US-WEST'] === 145 && window.updated.update_type === 'sale'").await;
    page.ask("window.hold('OLJCESPC7Z', 2).then(held => window.held = held)")
        .await;
    page.sees("window.held?.success === true && window.held.reserved === 2")
        .await;
    page.sees("window.updated.update_type === 'reservation' && window.updated.change === 0")
        .await;
    page.ask("window.hold('OLJCESPC7Z', 5000).then(held => window.held = held)")
        .await;
    page.sees("window.held?.success === false").await;
    page.ask("window.sell('66VCHSJNUP', 'US-EAST', -5, 'damage')")
        .await;
    page.sees("window.orders.includes('66VCHSJNUP')").await;
    // What was refused the browser says as well.
    let network = |complaint: &&String| !complaint.contains(r#""source":"network""#);
    let others: Vec<&String> = page.complaints.iter().filter(network).collect();
    assert_eq!(others, Vec::<&String>::new());
    service.stop().await;
    world.database.remove().await;
}
