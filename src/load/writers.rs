//! Changes what live clients look at, at a set rate: one unit in, one unit out, of each product in turn.

use std::{sync::Arc, time::Duration};

use super::{catalogue::Catalogue, client::Client, levels, run::Run, shop::adjust, users::User};

/// Users that share the rate: so many changes may be under way at once.
pub(super) const WRITERS: usize = 8;
/// Times each product is sold in a row before it is restocked: over a minimum and back.
const SWING: usize = 4;

/// One of those who write.
pub(super) struct Writer {
    run: Arc<Run>,
    client: Client,
    catalogue: Arc<Catalogue>,
    next: usize,
}

impl Writer {
    pub(super) fn new(run: &Arc<Run>, catalogue: &Arc<Catalogue>, number: usize) -> Self {
        Self {
            run: Arc::clone(run),
            client: Client::new(run, number),
            catalogue: Arc::clone(catalogue),
            next: number,
        }
    }
}

impl User for Writer {
    async fn step(&mut self, due: Duration) {
        let products = &self.catalogue.products;
        let product = &products[self.next % products.len()];
        let turn = self.next / products.len() / WRITERS;
        let (kind, change) = if turn % (2 * SWING) < SWING {
            ("sale", -1)
        } else {
            ("restock", 1)
        };
        self.next += WRITERS;
        let answer = adjust(&mut self.client, due, product, kind, change, false).await;
        if let Some(answer) = answer {
            levels::sees_own_write(&self.run, &mut self.client, &product.key, &answer).await;
        }
    }
}
