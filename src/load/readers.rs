//! Users who only read: one product again and again, or stock and movements, half of which do not exist.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use super::{
    catalogue::Product,
    client::{Call, Client},
    invariants::Invariant,
    levels,
    operations::Operation,
    oracle::Key,
    run::Run,
    users::User,
};
use crate::domain::MovementId;

/// Looks at one product.
pub(super) struct Watcher {
    run: Arc<Run>,
    client: Client,
    product: Product,
    is_level_next: bool,
}

impl Watcher {
    pub(super) fn new(run: &Arc<Run>, product: &Product, number: usize) -> Self {
        Self {
            run: Arc::clone(run),
            client: Client::new(run, number),
            product: product.clone(),
            is_level_next: false,
        }
    }
}

impl User for Watcher {
    async fn step(&mut self, due: Duration) {
        // Now and then the level with its revision, which can be judged.
        self.is_level_next = !self.is_level_next;
        if self.is_level_next {
            let call = Call::new(
                Operation::GetStock,
                format!("/stock?product={}", self.product.sku),
            );
            if let Some(answer) = self.client.ask(due, call).await {
                let quantity = answer.json()["quantity"].as_i64();
                self.run.oracle.findings.look(
                    Invariant::NeverBelowZero,
                    quantity.is_some_and(|quantity| quantity >= 0),
                    || format!("{}: {quantity:?}", self.product.sku),
                );
            }
        } else {
            levels::look(&self.run, &mut self.client, due, &self.product.key).await;
        }
    }
}

/// Asks for stock and for movements in turn.
pub(super) struct Reader {
    run: Arc<Run>,
    client: Client,
    random: ChaCha8Rng,
    keys: Arc<Vec<Key>>,
    is_movement_next: bool,
}

impl Reader {
    pub(super) fn new(run: &Arc<Run>, keys: &Arc<Vec<Key>>, number: usize) -> Self {
        Self {
            run: Arc::clone(run),
            client: Client::new(run, number),
            random: run.random(number),
            keys: Arc::clone(keys),
            is_movement_next: false,
        }
    }
}

impl User for Reader {
    async fn step(&mut self, due: Duration) {
        self.is_movement_next = !self.is_movement_next;
        if self.is_movement_next {
            let known = self
                .run
                .movement(self.random.random_range(0..usize::MAX))
                .filter(|_| self.random.random_bool(0.5));
            let id = known.map_or_else(Uuid::new_v4, MovementId::uuid);
            let call = Call::new(Operation::GetMovement, format!("/api/movements/{id}"));
            self.client.ask(due, call.expects(&[404])).await;
        } else if !self.keys.is_empty() {
            let key = &self.keys[self.random.random_range(0..self.keys.len())];
            levels::look(&self.run, &mut self.client, due, key).await;
        }
    }
}
