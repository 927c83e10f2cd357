//! What requests bring: JSON bodies, and which page of a list.

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

/// Which page of a list. The cursor is the last id of the page before: a page stays the same while entries come and go on
/// others.
pub(super) struct Page {
    pub(super) after: Option<Uuid>,
    /// Within the bound; `None` where the request does not say.
    pub(super) limit: Option<usize>,
}

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT)
    }
}

#[derive(Deserialize)]
struct PageQuery {
    cursor: Option<String>,
    limit: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::<PageQuery>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::BadRequest("The query cannot be understood"))?;
        let after = query.cursor.map(|cursor| {
            Uuid::try_parse(&cursor)
                .map_err(|_| ApiError::BadRequest("cursor is not one of a page"))
        });
        let limit = query.limit.map(|limit| {
            let limit = limit.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n));
            limit.ok_or(ApiError::BadRequest("limit must be 1 to 1000"))
        });
        Ok(Self {
            after: after.transpose()?,
            limit: limit.transpose()?,
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
