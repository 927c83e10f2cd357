//! Records a batch of facts: each is applied once, whatever order and however often it comes.
//!
//! Invariants: ledger, levels, movements, positions and the published version change in one transaction or not at all;
//! a batch in which nothing was new publishes nothing; no fact is refused, a conflicting one changes nothing.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Inventory,
    follow::{Changed, Handed},
};
use crate::{
    domain::{
        CommitPoint, Fact, Revision, StockKey, TraceParent, WarehouseCode, WarehouseId,
        batch::{self, Change, Merged, Outcome},
    },
    metrics::Metrics,
    store::{
        StoreError,
        catalogue::CatalogueChange,
        positions::{Advance, LaneNumber},
        writer::{LevelAfter, WriteTx, Writer},
    },
    traces::Traces,
};

/// How long codes that were offered are not offered again. That a code is free again, or that a warehouse has none any more, is noticed by
/// the next fact after that.
const OFFERED_FOR: Duration = Duration::from_secs(10);
/// Most offers that are remembered.
const OFFERS_MAX: usize = 10_000;

/// Records one batch at a time, over a connection of its own.
pub struct Recorder {
    inventory: Arc<Inventory>,
    writer: Writer,
    offers: Offers,
    comes_more: ComesMore,
}

/// Whether there is something for the next batch.
type ComesMore = Box<dyn Fn() -> bool + Send + Sync>;

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// The codes that this recorder has offered lately to warehouses that are there, in transactions that were committed or go on: what came of
/// it is in the database, and nearly every fact brings one. One that is lost takes all of it along, so that another database is offered them
/// anew.
#[derive(Debug)]
struct Offers {
    since: Instant,
    made: HashSet<(WarehouseId, WarehouseCode)>,
}

/// The stretch of a topic that a batch takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken<'t> {
    pub topic: &'t str,
    pub lane: LaneNumber,
    /// By partition.
    pub advances: &'t [Advance],
    /// The messages of it that are recorded.
    pub causes: &'t [TraceParent],
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// One per fact, in their order.
    pub outcomes: Vec<Outcome>,
    /// `None` if nothing was new.
    pub commit: Option<CommitPoint>,
    /// Its transaction, if that is recorded.
    pub trace: Option<TraceParent>,
}

/// What the transaction found, before it is committed.
struct Written {
    outcomes: Vec<Outcome>,
    changes: Vec<Change>,
    levels: Vec<LevelAfter>,
    codes_given: Vec<CatalogueChange>,
}

impl Recorder {
    pub fn new(inventory: Arc<Inventory>) -> Self {
        let writer = inventory.store.writer();
        Self {
            inventory,
            writer,
            offers: Offers::new(),
            comes_more: Box::new(|| false),
        }
    }

