//! The pages in a real browser.

use std::time::Duration;

use serde_json::json;
use stockyard::{app::Parts, clock::Clock};
use uuid::Uuid;

use crate::support::{
    Service, World, browser::Browser, is_quiet, messages::Move, process::free_port,
};

const NORTH: Uuid = Uuid::from_u128(1);
const SOUTH: Uuid = Uuid::from_u128(2);
const WIDGET: Uuid = Uuid::from_u128(10);
const GADGET: Uuid = Uuid::from_u128(11);
const ALL: Parts = Parts {
    answers: true,
    ingests: true,
};
/// How soon a change is on the page after its message, where nothing else runs.
const SHOWN_MAX: Duration = Duration::from_secs(1);

async fn stocked(world: &World, port: u16) -> Service {
    let service = world.start_on(port, ALL).await;
    service.is_ready().await;
    for (path, body) in [
        (format!("/api/warehouses/{NORTH}"), json!({"code": "NORTH"})),
        (format!("/api/warehouses/{SOUTH}"), json!({"code": "SOUTH"})),
        (
            format!("/api/products/{WIDGET}"),
            json!({"sku": "W-1", "name": "Widget A", "min_stock": 10}),
        ),
        (
            format!("/api/products/{GADGET}"),
            json!({"sku": "G-1", "name": "Gadget"}),
        ),
    ] {
        service.put(&path, body).await;
    }
    for (warehouse, product, units) in [
        (NORTH, WIDGET, 150),
        (SOUTH, WIDGET, 40),
        (NORTH, GADGET, 7),
    ] {
        world
            .send(&Move::new(warehouse, product, units).arrival())
            .await;
        service.has_on_hand(warehouse, product, units).await;
    }
    service
}

/// The cell of a level, as an expression of the page.
fn cell(warehouse: Uuid, product: &str, column: &str) -> String {
    format!(
        r#"document.querySelector('tr[data-key="{warehouse} {product}"] [data-column="{column}"]')"#
    )
}

fn shows(warehouse: Uuid, product: &str, on_hand: i64) -> String {
    format!(
        "{}?.dataset.value === '{on_hand}'",
        cell(warehouse, product, "on_hand")
    )
}

const LIVE: &str = "document.documentElement.dataset.state === 'live'";

