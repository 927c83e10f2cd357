//! A user of a shop: looks at the catalogue and at stock, orders, pays, changes his mind. One request a step.
//!
//! What a user holds (orders, reservations) is his own: nobody else takes a step with it, so what the service says of it is known.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    catalogue::{self, Catalogue, Product},
    client::{Answer, Call, Client, Decided},
    invariants::Invariant,
    levels,
    operations::Operation,
    oracle::Effect,
    run::Run,
    users::User,
};
use crate::produce::plan::rank_to_place;

/// Orders and reservations a user holds at most before only steps with them are left.
const HELD_MAX: usize = 12;
/// How unevenly products are liked: the exponent of Zipf's law.
const SKEW: f64 = 0.8;
/// The share of commands that are sent a second time under their key.
const REPEATED: f64 = 0.05;
/// Units of an order, and of what a shop puts in again.
const UNITS_MAX: i64 = 3;
const RESTOCK: i64 = 12;
/// The longest there is, and longer than any run: a reservation ends only when told to.
const TTL_SECONDS: u32 = 86_400;

#[derive(Clone, Debug)]
struct Order {
    number: i64,
    product: Product,
    quantity: i64,
    is_paid: bool,
}

#[derive(Clone, Debug)]
struct Reservation {
    id: Uuid,
    lines: Vec<(Product, i64)>,
}

/// A user of the shop.
pub(super) struct Shopper {
    run: Arc<Run>,
    client: Client,
    random: ChaCha8Rng,
    catalogue: Arc<Catalogue>,
    popularity: Option<Zipf<f64>>,
    orders: Vec<Order>,
    reservations: Vec<Reservation>,
    prefix: String,
    made: usize,
}

/// What a user may want, and how much, in parts of the sum.
const WISHES: [(Wish, u32); 18] = [
    (Wish::Browse, 12),
    (Wish::LookAtProduct, 14),
    (Wish::LookAtInventory, 10),
    (Wish::LookAtLevel, 18),
    (Wish::LookAtLevels, 4),
    (Wish::LookAtStock, 3),
    (Wish::LookAtMovement, 4),
    (Wish::LookAtUnknown, 1),
    (Wish::LookAtOrder, 4),
    (Wish::LookAround, 1),
    (Wish::Order, 10),
    (Wish::StepOrder, 8),
    (Wish::ReserveInventory, 2),
    (Wish::Reserve, 3),
    (Wish::StepReservation, 4),
    (Wish::Restock, 2),
    (Wish::Sell, 1),
    (Wish::MakeProduct, 1),
];

#[derive(Clone, Copy, Debug)]
enum Wish {
    Browse,
    LookAtProduct,
    LookAtInventory,
    LookAtLevel,
    LookAtLevels,
    LookAtStock,
    LookAtMovement,
    LookAtUnknown,
    LookAtOrder,
    LookAround,
    Order,
    StepOrder,
    ReserveInventory,
    Reserve,
    StepReservation,
    Restock,
    Sell,
    MakeProduct,
}

