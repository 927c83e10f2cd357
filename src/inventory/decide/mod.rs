//! Decides requests: those that come while a transaction is under way are the next one.
//!
//! Invariants: a request is decided over locked levels, and answered once its commit is known to be there; what a lost connection
//! leaves open is looked up, never guessed; a caller that goes away cancels nothing half-way. A batch in which nothing was granted
//! publishes nothing. What is not here: what may be granted (`domain::decide`), and how answers are written.

mod decider;
mod desk;
mod steps;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

pub use decider::Decider;
pub(super) use desk::Desk;

use crate::{
    domain::{
        CommitPoint, InventoryId, ProductId, StockKey,
        command::Request,
        decide::{Book, Verdict},
        stock::ProductStock,
    },
    store::{
        StoreError,
        answers::{KeptAnswer, OnceKey},
        listings::NewProduct,
    },
};

/// A request, and how its answer is written.
pub struct Command {
    pub request: Request,
    /// Under what the answer is kept for whoever asks again.
    pub once: Option<Once>,
    /// A product that is to be there first; nothing is done where another one has its sku.
    pub creates: Option<NewProduct>,
    /// A product that is shown with the answer.
    pub shows: Option<ProductId>,
    pub render: Render,
}

/// Under what key an answer is kept, and to what request.
#[derive(Clone, Debug)]
pub struct Once {
    pub key: OnceKey,
    /// A hash of the request.
    pub fingerprint: Uuid,
}

/// Writes the answer. Called again where a transaction has to be tried again.
pub type Render = Box<dyn Fn(&Decided<'_>) -> Rendered + Send + Sync>;

/// What was decided of one request.
pub struct Decided<'d> {
    pub verdict: &'d Verdict,
    /// Levels as the commit leaves them.
    pub book: &'d Book,
    numbers: &'d HashMap<StockKey, InventoryId>,
    /// The number of the order that was made.
    pub order: Option<i64>,
    /// The number of the product that was created.
    pub product_number: Option<i64>,
    /// The product that was to be shown, as the commit leaves it.
    pub product: Option<&'d ProductStock>,
}

impl Decided<'_> {
    /// The number of a level that was locked.
    pub fn number(&self, key: StockKey) -> Option<InventoryId> {
        self.numbers.get(&key).copied()
    }
}

/// An answer as clients get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub status: u16,
    /// JSON.
    pub body: Bytes,
}

impl Rendered {
    /// Whether it is to be given again to who asks with the same key: what was granted, and what was refused as things stood.
    pub(super) fn is_kept(&self) -> bool {
        self.status < 400 || matches!(self.status, 409 | 412)
    }
}

/// The status of a sweep after which more is due of the same levels.
pub(super) const MORE_IS_DUE: u16 = 202;

/// An answer, and the commit it was given with; a refusal has none.
#[derive(Clone, Debug)]
pub struct Answered {
    pub rendered: Rendered,
    pub as_of: Option<CommitPoint>,
}

impl Answered {
    /// Granted, and not known yet as of which commit.
    fn is_undated(&self) -> bool {
        self.as_of.is_none() && self.rendered.status < 400
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    #[error("too many requests wait to be decided")]
    Busy,
    #[error("a request with this key is under way")]
    InProgress,
    #[error("another request had this key")]
    OtherRequest,
    /// Nothing was done.
    #[error("nothing was done: {0}")]
    NotDone(Arc<StoreError>),
    /// The database was lost at the commit and did not come back in time.
    #[error("whether it was done is not known yet: {0}")]
    Unknown(Arc<StoreError>),
    #[error("the service stops")]
    Stopping,
}

pub type Reply = Result<Answered, CommandError>;

/// An answer that was given before, if it was to this request.
pub(super) fn replay(once: &Once, kept: KeptAnswer) -> Reply {
    if once.fingerprint != kept.fingerprint {
        return Err(CommandError::OtherRequest);
    }
    let rendered = Rendered {
        status: u16::try_from(kept.status).unwrap_or(500),
        body: kept.body,
    };
    let is_granted = rendered.status < 400;
    Ok(Answered {
        rendered,
        as_of: kept.as_of.filter(|_| is_granted),
    })
}
