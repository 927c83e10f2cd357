//! What requests bring: JSON bodies, and which page of a list.

use std::str::FromStr;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use super::error::ApiError;
use crate::{
    domain::{ProductId, WarehouseId},
    inventory::{Inventory, catalogue::PAGE_MAX},
};

/// Entries of a page where the request does not say.
const PAGE_DEFAULT: usize = 100;
/// Longest code or sku that is looked up, in bytes.
const CODE_BYTES_MAX: usize = 300;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(error)) => {
                Err(ApiError::Unprocessable(error.body_text()))
            }
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::TooLarge)
            }
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::NotJson),
            Err(_) => Err(ApiError::BadRequest("The body is no JSON")),
        }
    }
}

/// Which page of a list. The cursor is the place of the last entry of the page before: a page stays the same while entries come
/// and go on others.
pub(super) struct Page<C = Uuid> {
    pub(super) after: Option<C>,
    /// Within the bound; `None` where the request does not say.
    pub(super) limit: Option<usize>,
    /// The path, and what else the query says: the next page is asked for in the same way.
    pub(super) rest: String,
}

impl<C> Page<C> {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT)
    }
}

#[derive(Deserialize)]
struct PageQuery {
    cursor: Option<String>,
    limit: Option<String>,
}

impl<C: FromStr, S: Send + Sync> FromRequestParts<S> for Page<C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::<PageQuery>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::BadRequest("The query cannot be understood"))?;
        let after = query.cursor.map(|cursor| {
            let after = cursor.parse().ok();
            after.ok_or(ApiError::BadRequest("cursor is not one of a page"))
        });
        let limit = query.limit.map(|limit| {
            let limit = limit.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n));
            limit.ok_or(ApiError::BadRequest("limit must be 1 to 1000"))
        });
        let pairs = parts.uri.query().unwrap_or_default().split('&');
        let is_other = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            !["", "cursor", "limit"].contains(&name)
        };
        let others = pairs
            .filter(is_other)
            .fold(String::new(), |others, pair| others + pair + "&");
        Ok(Self {
            after: after.transpose()?,
            limit: limit.transpose()?,
            rest: format!("{}?{others}", parts.uri.path()),
        })
    }
}

/// A warehouse as a path names it: by its UUID, or by its code. `invalid` is the detail of the refusal; `None` for the nil
/// UUID, which names nothing.
pub(super) async fn warehouse(
    inventory: &Inventory,
    text: &str,
    invalid: &'static str,
) -> Result<Option<WarehouseId>, ApiError> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(WarehouseId::new(id));
    }
    let known = inventory.warehouse_by_code(code(text, invalid)?).await?;
    known.map(Some).ok_or(ApiError::BadRequest(invalid))
}

/// A product as a path names it: by its UUID, or by its sku.
pub(super) async fn product(
    inventory: &Inventory,
    text: &str,
    invalid: &'static str,
) -> Result<Option<ProductId>, ApiError> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(ProductId::new(id));
    }
    let known = inventory.product_by_sku(code(text, invalid)?).await?;
    known.map(Some).ok_or(ApiError::BadRequest(invalid))
}

/// A warehouse that a query names, if it names one.
pub(super) async fn asked_warehouse(
    inventory: &Inventory,
    text: Option<&str>,
    invalid: &'static str,
) -> Result<Option<WarehouseId>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let named = warehouse(inventory, text, invalid).await?;
    named.map(Some).ok_or(ApiError::BadRequest(invalid))
}

/// A product that a query names, if it names one.
pub(super) async fn asked_product(
    inventory: &Inventory,
    text: Option<&str>,
    invalid: &'static str,
) -> Result<Option<ProductId>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let named = product(inventory, text, invalid).await?;
    named.map(Some).ok_or(ApiError::BadRequest(invalid))
}

/// A product that is in the catalogue, if its UUID is: else there is none such.
pub(super) async fn known_product(
    inventory: &Inventory,
    text: &str,
    not_found: &'static str,
) -> Result<ProductId, ApiError> {
    match product(inventory, text, not_found).await {
        Ok(Some(id)) => Ok(id),
        Ok(None) | Err(ApiError::BadRequest(_)) => Err(ApiError::NotFound(not_found)),
        Err(error) => Err(error),
    }
}

/// A text that can be looked up.
fn code<'t>(text: &'t str, invalid: &'static str) -> Result<&'t str, ApiError> {
    // A zero byte is no text to the database.
    if text.len() > CODE_BYTES_MAX || text.contains('\0') {
        return Err(ApiError::BadRequest(invalid));
    }
    Ok(text)
}
