//! Decides what comes to the desk, one transaction at a time, and answers each caller once the end of its commit is known.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Answered, CommandError, MORE_IS_DUE, Rendered, Reply,
    desk::{Pending, Queues},
    steps::{Answers, EXPIRED_MAX, Found, Kept, decide, numbers, write},
};
use crate::{
    cache::CacheKey,
    domain::{CommitPoint, StockKey, TraceParent, command::Request, decide::Book},
    inventory::{
        Inventory,
        follow::{Changed, Handed},
    },
    store::{
        StoreError,
        catalogue::CatalogueChange,
        decided::{IfHeld, Wanted},
        listings::NewProduct,
        writer::{Mark, Published, Writer},
    },
    traces::CommitSpan,
};

/// Most requests of one transaction, and most levels they name: what it locks, and how long it takes.
const BATCH_REQUESTS_MAX: usize = 1_000;
const BATCH_LEVELS_MAX: usize = 2_000;
/// Back-off between tries while the database is away.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Decides what comes to the desk: at once what it can, and one after another what has to wait for levels that somebody else holds.
///
/// A batch of facts holds as many levels as it has keys for as long as its transaction takes. Requests that are decided together are
/// answered together, so if they all waited for each level that one of them names, most of them would wait most of the time.
#[derive(Debug)]
pub struct Decider {
    at_hand: Worker,
    patient: Worker,
}

impl Decider {
    pub(in crate::inventory) fn new(
        inventory: &Arc<Inventory>,
        queues: Queues,
        wait_max: Duration,
    ) -> Self {
        let worker = |queue, put_off| Worker::new(Arc::clone(inventory), queue, wait_max, put_off);
        Self {
            at_hand: worker(queues.handed_in, Some(queues.put_off)),
            patient: worker(queues.held_up, None),
        }
    }

    /// Decides until told to stop, and then what still waits.
    pub async fn run(self, stop: CancellationToken) {
        // The second ends when the first has: then nobody hands anything over any more.
        tokio::join!(
            self.at_hand.run(stop),
            self.patient.run(CancellationToken::new())
        );
    }
}

/// Decides what comes through a queue, one transaction at a time.
struct Worker {
    inventory: Arc<Inventory>,
    queue: mpsc::Receiver<Pending>,
    writer: Writer,
    /// Longest a request may take to be decided, while the database is away.
    wait_max: Duration,
    /// Most requests of the next batch: fewer after one that named more levels than it said, or took too long.
    requests_max: usize,
    /// A commit whose end is not known.
    open: Option<Open>,
    /// The last commit, if that is recorded.
    trace: Option<TraceParent>,
    /// Where requests go whose levels somebody else holds; nowhere: they are waited for.
    put_off: Option<mpsc::Sender<Pending>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// A transaction that was told to commit, and what is to be answered if it did.
struct Open {
    mark: Mark,
    levels: Vec<Wanted>,
    /// Whose skus it holds.
    created: Vec<NewProduct>,
    /// `None`: nothing was decided yet.
    answers: Option<Answers>,
    changed: Changed,
    catalogue: Vec<CatalogueChange>,
    span: CommitSpan,
}

impl Worker {
    fn new(
        inventory: Arc<Inventory>,
        queue: mpsc::Receiver<Pending>,
        wait_max: Duration,
        put_off: Option<mpsc::Sender<Pending>>,
    ) -> Self {
        Self {
            writer: inventory.store.hasty_writer(try_max(&inventory, wait_max)),
            inventory,
            queue,
            wait_max,
            requests_max: BATCH_REQUESTS_MAX,
            open: None,
            trace: None,
            put_off,
        }
    }

    /// Decides until told to stop, and then what still waits.
    async fn run(mut self, stop: CancellationToken) {
        loop {
            if self.queue.is_empty() {
                self.rest().await;
            }
            let first = tokio::select! {
                biased;
                first = self.queue.recv() => first,
                () = stop.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let batch = self.gather(first);
            self.settle(batch).await;
        }
    }

    /// Leaves no transaction open while nobody asks.
    async fn rest(&mut self) {
        let limit = try_max(&self.inventory, self.wait_max);
        self.writer.rest(limit).await;
    }

    /// The requests that wait, to a bound. Nobody waits any more for some of them.
    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let (mut batch, mut levels) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(pending) = next {
            if !pending.reply.is_closed() {
                levels += named_levels(&pending.command.request);
                batch.push(pending);
            }
            let is_full = batch.len() >= self.requests_max || levels >= BATCH_LEVELS_MAX;
            next = if is_full {
                None
            } else {
                self.queue.try_recv().ok()
            };
        }
        batch
    }

