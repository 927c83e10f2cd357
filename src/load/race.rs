//! The last items of a product: many buyers order at the same moment, and exactly as many get one as there are.

use std::sync::Arc;

use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    LoadError,
    catalogue::{self, Catalogue, Product},
    client::{Call, Client, Decided},
    invariants::Invariant,
    levels,
    operations::Operation,
    oracle::Told,
    run::Run,
    shop::promise,
    sockets::{Sockets, Watched},
};

/// Items, buyers, and how often.
pub(super) const ROUNDS: [(i64, usize, usize); 4] =
    [(5, 20, 20), (1, 50, 10), (50, 200, 10), (100, 1_000, 5)];

/// What a round came to.
struct Round {
    sold: i64,
    sold_out: usize,
}

/// Live clients that watch each round.
const WATCHING: usize = 2;

/// All rounds; in words what they came to.
pub(super) async fn rounds(
    run: &Arc<Run>,
    catalogue: &Catalogue,
    prefix: &str,
    sockets: &mut Sockets,
) -> Result<Vec<(String, String)>, LoadError> {
    let mut figures = Vec::new();
    for (items, buyers, times) in ROUNDS {
        let (mut sold, mut sold_out, mut rounds) = (0, 0, 0);
        for time in 0..times {
            if run.is_over() {
                break;
            }
            let sku = format!("{prefix}-race-{items}-{buyers}-{time}").into();
            let mut client = Client::new(run, 0);
            let now = run.clock.elapsed();
            let made = catalogue::create(&mut client, now, &sku, catalogue.warehouse, items).await;
            let product =
                made.ok_or_else(|| LoadError::Prepare("no product to race for".to_owned()))?;
            sockets
                .connect(WATCHING, &[Watched::product(&product.sku)])
                .await;
            let round = one(run, &product, items, buyers).await?;
            (sold, sold_out, rounds) = (sold + round.sold, sold_out + round.sold_out, rounds + 1);
        }
        figures.push((
            format!("{items} items, {buyers} buyers, {rounds} rounds"),
            format!("{sold} sold, {sold_out} told that it is sold out"),
        ));
    }
    Ok(figures)
}

async fn one(
    run: &Arc<Run>,
    product: &Product,
    items: i64,
    buyers: usize,
) -> Result<Round, LoadError> {
    let start = Arc::new(Barrier::new(buyers));
    let mut buying = JoinSet::new();
    run.figures.set_users(buyers);
    for buyer in 0..buyers {
        let (run, product, start) = (Arc::clone(run), product.clone(), Arc::clone(&start));
        buying.spawn(async move {
            let mut client = Client::new(&run, buyer);
            // Connected before all of them begin.
            let health = Call::new(Operation::GetHealth, "/health");
            client.ask(run.clock.elapsed(), health).await;
            start.wait().await;
            let body = json!({"product_id": product.number, "quantity": 1});
            let call = Call::new(Operation::CreateOrder, "/orders/")
                .body(body)
                .expects(&[409]);
            let now = run.clock.elapsed();
            client
                .decide(now, call, &[promise(&product, 1)], false)
                .await
        });
    }
    let mut round = Round {
        sold: 0,
        sold_out: 0,
    };
    while let Some(decided) = buying.join_next().await {
        match decided.map_err(|error| LoadError::Prepare(error.to_string()))? {
            Decided::Done(_) => round.sold += 1,
            Decided::Refused(answer) if answer.status == 409 => round.sold_out += 1,
            Decided::Refused(_) | Decided::Lost => {}
        }
    }
    let sku = &product.sku;
    run.oracle
        .findings
        .look(Invariant::NothingOversold, round.sold == items, || {
            format!("{sku}: {} of {items} sold to {buyers} buyers", round.sold)
        });
    let mut client = Client::new(run, 0);
    let left = levels::look(run, &mut client, run.clock.elapsed(), &product.key).await;
    let is_right =
        left.is_some_and(|left: Told| left.on_hand - left.reserved == items - round.sold);
    run.oracle
        .findings
        .look(Invariant::NothingOversold, is_right, || {
            format!("{sku}: {left:?} after {} of {items} were sold", round.sold)
        });
    run.figures.set_users(0);
    Ok(round)
}
