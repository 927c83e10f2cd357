//! What is published, message by message: the same options and seed give the same messages, so what the tables should
//! hold can be worked out again at any time.

use std::collections::VecDeque;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    domain::{Fact, MovementId, ProductId, Quantity, Side, SideReport, Timestamp, WarehouseId},
    event::dead_letter::Reason,
};

/// What to publish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Messages in all, duplicates and poison included.
    pub count: u64,
    pub warehouses: u32,
    pub products: u32,
    /// The exponent of Zipf's law by which products are moved; 0: evenly.
    pub skew: f64,
    /// Percentage of messages that repeat an earlier one.
    pub duplicates: f64,
    /// Percentage of movements whose arrival is published before their departure.
    pub out_of_order: f64,
    /// Percentage of movements that never arrive.
    pub losses: f64,
    /// Percentage of messages that are none.
    pub poison: f64,
    pub seed: u64,
    /// Whose warehouses and products they are: each namespace has its own, and 0 is everybody's.
    #[serde(default, skip_serializing_if = "is_everybodys")]
    pub namespace: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what serde calls it with"
)]
fn is_everybodys(namespace: &u64) -> bool {
    *namespace == 0
}

impl PlanOptions {
    /// What the random choices begin with: other options make other movements, not other versions of the same ones.
    fn hash(&self) -> u64 {
        // Numbers only, which JSON can always hold; the count is left out, so that a longer run begins like a shorter one.
        let options = Self {
            count: 0,
            ..self.clone()
        };
        xxh3_64(&serde_json::to_vec(&options).unwrap_or_default())
    }
}

/// One message.
#[derive(Clone, Debug)]
pub struct Planned {
    pub key: String,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// What it says; `None` for poison.
    pub fact: Option<Fact>,
    pub is_duplicate: bool,
    /// Why it will be a dead letter.
    pub poison: Option<Reason>,
}

/// Movements that are under way at the same time: how far apart the two sides of one are published.
const UNDER_WAY: usize = 500;
/// How far back a duplicate may reach, in messages.
const REPEATABLE: usize = 2_000;
/// 2025-01-01T00:00:00Z: when the first movement departs.
pub const FIRST_DEPARTURE_US: i64 = 1_735_689_600_000_000;
const SECOND_US: i64 = 1_000_000;

/// The messages of a plan, in order.
pub struct Plan {
    options: PlanOptions,
    random: ChaCha8Rng,
    warehouses: Vec<WarehouseId>,
    products: Vec<ProductId>,
    popularity: Option<Zipf<f64>>,
    /// Second sides that are still to be published.
    under_way: Vec<Fact>,
    /// What may be repeated.
    recent: VecDeque<Fact>,
    planned: u64,
    movements: u64,
    poisoned: u64,
}

impl Plan {
    pub fn new(options: &PlanOptions) -> Self {
        let products = options.products.max(1);
        let popularity = (options.skew > 0.0)
            .then(|| Zipf::new(f64::from(products), options.skew).ok())
            .flatten();
        Self {
            options: options.clone(),
            random: ChaCha8Rng::seed_from_u64(options.hash()),
            warehouses: (0..options.warehouses.max(1))
                .filter_map(|number| warehouse_of(options.namespace, number))
                .collect(),
            products: (0..products)
                .filter_map(|number| product_of(options.namespace, number))
                .collect(),
            popularity,
            under_way: Vec::with_capacity(UNDER_WAY),
            recent: VecDeque::with_capacity(REPEATABLE),
            planned: 0,
            movements: 0,
            poisoned: 0,
        }
    }

    fn happens(&mut self, percentage: f64) -> bool {
        self.random.random_range(0.0..100.0) < percentage
    }

    fn next_message(&mut self) -> Planned {
        if self.happens(self.options.poison) {
            return self.poison();
        }
        if !self.recent.is_empty() && self.happens(self.options.duplicates) {
            let place = self.random.random_range(0..self.recent.len());
            let fact = self.recent[place];
            return Planned {
                is_duplicate: true,
                ..self.message(fact)
            };
        }
        // Towards the end what is under way arrives, so that the last movements are whole.
        let left = self.options.count.saturating_sub(self.planned);
        let must_finish = left <= self.under_way.len() as u64 || self.under_way.len() >= UNDER_WAY;
        let fact = if !self.under_way.is_empty() && (must_finish || self.random.random_bool(0.5)) {
            let place = self.random.random_range(0..self.under_way.len());
            self.under_way.swap_remove(place)
        } else {
            self.first_side()
        };
        if self.recent.len() == REPEATABLE {
            self.recent.pop_front();
        }
        self.recent.push_back(fact);
        self.message(fact)
    }