    /// Decides a batch and answers, however often it takes; a request that the database does not take is answered alone. Who sweeps is
    /// served last, by himself: nobody else waits for all that is due.
    async fn settle(&mut self, batch: Vec<Pending>) {
        let (sweeps, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_sweep);
        let mut parts = vec![sweeps, batch];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.decided(&part).await {
                Ok(answers) => {
                    let transaction = self.trace.take();
                    for (mut pending, answer) in part.into_iter().zip(answers) {
                        if let Some(answer) = answer {
                            pending.decided_in(transaction);
                            pending.answer(answer);
                        } else {
                            self.put_off(pending);
                        }
                    }
                }
                Err(CommandError::NotDone(error)) if part.len() > 1 && error.is_of_request() => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) => {
                    tracing::warn!(%error, requests = part.len(), "requests could not be decided");
                    for pending in part {
                        pending.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn if_held(&self) -> IfHeld {
        match self.put_off {
            Some(_) => IfHeld::PassOver,
            None => IfHeld::Wait,
        }
    }

    /// Hands a request to who waits for its levels.
    fn put_off(&self, pending: Pending) {
        self.inventory.metrics.commands_held_up_total.inc();
        let handed = match &self.put_off {
            Some(patient) => patient.try_send(pending),
            None => Err(TrySendError::Closed(pending)),
        };
        let (pending, error) = match handed {
            Ok(()) => return,
            Err(TrySendError::Full(pending)) => (pending, CommandError::Busy),
            Err(TrySendError::Closed(pending)) => (pending, CommandError::Stopping),
        };
        pending.answer(Err(error));
    }

    /// The answers to a batch, tried again as long as requests may wait.
    async fn decided(&mut self, batch: &[Pending]) -> Result<Answers, CommandError> {
        let clock = self.inventory.clock.clone();
        // The longest that one of them has waited: in both queues, where it was put off.
        let handed_in = batch.iter().map(|pending| pending.handed_in_at).min();
        let began = handed_in.unwrap_or_else(|| clock.elapsed());
        let mut wait = RETRY_MIN;
        self.inventory
            .metrics
            .command_batch_requests
            .observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        loop {
            let limit = try_max(&self.inventory, self.wait_max);
            let tried = timeout(limit, self.attempt(batch));
            let tried = tried.await.unwrap_or(Err(StoreError::NoAnswer(limit)));
            let is_late = clock.elapsed().saturating_sub(began) > self.wait_max;
            let error = match tried {
                Ok(Some(answers)) => return Ok(answers),
                // Somebody else was given an answer under one of the keys just now: it can be read. Or some of what is due was expired.
                Ok(None) if is_late => return Err(CommandError::Busy),
                Ok(None) => continue,
                Err(error) => error,
            };
            let is_final = error.is_of_request() || error.is_read_only();
            if matches!(error, StoreError::NoAnswer(_)) || error.is_held_up() {
                self.requests_max = (self.requests_max / 2).max(1);
            }
            if is_final || is_late {
                let error = Arc::new(error);
                return Err(match self.open.take() {
                    Some(_) => CommandError::Unknown(error),
                    None => CommandError::NotDone(error),
                });
            }
            let retries = &self.inventory.metrics.retries_total;
            retries.with_label_values(&["decide"]).inc();
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// One transaction. `None`: it is to be tried again.
    async fn attempt(&mut self, batch: &[Pending]) -> Result<Option<Answers>, StoreError> {
        if self.open.is_some()
            && let Some(answers) = self.look_up().await?
        {
            return Ok(Some(answers));
        }
        let causes = batch.iter().filter_map(Pending::cause);
        let span = self.inventory.traces.commit("commit", batch.len(), causes);
        let if_held = self.if_held();
        let mut tx = self.writer.begin().await?;
        tx.record(span.place());
        let tag_of = self.inventory.documents.stock_tag;
        let written = match decide(&mut tx, batch, tag_of, if_held).await {
            Ok(Found::Decided(written)) => written,
            Ok(Found::MoreIsDue(levels)) => {
                tx.rollback().await?;
                span.silent();
                self.expire(levels).await?;
                let are_swept = batch.iter().all(is_sweep);
                return Ok(
                    are_swept.then(|| batch.iter().map(|_| Some(Ok(more_is_due()))).collect())
                );
            }
            Err(error) if error.is_of_request() => {
                tx.rollback().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if written.kept == Kept::Elsewhere {
            tx.rollback().await?;
            span.silent();
            return Ok(None);
        }
        self.requests_max = if written.levels.len() > BATCH_LEVELS_MAX {
            (batch.len() / 2).max(1)
        } else {
            (self.requests_max * 2).min(BATCH_REQUESTS_MAX)
        };
        crash_point!("decided");
        if written.is_published {
            self.open = Some(Open {
                mark: tx.mark(),
                levels: written.levels,
                created: written.created,
                answers: Some(written.answers),
                changed: written.changed,
                catalogue: written.catalogue,
                span,
            });
            let published = tx.publish_and_begin_if(!self.queue.is_empty()).await?;
            return Ok(self.close(published));
        }
        match written.kept {
            Kept::Done => tx.commit_silently().await?,
            Kept::Nothing | Kept::Elsewhere => tx.rollback().await?,
        }
        self.trace = span.place();
        span.silent();
        Ok(Some(written.answers))
    }

    /// Expires some of what is due on these levels, the longest due first.
    async fn expire(&mut self, levels: Vec<Wanted>) -> Result<(), StoreError> {
        let levels: Vec<Wanted> = levels
            .into_iter()
            .map(|wanted| Wanted {
                may_make: false,
                ..wanted
            })
            .collect();
        let if_held = self.if_held();
        let mut tx = self.writer.begin().await?;
        let locked = tx.lock_levels(&levels, &[], if_held).await?;
        let due = tx
            .expire_due(&locked.levels, locked.now, EXPIRED_MAX)
            .await?;
        let standing = locked.levels.iter().map(|(_, standing)| *standing);
        let mut book = Book::new(locked.now, standing, self.inventory.documents.stock_tag);
        book.expire(due);
        let (rows, _) = write(&mut tx, &book, &numbers(&locked)).await?;
        if rows.is_empty() {
            return tx.rollback().await;
        }
        self.open = Some(Open {
            mark: tx.mark(),
            levels,
            created: Vec::new(),
            answers: None,
            changed: Changed::Rows(rows),
            catalogue: Vec::new(),
            span: CommitSpan::default(),
        });
        let published = tx.publish().await?;
        self.close(published);
        Ok(())
    }

    /// The answers of the commit whose end was not known, if it is there. Its transaction held these levels when it was told to
    /// commit, and the skus of what it created, so whoever holds them now knows that it has ended.
    async fn look_up(&mut self) -> Result<Option<Answers>, StoreError> {
        let Some(open) = &self.open else {
            return Ok(None);
        };
        let mut tx = self.writer.begin().await?;
        for new in &open.created {
            tx.create_product(new).await?;
        }
        tx.lock_levels(&open.levels, &[], IfHeld::Wait).await?;
        let published = tx.published(open.mark).await?;
        tx.rollback().await?;
        let is_there = if published.is_some() { "yes" } else { "no" };
        let lost = &self.inventory.metrics.command_lost_commits_total;
        lost.with_label_values(&[is_there]).inc();
        let Some(published) = published else {
            self.open = None;
            return Ok(None);
        };
        Ok(self.close(published))
    }

    /// Makes a commit known, and dates its answers.
    fn close(&mut self, published: Published) -> Option<Answers> {
        let open = self.open.take()?;
        self.trace = open.span.place();
        open.span.published(published.point);
        if let Changed::Rows(rows) = &open.changed {
            let mut keys: Vec<StockKey> = rows.iter().map(|row| row.key).collect();
            keys.dedup();
            let keys: Vec<CacheKey> = keys.into_iter().map(CacheKey::Stock).collect();
            self.inventory.cache.unlink(&keys);
        }
        self.inventory.announce(Handed {
            published,
            changed: open.changed,
            catalogue: open.catalogue,
        });
        let answers = open.answers?.into_iter();
        Some(
            answers
                .map(|answer| Some(dated(answer?, published.point)))
                .collect(),
        )
    }
}

/// Longest one try may take.
fn try_max(inventory: &Inventory, wait_max: Duration) -> Duration {
    inventory.store.write_timeout().min(wait_max / 2)
}

/// An answer that was granted is true as of this commit, unless it is dated.
fn dated(answer: Reply, as_of: CommitPoint) -> Reply {
    answer.map(|answered| Answered {
        as_of: if answered.is_undated() {
            Some(as_of)
        } else {
            answered.as_of
        },
        ..answered
    })
}

/// Whether it only wants what is due to be expired.
fn is_sweep(pending: &Pending) -> bool {
    matches!(&pending.command.request, Request::Tidy(keys) if !keys.is_empty())
}

/// What a sweep is told where more is due than one transaction expires.
fn more_is_due() -> Answered {
    Answered {
        rendered: Rendered {
            status: MORE_IS_DUE,
            body: Bytes::new(),
        },
        as_of: None,
    }
}

/// How many levels a request names, at least.
fn named_levels(request: &Request) -> usize {
    match request {
        Request::Adjust { .. } | Request::Step { .. } => 1,
        Request::AdjustMany { adjustments, .. } => adjustments.len(),
        Request::Reserve(reserve) => reserve.items.len(),
        Request::Tidy(keys) => keys.len(),
    }
}
