//! What requests bring: JSON bodies, and which page of a list.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    str::FromStr,
};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::ApiError;
use crate::{
    domain::{ProductId, StockKey, WarehouseId},
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
            Err(rejection) => Err(not_json(rejection)),
        }
    }
}

/// The detail for a body that is no JSON, or none at all.
pub(super) const NO_JSON: &str = "The body is no JSON";

/// Why a body is not what it should be.
pub(super) fn not_json(rejection: JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::JsonDataError(error) => ApiError::Unprocessable(error.body_text()),
        rejection if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
        JsonRejection::MissingJsonContentType(_) => ApiError::NotJson,
        _ => ApiError::BadRequest(NO_JSON),
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

/// A product or warehouse as a body names it: by its UUID, sku or code; a number stands for the sku or code of that text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Name {
    Text(String),
    Number(u64),
}

impl Name {
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

/// What names in a body stand for, looked up together; `None` for what is not known.
#[derive(Debug, Default)]
pub(super) struct Names {
    products: HashMap<String, ProductId>,
    warehouses: HashMap<String, WarehouseId>,
}

impl Names {
    /// Looks up the skus and codes among these texts.
    pub(super) async fn of<'n>(
        inventory: &Inventory,
        products: impl Iterator<Item = Cow<'n, str>>,
        warehouses: impl Iterator<Item = Cow<'n, str>>,
    ) -> Result<Self, ApiError> {
        let codes = |texts: &mut dyn Iterator<Item = Cow<'n, str>>| -> Vec<String> {
            let codes = texts.filter(|text| Uuid::try_parse(text).is_err());
            let known: HashSet<String> = codes
                .filter(|text| code(text, "").is_ok())
                .map(Cow::into_owned)
                .collect();
            known.into_iter().collect()
        };
        let (mut products, mut warehouses) = (products, warehouses);
        let (skus, codes) = (codes(&mut products), codes(&mut warehouses));
        let mut names = Self::default();
        if !skus.is_empty() {
            names.products = inventory.products_by_sku(&skus).await?;
        }
        if !codes.is_empty() {
            names.warehouses = inventory.warehouses_by_code(&codes).await?;
        }
        Ok(names)
    }

    pub(super) fn product(&self, name: &str) -> Option<ProductId> {
        match Uuid::try_parse(name) {
            Ok(id) => ProductId::new(id),
            Err(_) => self.products.get(name).copied(),
        }
    }

    pub(super) fn warehouse(&self, name: &str) -> Option<WarehouseId> {
        match Uuid::try_parse(name) {
            Ok(id) => WarehouseId::new(id),
            Err(_) => self.warehouses.get(name).copied(),
        }
    }

    /// The key of that product in that warehouse, or which of them is not known.
    pub(super) fn key(&self, warehouse: &str, product: &str) -> Result<StockKey, &'static str> {
        Ok(StockKey {
            product: self.product(product).ok_or("Product not found")?,
            warehouse: self.warehouse(warehouse).ok_or("Warehouse not found")?,
        })
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