    /// Begins a movement, and keeps its second side for later.
    fn first_side(&mut self) -> Fact {
        let (departure, arrival) = self.movement();
        if self.happens(self.options.losses) {
            return departure;
        }
        if self.happens(self.options.out_of_order) {
            self.under_way.push(departure);
            arrival
        } else {
            self.under_way.push(arrival);
            departure
        }
    }

    fn movement(&mut self) -> (Fact, Fact) {
        let movement = random_id(&mut self.random);
        let product = match self.popularity {
            Some(zipf) => {
                let rank = zipf.sample(&mut self.random);
                self.products[rank_to_place(rank, self.products.len())]
            }
            None => self.products[self.random.random_range(0..self.products.len())],
        };
        let from = self.random.random_range(0..self.warehouses.len());
        let mut to = self.random.random_range(0..self.warehouses.len());
        if to == from {
            to = (to + 1) % self.warehouses.len();
        }
        let departed = FIRST_DEPARTURE_US + i64::try_from(self.movements).unwrap_or(0) * SECOND_US;
        let under_way = self.random.random_range(600..200_000) * SECOND_US;
        let quantity = self.random.random_range(1..=100);
        // Now and then not everything arrives.
        let arrives = if self.random.random_bool(0.02) {
            quantity - 1
        } else {
            quantity
        };
        self.movements += 1;
        let fact = |side, warehouse: usize, at, units: i64| Fact {
            movement,
            product,
            side,
            report: SideReport {
                warehouse: self.warehouses[warehouse],
                at: Timestamp::from_micros(at),
                quantity: Quantity::new(units).unwrap_or(Quantity::ZERO),
            },
            code: None,
        };
        (
            fact(Side::Departure, from, departed, quantity),
            fact(Side::Arrival, to, departed + under_way, arrives),
        )
    }

    fn message(&mut self, fact: Fact) -> Planned {
        Planned {
            key: fact.movement.to_string(),
            value: Some(envelope(&fact, random_id(&mut self.random)).into_bytes()),
            fact: Some(fact),
            is_duplicate: false,
            poison: None,
        }
    }

    /// A message that is none, of every kind in turn.
    fn poison(&mut self) -> Planned {
        let (departure, _) = self.movement();
        let good = envelope(&departure, random_id(&mut self.random));
        let spoilt = |field: &str, value: Value| {
            let mut document: Value = serde_json::from_str(&good).unwrap_or_default();
            document["data"][field] = value;
            Some(document.to_string().into_bytes())
        };
        let kinds = 12;
        let (value, reason) = match self.poisoned % kinds {
            0 => (Some(b"not json".to_vec()), Reason::NotJson),
            1 => (spoilt("quantity", json!(-1)), Reason::InvalidMessage),
            2 => (spoilt("quantity", json!(1.5)), Reason::InvalidMessage),
            3 => (spoilt("quantity", json!(1e15)), Reason::InvalidMessage),
            4 => (spoilt("quantity", json!("7")), Reason::InvalidMessage),
            5 => (
                spoilt("movement_id", json!(Uuid::nil())),
                Reason::InvalidMessage,
            ),
            6 => (
                spoilt("timestamp", json!("1970-01-01T00:00:00Z")),
                Reason::InvalidMessage,
            ),
            7 => (spoilt("event", json!("teleport")), Reason::InvalidMessage),
            8 => (Some(br#"{"data":{}}"#.to_vec()), Reason::InvalidMessage),
            9 => (Some(Vec::new()), Reason::NotJson),
            10 => (None, Reason::InvalidMessage),
            _ => (
                Some(good.as_bytes()[..good.len() / 2].to_vec()),
                Reason::NotJson,
            ),
        };
        self.poisoned += 1;
        let key = departure.movement.to_string();
        Planned {
            key,
            value,
            fact: None,
            is_duplicate: false,
            poison: Some(reason),
        }
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.planned >= self.options.count {
            return None;
        }
        let message = self.next_message();
        self.planned += 1;
        Some(message)
    }
}

/// The warehouse with this number, the same for every seed.
pub fn warehouse(number: u32) -> Option<WarehouseId> {
    warehouse_of(0, number)
}

/// The product with this number, the same for every seed.
pub fn product(number: u32) -> Option<ProductId> {
    product_of(0, number)
}

/// The warehouse with this number in a namespace.
pub fn warehouse_of(namespace: u64, number: u32) -> Option<WarehouseId> {
    WarehouseId::new(stable_id("warehouse", namespace, number))
}

/// The product with this number in a namespace.
pub fn product_of(namespace: u64, number: u32) -> Option<ProductId> {
    ProductId::new(stable_id("product", namespace, number))
}

fn stable_id(kind: &str, namespace: u64, number: u32) -> Uuid {
    let name = if namespace == 0 {
        format!("stockyard {kind} {number}")
    } else {
        format!("stockyard {namespace:016x} {kind} {number}")
    };
    uuid::Builder::from_custom_bytes(xxh3_128(name.as_bytes()).to_be_bytes()).into_uuid()
}

fn random_id(random: &mut impl Rng) -> MovementId {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    // The version bits are set, so it is not nil.
    MovementId::new(id).unwrap_or_else(|| random_id(random))
}

/// The place of what Zipf's law has drawn: its ranks are whole numbers from 1 to the length.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 1 to the length"
)]
pub fn rank_to_place(rank: f64, length: usize) -> usize {
    (rank as usize).clamp(1, length) - 1
}

