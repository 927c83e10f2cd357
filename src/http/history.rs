//! What happened to one key: its ledger, newest first.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::{listed, next},
    error::{ApiError, Problem},
    guard::Sender,
    input::{self, Page},
};
use crate::{
    domain::{Revision, StockKey},
    store::history::{Cause, LedgerEntry, LedgerPlace},
};

const INVALID: &str = "Invalid warehouse or product ID";

/// A change of a level.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryBody<'e> {
    /// Changes of one commit share one, and the state after it.
    #[schema(example = 18)]
    revision: i64,
    version: i64,
    #[schema(example = "departure")]
    kind: &'static str,
    on_hand_delta: i64,
    reserved_delta: i64,
    /// After the whole commit.
    on_hand: i64,
    reserved: i64,
    /// Of a departure, an arrival, or one that was taken back.
    movement_id: Option<Uuid>,
    /// Of a reservation, release, confirm or expiry.
    reservation_id: Option<Uuid>,
    /// Of every other change: the request that made it.
    command_id: Option<Uuid>,
    /// Who did it, where somebody said so.
    actor: Option<&'e str>,
    #[schema(example = "broken in transit")]
    reason: Option<&'e str>,
    reference: Option<&'e str>,
    #[schema(value_type = String, format = DateTime)]
    occurred_at: String,
    /// When it was committed.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: String,
}

impl<'e> EntryBody<'e> {
    fn new(entry: &'e LedgerEntry) -> Self {
        let [movement_id, reservation_id, command_id] = match entry.cause {
            None => [None; 3],
            Some(Cause::Movement(id)) => [Some(id), None, None],
            Some(Cause::Reservation(id)) => [None, Some(id), None],
            Some(Cause::Command(id)) => [None, None, Some(id)],
        };
        Self {
            revision: entry.revision.0,
            version: entry.version.number(),
            kind: entry.kind.as_str(),
            on_hand_delta: entry.delta.on_hand,
            reserved_delta: entry.delta.reserved,
            on_hand: entry.after.on_hand,
            reserved: entry.after.reserved,
            movement_id,
            reservation_id,
            command_id,
            actor: entry.actor.as_deref(),
            reason: entry.reason.as_deref(),
            reference: entry.reference.as_deref(),
            occurred_at: entry.occurred_at.to_string(),
            recorded_at: entry.recorded_at.to_string(),
        }
    }
}

/// A page of a ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryBody<'e> {
    history: Vec<EntryBody<'e>>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<String>,
}

/// A place in a ledger as text.
pub(super) struct EntryCursor(LedgerPlace);

impl FromStr for EntryCursor {
    type Err = ();

    fn from_str(cursor: &str) -> Result<Self, ()> {
        let (revision, given) = cursor.split_once('.').ok_or(())?;
        let number = |text: &str| text.parse().ok().filter(|n: &i64| *n >= 0).ok_or(());
        Ok(Self(LedgerPlace {
            revision: Revision(number(revision)?),
            given: number(given)?,
        }))
    }
}

impl Display for EntryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.revision.0, self.0.given)
    }
}

/// After the last of these, which came after that place.
fn place_after(
    entries: &[LedgerEntry],
    from: Option<LedgerPlace>,
    last: &LedgerEntry,
) -> LedgerPlace {
    let of_last = entries.iter().filter(|e| e.revision == last.revision);
    let before = from.filter(|from| from.revision == last.revision);
    let given = i64::try_from(of_last.count()).unwrap_or(i64::MAX);
    LedgerPlace {
        revision: last.revision,
        given: given + before.map_or(0, |from| from.given),
    }
}

/// What happened to a product in a warehouse, newest first
#[utoipa::path(
    get,
    path = "/api/warehouses/{warehouse_id}/products/{product_id}/history",
    tag = "stock",
    params(
        ("warehouse_id" = String, Path, description = "UUID or code"),
        ("product_id" = String, Path, description = "UUID or sku"),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page of the ledger", body = HistoryBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    Path((warehouse, product)): Path<(String, String)>,
    page: Page<EntryCursor>,
    sender: Sender,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let warehouse = input::warehouse(inventory, &warehouse, INVALID).await?;
    let product = input::product(inventory, &product, INVALID).await?;
    let key = warehouse.zip(product);
    let (warehouse, product) = key.ok_or(ApiError::BadRequest(INVALID))?;
    sender.reaches(warehouse)?;
    let from = page.after.as_ref().map(|cursor| cursor.0);
    let limit = page.limit();
    let key = StockKey { warehouse, product };
    let read = inventory.history(key, from, limit).await?;
    let entries = &read.value;
    let next = next(entries, limit, |last| {
        EntryCursor(place_after(entries, from, last))
    });
    let body = HistoryBody {
        history: entries.iter().map(EntryBody::new).collect(),
        next_cursor: next.as_ref().map(EntryCursor::to_string),
    };
    Ok(listed(&page, limit, &body, read.as_of, next))
}