#[tokio::test]
async fn the_dashboard_shows_what_happens() {
    let world = World::new().await;
    let port = free_port();
    let service = stocked(&world, port).await;
    let mut page = Browser::start(1440, 900).await;
    page.open(&service.base).await;
    page.sees(LIVE).await;
    page.sees(&shows(NORTH, "W-1", 150)).await;
    page.sees(&shows(SOUTH, "W-1", 40)).await;

    let began = Clock::system();
    world.send(&Move::new(NORTH, WIDGET, 5).departure()).await;
    page.sees(&shows(NORTH, "W-1", 145)).await;
    let took = began.elapsed();
    eprintln!("a change is on the page after {took:?}");
    assert!(took <= SHOWN_MAX || !is_quiet(), "{took:?}");
    page.sees("Number(document.querySelector('#version').textContent) > 0")
        .await;

    // An alert, where it is said and where what is low is listed.
    world.send(&Move::new(NORTH, WIDGET, 137).departure()).await;
    page.sees(
        r#"document.querySelector('#alerts [data-type="low_stock_alert"][data-product="W-1"]')"#,
    )
    .await;
    world.database.reserve(WIDGET, &[(NORTH, 100)], None).await;
    page.sees(
        r#"document.querySelector('#alerts [data-type="reservation_at_risk"][data-product="W-1"]')"#,
    )
    .await;
    page.sees("document.querySelector('#low-stock').dataset.count === '1'")
        .await;
    page.sees("Number(document.querySelector('#in-transit').dataset.count) === 2")
        .await;

    // A filter by words.
    page.fill("#filter", "widget south").await;
    page.sees("document.querySelector('#count').dataset.count === '1'")
        .await;
    page.sees(&format!("!{}", cell(NORTH, "G-1", "on_hand")))
        .await;
    page.fill("#filter", "").await;
    page.sees("document.querySelector('#count').dataset.count === '3'")
        .await;

    // What happened to one product, and what happens to it meanwhile.
    page.ask(&format!(
        "{}.closest('tr').querySelector('button').click()",
        cell(SOUTH, "W-1", "on_hand")
    ))
    .await;
    page.sees("document.querySelector('#history[open] path.line')")
        .await;
    page.ask("document.querySelector('#history').close()").await;
    assert_eq!(page.complaints, Vec::<String>::new());

    // A restart of the service: the page shows that it is away, comes back by itself, and has what was missed.
    let base = service.base.clone();
    service.stop().await;
    page.sees("document.documentElement.dataset.state === 'reconnecting'")
        .await;
    world.send(&Move::new(SOUTH, WIDGET, 2).arrival()).await;
    let service = world.start_on(port, ALL).await;
    service.is_ready().await;
    assert_eq!(service.base, base);
    page.sees(LIVE).await;
    page.sees(&shows(SOUTH, "W-1", 42)).await;
    // What the browser itself logs of a service that is away is all that may be said.
    let network = |complaint: &&String| !complaint.contains(r#""source":"network""#);
    let others: Vec<&String> = page.complaints.iter().filter(network).collect();
    assert_eq!(others, Vec::<&String>::new());
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_standalone_page_and_the_clients_of_others_work() {
    let world = World::with(|config| config.http.allowed_origins.push("file".to_owned())).await;
    let service = stocked(&world, 0).await;
    let address = service.address().to_owned();
    let mut page = Browser::start(1000, 800).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/web/inventory-realtime.html");
    page.open(&format!("file://{file}?url=ws://{address}/ws/inventory"))
        .await;
    page.sees("document.querySelector('#connect')").await;
    page.ask("document.querySelector('#connect').click()").await;
    page.sees("document.documentElement.dataset.state === 'connected'")
        .await;
    world.send(&Move::new(NORTH, WIDGET, 142).departure()).await;
    page.sees("document.body.textContent.includes('Widget A')")
        .await;
    assert_eq!(page.complaints, Vec::<String>::new());

    // As those who asked for the service wrote their clients; only host and port are others.
    page.open(&service.base).await;
    page.sees(LIVE).await;
    page.ask(&format!(
        r#"(() => {{
            window.heard = [];
            const socket = new WebSocket("ws://{address}/ws/stock?product=W-1");
            socket.onmessage = function(event) {{ window.heard.push(JSON.parse(event.data)); }};
            window.log = [];
            const flat = new WebSocket('ws://{address}/ws/inventory');
            flat.onopen = () => {{ window.log.push('Connected to inventory updates'); }};
            flat.onmessage = (event) => {{
                const data = JSON.parse(event.data);
                if (data.type === 'inventory_update') {{
                    window.log.push(`Inventory updated: Product ${{data.product_id}}, Quantity: ${{data.quantity}}`);
                }} else if (data.type === 'low_stock_alert') {{
                    window.log.push(`Low stock alert: ${{data.product_name}} - ${{data.current_quantity}}/${{data.min_stock}}`);
                }}
            }};
            window.inventory = {{}};
            const ws = new WebSocket('ws://{address}/ws');
            ws.onmessage = (event) => {{
                const msg = JSON.parse(event.data);
                if (msg.type === 'snapshot') {{
                    msg.data.forEach(product => {{ window.inventory[product.product_id] = product; }});
                }} else if (msg.type === 'update') {{
                    const product = window.inventory[msg.data.product_id];
                    product.warehouses[msg.data.warehouse] = msg.data.quantity;
                }}
            }};
        }})()"#
    ))
    .await;
    page.sees("window.heard.at(-1)?.quantity === 48 && window.heard.at(-1).product === 'Widget A'")
        .await;
    page.sees("window.log.includes('Connected to inventory updates')")
        .await;
    page.sees("window.inventory['W-1']?.warehouses.NORTH === 8")
        .await;
    world.send(&Move::new(SOUTH, WIDGET, 35).departure()).await;
    page.sees("window.heard.at(-1).quantity === 13").await;
    page.sees("window.log.includes('Inventory updated: Product W-1, Quantity: 5')")
        .await;
    page.sees("window.log.includes('Low stock alert: Widget A - 5/10')")
        .await;
    page.sees("window.inventory['W-1'].warehouses.SOUTH === 5")
        .await;
    service.stop().await;
    world.database.remove().await;
}