impl Shopper {
    pub(super) fn new(
        run: &Arc<Run>,
        catalogue: &Arc<Catalogue>,
        prefix: &str,
        number: usize,
    ) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let popularity = Zipf::new(catalogue.products.len() as f64, SKEW).ok();
        Self {
            run: Arc::clone(run),
            client: Client::new(run, number),
            random: run.random(number),
            catalogue: Arc::clone(catalogue),
            popularity,
            orders: Vec::new(),
            reservations: Vec::new(),
            prefix: format!("{prefix}-u{number}"),
            made: 0,
        }
    }

    /// One of the products, the liked ones more often.
    fn product(&mut self) -> Product {
        let products = &self.catalogue.products;
        let rank = self
            .popularity
            .map_or(1.0, |popularity| popularity.sample(&mut self.random));
        products[rank_to_place(rank, products.len())].clone()
    }

    fn wish(&mut self) -> Wish {
        if self.orders.len() >= HELD_MAX {
            return Wish::StepOrder;
        }
        if self.reservations.len() >= HELD_MAX {
            return Wish::StepReservation;
        }
        let sum: u32 = WISHES.iter().map(|(_, parts)| parts).sum();
        let mut chosen = self.random.random_range(0..sum);
        for (wish, parts) in WISHES {
            if chosen < parts {
                return wish;
            }
            chosen -= parts;
        }
        Wish::Browse
    }

    fn is_repeated(&mut self) -> bool {
        self.random.random_bool(REPEATED)
    }

    async fn get(&mut self, due: Duration, operation: Operation, path: String) -> Option<Value> {
        let answer = self.client.ask(due, Call::new(operation, path)).await?;
        Some(answer.json())
    }

    /// That a number that customers see is not below zero.
    fn shown(&self, what: &str, body: &Value, fields: &[&str]) {
        for field in fields {
            let number = body[*field].as_i64();
            self.run.oracle.findings.look(
                Invariant::NeverBelowZero,
                number.is_some_and(|number| number >= 0),
                || format!("{what}: {field} is {number:?}"),
            );
        }
    }

    async fn browse(&mut self, due: Duration) {
        let page = self.random.random_range(1..=3);
        let path = format!("/products/?page={page}");
        let listed = self.get(due, Operation::ListProducts, path).await;
        for product in listed
            .iter()
            .filter_map(|body| body["products"].as_array())
            .flatten()
        {
            self.shown("a listed product", product, &["stock"]);
        }
    }

    async fn look_at_product(&mut self, due: Duration) {
        let number = self.product().number;
        let path = format!("/products/{number}");
        if let Some(body) = self.get(due, Operation::GetProduct, path).await {
            self.shown("a product", &body, &["stock"]);
        }
    }

    async fn look_at_inventory(&mut self, due: Duration) {
        let path = format!("/inventory/{}", self.product().sku);
        if let Some(body) = self.get(due, Operation::GetInventory, path).await {
            let fields = ["total_stock", "reserved_stock", "available_stock"];
            self.shown("a product's inventory", &body, &fields);
        }
    }

    async fn look_at_levels(&mut self, due: Duration) {
        let keys: Vec<_> = (0..5).map(|_| self.product().key).collect();
        levels::query(&self.run, &mut self.client, due, &keys).await;
    }

    async fn look_at_movement(&mut self, due: Duration) {
        let number = self.random.random_range(0..usize::MAX);
        let id = self
            .run
            .movement(number)
            .map_or(Uuid::new_v4(), crate::domain::MovementId::uuid);
        // It need not be in yet.
        let call = Call::new(Operation::GetMovement, format!("/api/movements/{id}"));
        self.client.ask(due, call.expects(&[404])).await;
    }

    async fn look_at_unknown(&mut self, due: Duration) {
        let path = format!("/products/{}", i64::MAX - 7);
        let call = Call::new(Operation::GetProduct, path).expects(&[404]);
        if let Some(answer) = self.client.ask(due, call).await {
            let is_unknown = answer.status == 404;
            self.run
                .oracle
                .findings
                .look(Invariant::CommandsOnce, is_unknown, || {
                    format!("a product that was never made is there: {}", answer.json())
                });
        }
    }

    async fn look_at_order(&mut self, due: Duration) {
        let Some(order) = self.one_order() else {
            return self.browse(due).await;
        };
        let call = Call::new(Operation::GetOrder, format!("/orders/{}", order.number));
        let Some(answer) = self.client.ask(due, call.expects(&[404])).await else {
            return;
        };
        let body = answer.json();
        let wanted = if order.is_paid { "PAID" } else { "PENDING" };
        let is_right = body["status"] == wanted && body["quantity"] == order.quantity;
        self.run
            .oracle
            .findings
            .look(Invariant::CommandsOnce, is_right, || {
                format!(
                    "order {} is {} of {}, and not {wanted} of {}",
                    order.number, body["status"], body["quantity"], order.quantity
                )
            });
    }

    fn one_order(&mut self) -> Option<Order> {
        let count = self.orders.len();
        (count > 0).then(|| self.orders[self.random.random_range(0..count)].clone())
    }

    async fn look_around(&mut self, due: Duration) {
        let (operation, path) = [
            (Operation::RecentOrders, "/orders/recent?limit=3"),
            (Operation::LowStock, "/inventory/low-stock?limit=20"),
            (Operation::GetSummary, "/summary"),
            (Operation::GetHealth, "/health"),
        ][self.random.random_range(0..4)];
        self.get(due, operation, path.to_owned()).await;
    }

    async fn order(&mut self, due: Duration) {
        let product = self.product();
        let quantity = self.random.random_range(1..=UNITS_MAX);
        let body = json!({"product_id": product.number, "quantity": quantity});
        let call = Call::new(Operation::CreateOrder, "/orders/")
            .body(body)
            .expects(&[409]);
        let is_repeated = self.is_repeated();
        let effects = [promise(&product, quantity)];
        if let Decided::Done(answer) = self.client.decide(due, call, &effects, is_repeated).await
            && let Some(number) = answer.json()["id"].as_i64()
        {
            self.orders.push(Order {
                number,
                product,
                quantity,
                is_paid: false,
            });
        }
    }

    async fn step_order(&mut self, due: Duration) {
        let count = self.orders.len();
        if count == 0 {
            return self.order(due).await;
        }
        let place = self.random.random_range(0..count);
        let order = self.orders[place].clone();
        let chance = self.random.random_range(0..10);
        let (operation, step, effects) = match (order.is_paid, chance) {
            (false, 0..6) => (
                Operation::PayOrder,
                "pay",
                vec![effect(&order.product, -order.quantity, -order.quantity)],
            ),
            (false, _) => (
                Operation::CancelOrder,
                "cancel",
                vec![effect(&order.product, 0, -order.quantity)],
            ),
            (true, 0..5) => (Operation::ShipOrder, "ship", Vec::new()),
            (true, _) => (
                Operation::CancelOrder,
                "cancel",
                vec![effect(&order.product, order.quantity, 0)],
            ),
        };
        let path = format!("/orders/{}/{step}", order.number);
        let call = Call::new(operation, path).body(json!({}));
        let is_repeated = self.is_repeated();
        let decided = self.client.decide(due, call, &effects, is_repeated).await;
        match (step, decided) {
            ("pay", Decided::Done(_)) => self.orders[place].is_paid = true,
            // What is refused or lost is somebody else's to explain: it is a failure, and counted.
            _ => {
                self.orders.swap_remove(place);
            }
        }
    }

    async fn reserve_inventory(&mut self, due: Duration) {
        let product = self.product();
        let quantity = self.random.random_range(1..=UNITS_MAX);
        let path = format!("/inventory/{}/reserve", product.sku);
        let call = Call::new(Operation::ReserveInventory, path)
            .body(json!({"quantity": quantity}))
            .expects(&[409]);
        let is_repeated = self.is_repeated();
        let effects = [promise(&product, quantity)];
        let decided = self.client.decide(due, call, &effects, is_repeated).await;
        self.holds(decided, "reservation_id", vec![(product, quantity)]);
        // This one cannot say how long it is to be kept.
        if let Some(held) = self.reservations.last().cloned() {
            let path = format!("/api/reservations/{}/extend", held.id);
            let call = Call::new(Operation::ExtendReservation, path)
                .body(json!({"ttl_seconds": TTL_SECONDS}));
            let now = self.run.clock.elapsed();
            self.client.decide(now, call, &[], false).await;
        }
    }

    async fn reserve(&mut self, due: Duration) {
        let (one, other) = (self.product(), self.product());
        let mut lines = vec![(one, self.random.random_range(1..=UNITS_MAX))];
        if other.number != lines[0].0.number {
            lines.push((other, 1));
        }
        let items: Vec<_> = lines
            .iter()
            .map(|(product, quantity)| json!({"product": product.sku, "quantity": quantity}))
            .collect();
        let call = Call::new(Operation::Reserve, "/api/reservations")
            .body(json!({"items": items, "ttl_seconds": TTL_SECONDS}))
            .expects(&[409]);
        let effects: Vec<_> = lines
            .iter()
            .map(|(product, quantity)| promise(product, *quantity))
            .collect();
        let is_repeated = self.is_repeated();
        let decided = self.client.decide(due, call, &effects, is_repeated).await;
        self.holds(decided, "id", lines);
    }

    fn holds(&mut self, decided: Decided, field: &str, lines: Vec<(Product, i64)>) {
        if let Decided::Done(answer) = decided {
            let id = answer.json()[field].as_str().and_then(|id| id.parse().ok());
            self.reservations
                .extend(id.map(|id| Reservation { id, lines }));
        }
    }

    async fn step_reservation(&mut self, due: Duration) {
        let count = self.reservations.len();
        if count == 0 {
            return self.reserve(due).await;
        }
        let place = self.random.random_range(0..count);
        let held = self.reservations[place].clone();
        let each = |on_hand: i64, reserved: i64| -> Vec<Effect> {
            let lines = held.lines.iter();
            lines
                .map(|(product, quantity)| effect(product, on_hand * quantity, reserved * quantity))
                .collect()
        };
        let (operation, step, effects) = match self.random.random_range(0..8) {
            0..4 => (Operation::ConfirmReservation, "confirm", each(-1, -1)),
            4..7 => (Operation::ReleaseReservation, "release", each(0, -1)),
            _ => (Operation::ExtendReservation, "extend", Vec::new()),
        };
        let path = format!("/api/reservations/{}/{step}", held.id);
        let body = if step == "extend" {
            json!({"ttl_seconds": TTL_SECONDS})
        } else {
            json!({})
        };
        let call = Call::new(operation, path).body(body);
        let is_repeated = self.is_repeated();
        self.client.decide(due, call, &effects, is_repeated).await;
        if step != "extend" {
            self.reservations.swap_remove(place);
        }
    }

    async fn adjust(&mut self, due: Duration, kind: &str, change: i64) {
        let product = self.product();
        let is_repeated = self.is_repeated();
        let answer = adjust(&mut self.client, due, &product, kind, change, is_repeated).await;
        if let Some(answer) = answer {
            levels::sees_own_write(&self.run, &mut self.client, &product.key, &answer).await;
        }
    }

    async fn make_product(&mut self, due: Duration) {
        let sku: Arc<str> = format!("{}-{}", self.prefix, self.made).into();
        self.made += 1;
        let warehouse = self.catalogue.warehouse;
        catalogue::create(&mut self.client, due, &sku, warehouse, RESTOCK).await;
    }
}

