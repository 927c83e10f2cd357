//! How much of this was there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    body::{StockBody, json},
    error::ApiError,
};
use crate::{
    domain::{
        StockKey, StockLevel, Timestamp,
        commit::WantedCommit,
        past::{Basis, Moment},
    },
    inventory::{
        Inventory,
        query::{Answer, QueryError, Source},
    },
};

/// Which moment is asked about, as the query says it.
#[derive(Deserialize)]
pub(super) struct MomentQuery {
    at: Option<String>,
    basis: Option<String>,
}

impl MomentQuery {
    /// `None`: the present.
    pub(super) fn moment(&self) -> Result<Option<Moment>, ApiError> {
        let basis = self.basis.as_deref().map(str::parse::<Basis>).transpose();
        let basis =
            basis.map_err(|_| ApiError::BadRequest("basis must be recorded or occurred"))?;
        match (&self.at, basis) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ApiError::BadRequest(
                "basis says by which clock at is meant, and needs it",
            )),
            (Some(at), basis) => {
                let at = Timestamp::parse_fact_time(at).map_err(|_| {
                    ApiError::BadRequest("at must be an ISO 8601 time of 2000 to 2099")
                })?;
                let basis = basis.unwrap_or_default();
                Ok(Some(Moment { at, basis }))
            }
        }
    }
}

/// What stands of a product in a warehouse, or stood at a moment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StockAtBody {
    #[serde(flatten)]
    stock: StockBody,
    /// The moment that was asked about; left out of the present.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// By which clock: `recorded` (the state after the last commit up to then, with its revision and time) or `occurred` (the
    /// changes that happened up to then, as they are known at the present revision; `updated_at` is when the last of them
    /// happened).
    #[schema(value_type = Option<String>, example = "recorded")]
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<&'static str>,
}

impl StockAtBody {
    /// The document as bytes.
    pub(super) fn json(
        warehouse_id: Uuid,
        product_id: Uuid,
        level: &StockLevel,
        moment: Option<Moment>,
    ) -> Bytes {
        json(&Self {
            stock: StockBody::new(warehouse_id, product_id, level),
            at: moment.map(|moment| moment.at.to_string()),
            basis: moment.map(|moment| moment.basis.as_str()),
        })
    }
}

/// What stood of a product in a warehouse at that moment.
pub(super) async fn stock_at(
    inventory: &Inventory,
    key: StockKey,
    moment: Moment,
    wanted: Option<WantedCommit>,
) -> Result<Answer, QueryError> {
    let read = inventory.stock_at(key, moment, wanted).await?;
    let (warehouse, product) = (key.warehouse.uuid(), key.product.uuid());
    Ok(Answer {
        body: Some(StockAtBody::json(
            warehouse,
            product,
            &read.value,
            Some(moment),
        )),
        as_of: read.as_of,
        source: Source::Bypass,
    })
}