/// A message as warehouses publish it. `id` identifies nothing.
pub fn envelope(fact: &Fact, id: MovementId) -> String {
    let event = fact.side.as_str();
    let upper = event.to_ascii_uppercase();
    // A code for the warehouse that follows from its id.
    let code = u16::from_be_bytes([
        fact.report.warehouse.uuid().as_bytes()[0],
        fact.report.warehouse.uuid().as_bytes()[1],
    ]);
    format!(
        r#"{{"id":"{id}","source":"WH-{code:05}","specversion":"1.0","type":"ru.retail.warehouses.movement","datacontenttype":"application/json","dataschema":"ru.retail.warehouses.movement.v1.0","time":{},"subject":"WH-{code:05}:{upper}","destination":"ru.retail.warehouses","data":{{"movement_id":"{}","warehouse_id":"{}","timestamp":"{}","event":"{event}","product_id":"{}","quantity":{}}}}}"#,
        fact.report.at.micros() / 1_000,
        fact.movement,
        fact.report.warehouse,
        fact.report.at,
        fact.product,
        fact.report.quantity.units()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::event::{Form, decode};

    fn options() -> PlanOptions {
        PlanOptions {
            count: 20_000,
            warehouses: 5,
            products: 40,
            skew: 1.1,
            duplicates: 10.0,
            out_of_order: 5.0,
            losses: 3.0,
            poison: 1.0,
            seed: 7,
            namespace: 0,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_messages() {
        let values = |seed| -> Vec<_> {
            Plan::new(&PlanOptions { seed, ..options() })
                .take(500)
                .map(|m| (m.key, m.value))
                .collect()
        };
        assert_eq!(values(7), values(7));
        assert_ne!(values(7), values(8));
    }

    #[test]
    fn messages_say_what_the_plan_says() {
        let (mut facts, mut duplicates, mut poison) = (HashSet::new(), 0, 0);
        let mut planned = 0;
        for message in Plan::new(&options()) {
            planned += 1;
            let decoded = decode(message.value.as_deref(), Form::Structured);
            match (message.fact, message.poison) {
                (Some(fact), None) => {
                    let decoded = decoded.unwrap();
                    assert_eq!(
                        Fact {
                            code: None,
                            ..decoded
                        },
                        fact
                    );
                    let is_new = facts.insert((fact.movement, fact.side == Side::Departure));
                    assert_eq!(is_new, !message.is_duplicate);
                    duplicates += u32::from(message.is_duplicate);
                }
                (None, Some(reason)) => {
                    assert_eq!(decoded.unwrap_err().reason, reason);
                    poison += 1;
                }
                other => panic!("neither fact nor poison: {other:?}"),
            }
        }
        assert_eq!(planned, 20_000);
        assert!(
            (1_800..2_200).contains(&duplicates) && (140..260).contains(&poison),
            "{duplicates} {poison}"
        );
    }
}