/// Changes a level; the answer if it was done.
pub(super) async fn adjust(
    client: &mut Client,
    due: Duration,
    product: &Product,
    kind: &str,
    change: i64,
    is_repeated: bool,
) -> Option<Answer> {
    let body = json!({
        "warehouse": product.key.warehouse, "product": product.sku, "change": change, "kind": kind, "reason": "load test"
    });
    let call = Call::new(Operation::Adjust, "/api/adjustments")
        .body(body)
        .expects(&[409]);
    let effects = [effect(product, change, 0)];
    match client.decide(due, call, &effects, is_repeated).await {
        Decided::Done(answer) => Some(answer),
        Decided::Refused(_) | Decided::Lost => None,
    }
}

fn effect(product: &Product, on_hand: i64, reserved: i64) -> Effect {
    Effect {
        key: product.key.clone(),
        on_hand,
        reserved,
    }
}

/// What a reservation or an order changes.
pub(super) fn promise(product: &Product, quantity: i64) -> Effect {
    effect(product, 0, quantity)
}

impl User for Shopper {
    async fn step(&mut self, due: Duration) {
        match self.wish() {
            Wish::Browse => self.browse(due).await,
            Wish::LookAtProduct => self.look_at_product(due).await,
            Wish::LookAtInventory => self.look_at_inventory(due).await,
            Wish::LookAtLevel => {
                let key = self.product().key;
                levels::look(&self.run, &mut self.client, due, &key).await;
            }
            Wish::LookAtLevels => self.look_at_levels(due).await,
            Wish::LookAtStock => {
                let path = format!("/stock?product={}", self.product().sku);
                if let Some(body) = self.get(due, Operation::GetStock, path).await {
                    self.shown("a product's stock", &body, &["quantity"]);
                }
            }
            Wish::LookAtMovement => self.look_at_movement(due).await,
            Wish::LookAtUnknown => self.look_at_unknown(due).await,
            Wish::LookAtOrder => self.look_at_order(due).await,
            Wish::LookAround => self.look_around(due).await,
            Wish::Order => self.order(due).await,
            Wish::StepOrder => self.step_order(due).await,
            Wish::ReserveInventory => self.reserve_inventory(due).await,
            Wish::Reserve => self.reserve(due).await,
            Wish::StepReservation => self.step_reservation(due).await,
            Wish::Restock => self.adjust(due, "restock", RESTOCK).await,
            Wish::Sell => self.adjust(due, "sale", -1).await,
            Wish::MakeProduct => self.make_product(due).await,
        }
    }
}
