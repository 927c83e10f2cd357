//! The run's own products: made at its beginning, known to nobody else, left as they are at its end.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use uuid::Uuid;

use super::{
    LoadError,
    client::{Answer, Call, Client, Decided},
    operations::Operation,
    oracle::{Effect, Key},
    run::Run,
};

/// Clients that make products at once.
const MAKERS: usize = 8;

/// A product of the run, with stock in one warehouse.
#[derive(Clone, Debug)]
pub(super) struct Product {
    /// As the orders API calls it.
    pub number: i64,
    pub sku: Arc<str>,
    pub key: Key,
}

/// What products of a run are like.
#[derive(Clone, Copy, Debug)]
pub struct Assortment {
    pub products: usize,
    /// Units that each begins with.
    pub stock: i64,
    /// Below which it is told to be low; `None`: never.
    pub min_stock: Option<i64>,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Catalogue {
    pub warehouse: Uuid,
    pub products: Vec<Product>,
}

fn failed(what: &str, answer: Option<&Answer>) -> LoadError {
    let why = answer.map_or("no answer".to_owned(), |answer| {
        format!(
            "HTTP {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        )
    });
    LoadError::Prepare(format!("{what}: {why}"))
}

impl Catalogue {
    /// Makes them through the API, under names that begin with `prefix`.
    pub(super) async fn make(
        run: &Arc<Run>,
        prefix: &str,
        assortment: Assortment,
    ) -> Result<Self, LoadError> {
        let mut client = Client::new(run, 0);
        let warehouse = warehouse(run, &mut client, prefix).await?;
        let mut making = tokio::task::JoinSet::new();
        for maker in 0..MAKERS {
            let (run, prefix) = (Arc::clone(run), prefix.to_owned());
            making.spawn(async move {
                let mut client = Client::new(&run, maker);
                let mut made = Vec::new();
                for number in (maker..assortment.products).step_by(MAKERS) {
                    let sku = format!("{prefix}-{number}");
                    made.push(make(&run, &mut client, &sku, warehouse, assortment).await?);
                }
                Ok::<_, LoadError>(made)
            });
        }
        let mut products = Vec::with_capacity(assortment.products);
        while let Some(made) = making.join_next().await {
            let made = made.map_err(|error| LoadError::Prepare(error.to_string()))?;
            products.extend(made?);
        }
        products.sort_by_key(|product| product.number);
        Ok(Self {
            warehouse,
            products,
        })
    }
}

/// The warehouse in which products begin, found by a product that nothing else is done with.
async fn warehouse(run: &Run, client: &mut Client, prefix: &str) -> Result<Uuid, LoadError> {
    let now = || run.clock.elapsed();
    let sku = format!("{prefix}-first");
    let body = json!({"sku": sku, "name": "Load test", "price": "1.00", "stock": 1});
    let made = client
        .ask(
            now(),
            Call::new(Operation::CreateProduct, "/products/").body(body),
        )
        .await;
    if made.is_none() {
        return Err(failed("a product cannot be made", None));
    }
    let path = format!("/inventory/{sku}");
    let shown = client
        .ask(now(), Call::new(Operation::GetInventory, path))
        .await;
    let codes = shown.as_ref().map(Answer::json);
    let code = codes.and_then(|body| Some(body["warehouses"].as_object()?.keys().next()?.clone()));
    let code = code.ok_or_else(|| failed("no warehouse", shown.as_ref()))?;
    let path = format!("/api/warehouses/{code}/products/{sku}");
    let level = client
        .ask(now(), Call::new(Operation::GetLevel, path))
        .await;
    let id = level.as_ref().map(Answer::json);
    let id = id.and_then(|body| body["warehouse_id"].as_str()?.parse().ok());
    id.ok_or_else(|| failed("no level", level.as_ref()))
}

/// What a new product with stock changes.
pub(super) fn opening(warehouse: Uuid, sku: &Arc<str>, stock: i64) -> Effect {
    Effect {
        key: Key {
            warehouse,
            product: Arc::clone(sku),
        },
        on_hand: stock,
        reserved: 0,
    }
}

/// Asks for a product with stock, once.
pub(super) async fn create(
    client: &mut Client,
    due: Duration,
    sku: &Arc<str>,
    warehouse: Uuid,
    stock: i64,
) -> Option<Product> {
    let effect = opening(warehouse, sku, stock);
    let body =
        json!({"sku": sku, "name": format!("Load test {sku}"), "price": "9.95", "stock": stock});
    let call = Call::new(Operation::CreateProduct, "/products/").body(body);
    match client
        .decide(due, call, std::slice::from_ref(&effect), false)
        .await
    {
        Decided::Done(answer) => Some(Product {
            number: answer.json()["id"].as_i64()?,
            sku: Arc::clone(sku),
            key: effect.key,
        }),
        Decided::Refused(_) | Decided::Lost => None,
    }
}

async fn make(
    run: &Run,
    client: &mut Client,
    sku: &str,
    warehouse: Uuid,
    assortment: Assortment,
) -> Result<Product, LoadError> {
    let sku: Arc<str> = sku.into();
    let now = || run.clock.elapsed();
    let product = create(client, now(), &sku, warehouse, assortment.stock).await;
    let product = product.ok_or_else(|| failed("a product cannot be made", None))?;
    if let Some(min_stock) = assortment.min_stock {
        let path = format!("/api/warehouses/{warehouse}/products/{sku}");
        let level = client
            .ask(now(), Call::new(Operation::GetLevel, path))
            .await;
        let id = level.as_ref().map(Answer::json);
        let id = id.and_then(|body| body["product_id"].as_str().map(str::to_owned));
        let id = id.ok_or_else(|| failed("no level", level.as_ref()))?;
        let body = json!({"sku": sku, "name": format!("Load test {sku}"), "min_stock": min_stock});
        let call = Call::new(Operation::PutProduct, format!("/api/products/{id}")).body(body);
        let put = client.ask(now(), call).await;
        if put.is_none() {
            return Err(failed("a minimum cannot be set", None));
        }
    }
    Ok(product)
}