    /// A transaction begins with the end of the one before it if that says so then.
    #[must_use]
    pub fn while_there_comes_more(
        self,
        comes_more: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            comes_more: Box::new(comes_more),
            ..self
        }
    }

    /// Leaves no transaction open while something else is waited for.
    pub async fn rest(&mut self) {
        self.writer.rest(self.inventory.store.write_timeout()).await;
    }

    /// Applies what is new of `facts` and moves the positions on. Sending the same again is safe, also when the answer
    /// to a commit was lost.
    pub async fn record(
        &mut self,
        facts: &[Fact],
        taken: Taken<'_>,
    ) -> Result<Recorded, StoreError> {
        // The connection goes with the transaction that is given up.
        let limit = self.inventory.store.write_timeout();
        let recorded = timeout(limit, self.transact(facts, taken)).await;
        let recorded = recorded.unwrap_or(Err(StoreError::NoAnswer(limit)));
        if recorded.is_err() {
            self.offers = Offers::new();
        }
        recorded
    }

    async fn transact(&mut self, facts: &[Fact], taken: Taken<'_>) -> Result<Recorded, StoreError> {
        let traces = &self.inventory.traces;
        let span = traces.commit("record", facts.len(), taken.causes.iter().copied());
        let stages = Stages {
            metrics: &self.inventory.metrics,
            traces,
            transaction: span.place(),
        };
        let mut merged = batch::merge(facts);
        let mut tx = staged(stages, "begin", self.writer.begin()).await?;
        tx.record(stages.transaction);
        let written = write(&mut tx, stages, facts, &mut merged, &mut self.offers).await;
        let written = match written {
            Ok(written) => written,
            Err(error @ StoreError::DataRefused { .. }) => {
                tx.rollback().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if !taken.advances.is_empty() {
            tx.advance(taken.topic, taken.lane, taken.advances);
        }
        if written.changes.is_empty() && written.codes_given.is_empty() {
            staged(stages, "publish", tx.commit_silently()).await?;
            span.silent();
            return Ok(Recorded {
                outcomes: written.outcomes,
                commit: None,
                trace: stages.transaction,
            });
        }
        let publish = tx.publish_and_begin_if((self.comes_more)());
        let published = staged(stages, "publish", publish).await?;
        let (commit, trace) = (Some(published.point), stages.transaction);
        span.published(published.point);
        self.inventory.announce(Handed {
            published,
            changed: Changed::Sides {
                changes: written.changes,
                levels: written.levels,
            },
            catalogue: written.codes_given,
        });
        Ok(Recorded {
            outcomes: written.outcomes,
            commit,
            trace,
        })
    }
}

/// Everything between begin and commit, in lock order.
async fn write(
    tx: &mut WriteTx<'_>,
    stages: Stages<'_>,
    facts: &[Fact],
    merged: &mut Merged,
    offers: &mut Offers,
) -> Result<Written, StoreError> {
    let set = staged(stages, "movements", tx.upsert_movements(merged.lines())).await?;
    let mut new = merged
        .new_sides(&set)
        .ok_or(StoreError::Inconsistent("a line that was not offered"))?;
    let unsettled = merged.unsettled(facts, &new);
    let stored = if unsettled.is_empty() {
        HashMap::new()
    } else {
        tx.read_lines(&unsettled).await?
    };
    let corrected = merged.correct(facts, &stored, &mut new);
    if !corrected.is_empty() {
        staged(stages, "movements", tx.set_sides(&corrected)).await?;
    }
    let outcomes = merged.outcomes(facts, &new, &stored);

    let changes = merged.changes(&new);
    let mut levels = Vec::new();
    if !changes.is_empty() {
        let deltas = batch::deltas_by_key(&changes);
        levels = staged(stages, "levels", tx.add_to_levels(&deltas)).await?;
        staged(stages, "catalogue", ensure_catalogue(tx, &levels)).await?;
        crash_point!("within_transaction");
        let rows = ledger_rows(&changes, &levels)?;
        let rows = rows.iter().map(|(change, level)| (*change, level));
        staged(stages, "ledger", tx.append_ledger(rows)).await?;
    }
    let codes_given = staged(stages, "catalogue", offers.make(tx, facts, &outcomes)).await?;
    Ok(Written {
        outcomes,
        changes,
        levels,
        codes_given,
    })
}

/// Makes sure that the product and the warehouse of each level that is new have their rows; those of the others have.
async fn ensure_catalogue(tx: &mut WriteTx<'_>, levels: &[LevelAfter]) -> Result<(), StoreError> {
    let is_new = |level: &&LevelAfter| level.revision == Revision::FIRST;
    let new: Vec<StockKey> = levels
        .iter()
        .filter(is_new)
        .map(|level| level.key)
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    tx.ensure_products(&sorted(new.iter().map(|key| key.product.uuid())))
        .await?;
    tx.ensure_warehouses(&sorted(new.iter().map(|key| key.warehouse.uuid())))
        .await
}

impl Offers {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            made: HashSet::new(),
        }
    }

    /// Gives warehouses the codes that come with the facts; returns what was given.
    async fn make(
        &mut self,
        tx: &mut WriteTx<'_>,
        facts: &[Fact],
        outcomes: &[Outcome],
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        if self.since.elapsed() > OFFERED_FOR || self.made.len() > OFFERS_MAX {
            *self = Self::new();
        }
        let mut codes: Vec<(WarehouseId, WarehouseCode)> = Vec::new();
        for (fact, outcome) in facts.iter().zip(outcomes) {
            let Some(code) = fact.code else { continue };
            let offer = (fact.report.warehouse, code);
            let is_new = match outcome {
                // Its warehouse may not be there yet.
                Outcome::Conflict => !self.made.contains(&offer),
                Outcome::Applied | Outcome::Duplicate => self.made.insert(offer),
            };
            if is_new {
                codes.push(offer);
            }
        }
        if codes.is_empty() {
            return Ok(Vec::new());
        }
        codes.sort_by(|a, b| (a.0, a.1.as_str()).cmp(&(b.0, b.1.as_str())));
        codes.dedup();
        tx.offer_codes(&codes).await
    }
}

fn sorted(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Each change beside its level, in the order of the ledger's index, so that a batch touches each page of it once.
pub fn ledger_rows<'c>(
    changes: &'c [Change],
    levels: &[LevelAfter],
) -> Result<Vec<(&'c Change, LevelAfter)>, StoreError> {
    let mut rows = beside_levels(changes, levels)?;
    rows.sort_by_key(|(_, level)| level.inventory_id);
    Ok(rows)
}

/// Each change beside its level. Both come in the order of their keys, and so does what comes back.
pub(super) fn beside_levels<'c>(
    changes: &'c [Change],
    levels: &[LevelAfter],
) -> Result<Vec<(&'c Change, LevelAfter)>, StoreError> {
    let mut rows = Vec::with_capacity(changes.len());
    let mut levels = levels.iter().peekable();
    for change in changes {
        while levels.next_if(|level| level.key < change.key).is_some() {}
        let level = levels
            .peek()
            .filter(|level| level.key == change.key)
            .ok_or(StoreError::Inconsistent("a level that was not returned"))?;
        rows.push((change, **level));
    }
    Ok(rows)
}

/// Where the stages of a batch are told.
#[derive(Clone, Copy)]
struct Stages<'s> {
    metrics: &'s Metrics,
    traces: &'s Traces,
    /// If it is recorded.
    transaction: Option<TraceParent>,
}

/// Times a stage.
async fn staged<T>(stages: Stages<'_>, stage: &'static str, step: impl Future<Output = T>) -> T {
    let _span = stages.traces.stage(stage, stages.transaction);
    let timer = stages
        .metrics
        .batch_stage_seconds
        .with_label_values(&[stage])
        .start_timer();
    let result = step.await;
    timer.observe_duration();
    result
}
