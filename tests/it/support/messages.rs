//! Movement messages, as tests like to say them.

use serde_json::{Value, json};
use stockyard::domain::Timestamp;
use uuid::Uuid;

/// The departure of contracts 1, as published.
pub const PUBLISHED_DEPARTURE: &str = r#"{"id":"b3b53031-e83a-4654-87f5-b6b6fb09fd99","source":"WH-3322","specversion":"1.0","type":"ru.retail.warehouses.movement","datacontenttype":"application/json","dataschema":"ru.retail.warehouses.movement.v1.0","time":1737439421623,"subject":"WH-3322:DEPARTURE","destination":"ru.retail.warehouses","data":{"movement_id":"c6290746-790e-43fa-8270-014dc90e02e0","warehouse_id":"25718666-6af6-4281-b5a6-3016e36fa557","timestamp":"2025-02-18T12:12:56Z","event":"departure","product_id":"4705204f-498f-4f96-b4ba-df17fb56bf55","quantity":100}}"#;

/// Its arrival, with the same envelope id.
pub const PUBLISHED_ARRIVAL: &str = r#"{"id":"b3b53031-e83a-4654-87f5-b6b6fb09fd99","source":"WH-3423","specversion":"1.0","type":"ru.retail.warehouses.movement","datacontenttype":"application/json","dataschema":"ru.retail.warehouses.movement.v1.0","time":1737439421623,"subject":"WH-3423:ARRIVAL","destination":"ru.retail.warehouses","data":{"movement_id":"c6290746-790e-43fa-8270-014dc90e02e0","warehouse_id":"c1d70455-7e14-11e9-812a-70106f431230","timestamp":"2025-02-18T14:34:56Z","event":"arrival","product_id":"4705204f-498f-4f96-b4ba-df17fb56bf55","quantity":100}}"#;

pub const MOVEMENT: &str = "c6290746-790e-43fa-8270-014dc90e02e0";
pub const FROM: &str = "25718666-6af6-4281-b5a6-3016e36fa557";
pub const TO: &str = "c1d70455-7e14-11e9-812a-70106f431230";
pub const PRODUCT: &str = "4705204f-498f-4f96-b4ba-df17fb56bf55";

/// The bare form of a message: its `data`, and ids without dashes.
pub fn bare(published: &str) -> String {
    let mut message: Value = serde_json::from_str(published).expect("a message");
    let mut data = message["data"].take();
    for id in ["movement_id", "warehouse_id", "product_id"] {
        data[id] = json!(data[id].as_str().expect("an id").replace('-', ""));
    }
    json!({ "data": data }).to_string()
}

/// When sides happen of which a test does not say.
const TIME: &str = "2025-06-01T00:00:00Z";

/// Units that depart from or arrive in a warehouse.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub movement: Uuid,
    pub warehouse: Uuid,
    pub product: Uuid,
    pub units: i64,
}

impl Move {
    /// A movement of its own.
    pub fn new(warehouse: Uuid, product: Uuid, units: i64) -> Self {
        Self {
            movement: Uuid::new_v4(),
            warehouse,
            product,
            units,
        }
    }

    pub fn arrival(&self) -> String {
        self.message("arrival", TIME)
    }

    pub fn departure(&self) -> String {
        self.message("departure", TIME)
    }

    /// One side of it at that time.
    pub fn at(&self, event: &str, time: Timestamp) -> String {
        self.message(event, &time.to_string())
    }

    /// An arrival with white space behind it, that many bytes altogether.
    pub fn padded(&self, bytes: usize) -> Vec<u8> {
        let mut value = self.arrival().into_bytes();
        value.resize(bytes, b' ');
        value
    }

    fn message(&self, event: &str, time: &str) -> String {
        json!({ "data": {
            "movement_id": self.movement, "warehouse_id": self.warehouse, "product_id": self.product,
            "timestamp": time, "event": event, "quantity": self.units
        }})
        .to_string()
    }
}
