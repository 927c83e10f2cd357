//! Decides requests: those that come while a transaction is under way are the next one.
//!
//! Invariants: a request is decided over locked levels, and answered once its commit is known to be there; what a lost connection
//! leaves open is looked up, never guessed; a caller that goes away cancels nothing half-way. A batch in which nothing was granted
//! publishes nothing. What is not here: what may be granted (`domain::decide`), and how answers are written.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Inventory,
    follow::{Changed, Handed},
};
use crate::{
    cache::CacheKey,
    domain::{
        CommitPoint, InventoryId, ProductId, ReservationId, StockKey,
        change::LedgerRow,
        command::Request,
        decide::{Book, Entry, Refusal, Standing, TagOf, Verdict},
        stock::ProductStock,
    },
    store::{
        StoreError,
        answers::{KeptAnswer, NewAnswer, OnceKey},
        catalogue::CatalogueChange,
        decided::{Locked, Ordered, Wanted},
        listings::NewProduct,
        writer::{BatchNumber, Mark, Published, WriteTx, Writer},
    },
};

/// Requests that wait to be decided; a further one is refused at once.
const QUEUE_MAX: usize = 10_000;
/// Most requests of one transaction, and most levels they name: what it locks, and how long it takes.
const BATCH_REQUESTS_MAX: usize = 1_000;
const BATCH_LEVELS_MAX: usize = 2_000;
/// Most reservations' lines that one transaction expires: what more is due, the next ones do, before anything is decided.
const EXPIRED_MAX: i64 = 5_000;
/// Back-off between tries while the database is away.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

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

type Reply = Result<Answered, CommandError>;

/// A command that waits for its answer.
pub(super) struct Pending {
    command: Command,
    reply: oneshot::Sender<Reply>,
    /// Held as long as the command is under way.
    _under_way: Option<UnderWay>,
}

/// The way to the decider.
#[derive(Debug)]
pub(super) struct Desk {
    queue: mpsc::Sender<Pending>,
    keys: Arc<Mutex<HashSet<OnceKey>>>,
}

/// A key under way in this process.
pub(super) struct UnderWay {
    keys: Arc<Mutex<HashSet<OnceKey>>>,
    key: OnceKey,
}

impl UnderWay {
    fn begin(keys: &Arc<Mutex<HashSet<OnceKey>>>, key: &OnceKey) -> Result<Self, CommandError> {
        let is_new = keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone());
        is_new
            .then(|| Self {
                keys: Arc::clone(keys),
                key: key.clone(),
            })
            .ok_or(CommandError::InProgress)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

impl Desk {
    pub(super) fn new() -> (Self, mpsc::Receiver<Pending>) {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let keys = Arc::default();
        (Self { queue, keys }, receiver)
    }

    /// Takes a key for as long as its request is under way in this process.
    pub(super) fn begin(&self, key: &OnceKey) -> Result<UnderWay, CommandError> {
        UnderWay::begin(&self.keys, key)
    }
}

impl Inventory {
    /// Has a request decided. Dropping this future does not take it back.
    pub async fn decide(&self, command: Command) -> Reply {
        let once = command.once.as_ref();
        let under_way = once.map(|once| self.desk.begin(&once.key));
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            _under_way: under_way.transpose()?,
            command,
            reply,
        };
        self.desk
            .queue
            .try_send(pending)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => CommandError::Busy,
                mpsc::error::TrySendError::Closed(_) => CommandError::Stopping,
            })?;
        let answer = answer.await.unwrap_or(Err(CommandError::Stopping));
        let result = match &answer {
            Ok(answered) if answered.rendered.status < 400 => "done",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        let commands = &self.metrics.commands_total;
        commands.with_label_values(&[result]).inc();
        answer
    }
}

impl Inventory {
    /// What the same request with the same key was answered before.
    pub async fn kept_answer(&self, once: &Once) -> Result<Option<Answered>, StoreError> {
        let kept = self.retried(|| self.store.kept_answer(&once.key)).await?;
        Ok(kept.and_then(|kept| replay(once, kept)))
    }
}

/// Decides what comes to the desk, one transaction at a time.
pub struct Decider {
    inventory: Arc<Inventory>,
    queue: mpsc::Receiver<Pending>,
    writer: Writer,
    /// Longest a request may take to be decided, while the database is away.
    wait_max: Duration,
    /// A commit whose end is not known.
    open: Option<Open>,
}

impl fmt::Debug for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decider").finish_non_exhaustive()
    }
}

/// A transaction that was told to commit, and what is to be answered if it did.
struct Open {
    mark: Mark,
    levels: Vec<Wanted>,
    /// Whose skus it holds.
    created: Vec<NewProduct>,
    /// `None`: nothing was decided yet.
    answers: Option<Vec<Reply>>,
    changed: Changed,
    catalogue: Vec<CatalogueChange>,
}

/// What the requests of a batch touch.
#[derive(Default)]
struct Touched {
    levels: BTreeMap<StockKey, bool>,
    products: Vec<Uuid>,
    reservations: Vec<Uuid>,
}

impl Decider {
    pub(super) fn new(
        inventory: Arc<Inventory>,
        queue: mpsc::Receiver<Pending>,
        wait_max: Duration,
    ) -> Self {
        Self {
            writer: inventory.store.hasty_writer(try_max(&inventory, wait_max)),
            inventory,
            queue,
            wait_max,
            open: None,
        }
    }

    /// Decides until told to stop, and then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
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

    /// The requests that wait, to a bound. Nobody waits any more for some of them.
    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let (mut batch, mut levels) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(pending) = next {
            if !pending.reply.is_closed() {
                levels += named_levels(&pending.command.request);
                batch.push(pending);
            }
            let is_full = batch.len() >= BATCH_REQUESTS_MAX || levels >= BATCH_LEVELS_MAX;
            next = if is_full {
                None
            } else {
                self.queue.try_recv().ok()
            };
        }
        batch
    }

    /// Decides a batch and answers, however often it takes; a request that the database does not take is answered alone.
    async fn settle(&mut self, batch: Vec<Pending>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.decided(&part).await {
                Ok(answers) => {
                    for (pending, answer) in part.into_iter().zip(answers) {
                        drop(pending.reply.send(answer));
                    }
                }
                Err(CommandError::NotDone(error)) if part.len() > 1 && error.is_of_request() => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) => {
                    tracing::warn!(%error, requests = part.len(), "requests could not be decided");
                    for pending in part {
                        drop(pending.reply.send(Err(error.clone())));
                    }
                }
            }
        }
    }

    /// The answers to a batch, tried again as long as requests may wait.
    async fn decided(&mut self, batch: &[Pending]) -> Result<Vec<Reply>, CommandError> {
        let clock = self.inventory.clock.clone();
        let began = clock.elapsed();
        let mut wait = RETRY_MIN;
        self.inventory
            .metrics
            .command_batch_requests
            .observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        loop {
            let limit = try_max(&self.inventory, self.wait_max);
            let tried = timeout(limit, self.attempt(batch));
            let error = match tried.await.unwrap_or(Err(StoreError::NoAnswer(limit))) {
                Ok(Some(answers)) => return Ok(answers),
                // Somebody else was given an answer under one of the keys just now: it can be read.
                Ok(None) => continue,
                Err(error) => error,
            };
            let is_final = error.is_of_request() || error.is_read_only();
            if is_final || clock.elapsed().saturating_sub(began) > self.wait_max {
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
    async fn attempt(&mut self, batch: &[Pending]) -> Result<Option<Vec<Reply>>, StoreError> {
        if self.open.is_some()
            && let Some(answers) = self.look_up().await?
        {
            return Ok(Some(answers));
        }
        let mut tx = self.writer.begin().await?;
        let tag_of = self.inventory.documents.stock_tag;
        let written = match decide(&mut tx, batch, tag_of).await {
            Ok(Found::Decided(written)) => written,
            Ok(Found::MoreIsDue(levels)) => {
                tx.rollback().await?;
                self.expire(levels).await?;
                return Ok(None);
            }
            Err(error) if error.is_of_request() => {
                tx.rollback().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if written.kept == Kept::Elsewhere {
            tx.rollback().await?;
            return Ok(None);
        }
        crash_point!("decided");
        if written.is_published {
            self.open = Some(Open {
                mark: tx.mark(),
                levels: written.levels,
                created: written.created,
                answers: Some(written.answers),
                changed: written.changed,
                catalogue: written.catalogue,
            });
            let published = tx.publish().await?;
            return Ok(self.close(published));
        }
        match written.kept {
            Kept::Done => tx.commit_silently().await?,
            Kept::Nothing | Kept::Elsewhere => tx.rollback().await?,
        }
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
        let mut tx = self.writer.begin().await?;
        let locked = tx.lock_levels(&levels).await?;
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
        });
        let published = tx.publish().await?;
        self.close(published);
        Ok(())
    }

    /// The answers of the commit whose end was not known, if it is there. Its transaction held these levels when it was told to
    /// commit, and the skus of what it created, so whoever holds them now knows that it has ended.
    async fn look_up(&mut self) -> Result<Option<Vec<Reply>>, StoreError> {
        let Some(open) = &self.open else {
            return Ok(None);
        };
        let mut tx = self.writer.begin().await?;
        for new in &open.created {
            tx.create_product(new).await?;
        }
        tx.lock_levels(&open.levels).await?;
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
    fn close(&mut self, published: Published) -> Option<Vec<Reply>> {
        let open = self.open.take()?;
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
                .map(|answer| dated(answer, published.point))
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

/// How many levels a request names, at least.
fn named_levels(request: &Request) -> usize {
    match request {
        Request::Adjust { .. } | Request::Step { .. } => 1,
        Request::AdjustMany { adjustments, .. } => adjustments.len(),
        Request::Reserve(reserve) => reserve.items.len(),
        Request::Tidy(keys) => keys.len(),
    }
}

/// A transaction before it is committed.
struct Written {
    /// In the order of the batch; those of its own commit are not dated.
    answers: Vec<Reply>,
    kept: Kept,
    is_published: bool,
    levels: Vec<Wanted>,
    created: Vec<NewProduct>,
    changed: Changed,
    catalogue: Vec<CatalogueChange>,
}

/// What became of the answers that are to be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Nothing,
    Done,
    /// Another transaction keeps one under one of the keys: this one must not be committed.
    Elsewhere,
}

/// What a transaction came to before its end.
enum Found {
    Decided(Written),
    /// On these levels; so much that it is expired first.
    MoreIsDue(Vec<Wanted>),
}

/// Everything between begin and commit.
async fn decide(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    tag_of: TagOf,
) -> Result<Found, StoreError> {
    let known = known_answers(tx, batch).await?;
    let open: Vec<usize> = (0..batch.len())
        .filter(|n| !known.contains_key(n))
        .collect();
    let (created, catalogue) = create(tx, batch, &open).await?;
    let is_taken = |place: &usize| created.get(place).is_some_and(Option::is_none);
    let (taken, open): (Vec<usize>, Vec<usize>) = open.into_iter().partition(is_taken);
    let requests = || open.iter().map(|&place| &batch[place].command.request);
    let touched = touch(tx, requests()).await?;
    let levels: Vec<Wanted> = touched
        .levels
        .iter()
        .map(|(&key, &may_make)| Wanted { key, may_make })
        .collect();
    let locked = tx.lock_levels(&levels).await?;
    let Some(mut book) = read(tx, &locked, &touched, tag_of).await? else {
        return Ok(Found::MoreIsDue(levels));
    };
    let verdicts: Vec<Verdict> = requests().map(|request| book.decide(request)).collect();
    let ids = numbers(&locked);
    let (rows, orders) = write(tx, &book, &ids).await?;
    let shown = show(tx, batch, &open, &verdicts).await?;

    let refused = Verdict::Refused(Refusal::SkuTaken, None);
    let taken = taken.iter().map(|place| (place, &refused));
    let mut answers: Vec<Option<Reply>> = (0..batch.len()).map(|_| None).collect();
    for (&place, verdict) in open.iter().zip(&verdicts).chain(taken) {
        let command = &batch[place].command;
        let decided = Decided {
            verdict,
            book: &book,
            numbers: &ids,
            order: orders.number_of(verdict),
            product_number: created.get(&place).copied().flatten(),
            product: command.shows.and_then(|product| shown.get(&product)),
        };
        answers[place] = Some(Ok(Answered {
            rendered: (command.render)(&decided),
            as_of: None,
        }));
    }
    let is_published = !book.effects().is_empty() || !catalogue.is_empty();
    let mut kept_under = Some(tx.batch());
    if !is_published {
        kept_under = date_by_newest(tx, &mut answers).await?;
    }
    let kept = keep(tx, batch, &answers, kept_under).await?;
    for (place, answer) in known {
        let once = batch[place].command.once.as_ref();
        let answered = once.and_then(|once| replay(once, answer));
        answers[place] = Some(answered.ok_or(CommandError::OtherRequest));
    }
    let created = created.into_iter().filter(|(_, number)| number.is_some());
    let created = created.filter_map(|(place, _)| batch[place].command.creates.clone());
    Ok(Found::Decided(Written {
        answers: answers.into_iter().flatten().collect(),
        kept,
        is_published,
        levels,
        created: created.collect(),
        changed: Changed::Rows(rows),
        catalogue,
    }))
}

/// What was done before, and needs no commit now, is true as of any: of the newest. Its batch, if there is such an answer.
async fn date_by_newest(
    tx: &mut WriteTx<'_>,
    answers: &mut [Option<Reply>],
) -> Result<Option<BatchNumber>, StoreError> {
    let has_undated = answers.iter().flatten().flatten().any(Answered::is_undated);
    if !has_undated {
        return Ok(None);
    }
    let (newest, batch) = tx.newest().await?;
    for answer in answers.iter_mut().flatten().flatten() {
        if answer.is_undated() {
            answer.as_of = Some(newest);
        }
    }
    Ok(Some(batch))
}

/// The answers that are kept for requests of the batch, by place.
async fn known_answers(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
) -> Result<HashMap<usize, KeptAnswer>, StoreError> {
    let with_key = batch.iter().enumerate();
    let with_key = with_key.filter_map(|(n, p)| Some((n, &p.command.once.as_ref()?.key)));
    let (places, keys): (Vec<usize>, Vec<&OnceKey>) = with_key.unzip();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let kept = tx.kept_answers(&keys).await?.into_iter();
    Ok(kept
        .filter_map(|(n, answer)| Some((*places.get(n)?, answer)))
        .collect())
}

/// An answer that was given before; `None`: to another request.
pub(super) fn replay(once: &Once, kept: KeptAnswer) -> Option<Answered> {
    if once.fingerprint != kept.fingerprint {
        return None;
    }
    let rendered = Rendered {
        status: u16::try_from(kept.status).unwrap_or(500),
        body: kept.body,
    };
    let is_granted = rendered.status < 400;
    Some(Answered {
        rendered,
        as_of: kept.as_of.filter(|_| is_granted),
    })
}

/// Creates products, each unless its sku is taken; their numbers by place.
async fn create(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    open: &[usize],
) -> Result<(HashMap<usize, Option<i64>>, Vec<CatalogueChange>), StoreError> {
    let (mut created, mut changes) = (HashMap::new(), Vec::new());
    let new = |place: &usize| Some((*place, batch[*place].command.creates.as_ref()?));
    let mut new: Vec<(usize, &NewProduct)> = open.iter().filter_map(new).collect();
    // Who creates the same ones elsewhere takes them in the same order.
    new.sort_by_key(|(_, new)| new.product.sku.clone());
    for (place, new) in new {
        let number = tx.create_product(new).await?;
        if number.is_some() {
            changes.push(CatalogueChange::Product(new.product.clone()));
        }
        created.insert(place, number);
    }
    Ok((created, changes))
}

/// What has to be locked for these requests.
async fn touch<'r>(
    tx: &mut WriteTx<'_>,
    requests: impl Iterator<Item = &'r Request>,
) -> Result<Touched, StoreError> {
    let mut touched = Touched::default();
    for request in requests {
        match request {
            Request::Adjust { adjustment, .. } => {
                touched.level(adjustment.key, adjustment.makes_level());
            }
            Request::AdjustMany { adjustments, .. } => {
                for adjustment in adjustments {
                    touched.level(adjustment.key, adjustment.makes_level());
                }
            }
            Request::Reserve(reserve) => {
                for item in &reserve.items {
                    let product = item.product;
                    match item.warehouse {
                        Some(warehouse) => touched.level(StockKey { warehouse, product }, false),
                        None => touched.products.push(product.uuid()),
                    }
                }
            }
            Request::Step { reservation, .. } => touched.reservations.push(reservation.uuid()),
            Request::Tidy(keys) => keys.iter().for_each(|&key| touched.level(key, false)),
        }
    }
    if !touched.products.is_empty() {
        touched.products.sort_unstable();
        touched.products.dedup();
        for key in tx.places_of(&touched.products).await? {
            touched.level(key, false);
        }
    }
    if !touched.reservations.is_empty() {
        for (_, held) in tx.reservations(&touched.reservations).await? {
            held.lines
                .iter()
                .for_each(|(key, _)| touched.level(*key, false));
        }
    }
    Ok(touched)
}

impl Touched {
    fn level(&mut self, key: StockKey, may_make: bool) {
        *self.levels.entry(key).or_default() |= may_make;
    }
}

/// Everything that is decided over, under the locks; `None`: more is due than is expired at once.
async fn read(
    tx: &mut WriteTx<'_>,
    locked: &Locked,
    touched: &Touched,
    tag_of: TagOf,
) -> Result<Option<Book>, StoreError> {
    let standing = locked.levels.iter().map(|(_, standing)| *standing);
    let mut book = Book::new(locked.now, standing, tag_of);
    if locked.levels.iter().any(|(_, at)| at.level.reserved > 0) {
        let due = tx
            .expire_due(&locked.levels, locked.now, EXPIRED_MAX)
            .await?;
        if i64::try_from(due.len()) == Ok(EXPIRED_MAX) {
            return Ok(None);
        }
        book.expire(due);
    }
    book.know_unknown(locked.archived.iter().copied());
    if !touched.reservations.is_empty() {
        book.hold(tx.reservations(&touched.reservations).await?);
    }
    let (products, warehouses) = unproven(locked, touched);
    if !products.is_empty() {
        book.know_unknown(tx.unknown(&products, &warehouses).await?);
    }
    Ok(Some(book))
}

/// Products and warehouses of which no level proves that they are in the catalogue.
fn unproven(locked: &Locked, touched: &Touched) -> (Vec<Uuid>, Vec<Uuid>) {
    let there = locked
        .levels
        .iter()
        .filter(|(_, at)| at.level.revision.0 > 0);
    let there: HashSet<StockKey> = there.map(|(_, at)| at.key).collect();
    let of_product: HashSet<Uuid> = there.iter().map(|key| key.product.uuid()).collect();
    let missing = touched.levels.keys().filter(|key| !there.contains(*key));
    let (mut products, mut warehouses): (Vec<Uuid>, Vec<Uuid>) = missing
        .map(|key| (key.product.uuid(), key.warehouse.uuid()))
        .unzip();
    let elsewhere = touched
        .products
        .iter()
        .filter(|id| !of_product.contains(*id));
    products.extend(elsewhere);
    for ids in [&mut products, &mut warehouses] {
        ids.sort_unstable();
        ids.dedup();
    }
    (products, warehouses)
}

fn numbers(locked: &Locked) -> HashMap<StockKey, InventoryId> {
    let levels = locked.levels.iter();
    levels
        .map(|(id, Standing { key, .. })| (*key, *id))
        .collect()
}

/// The numbers of the orders that were made, by their reservations.
#[derive(Default)]
struct Orders(HashMap<ReservationId, i64>);

impl Orders {
    fn number_of(&self, verdict: &Verdict) -> Option<i64> {
        match verdict {
            Verdict::Reserved(reserved) => self.0.get(&reserved.id).copied(),
            _ => None,
        }
    }
}

/// Writes what was decided; the rows of the ledger by key, and the numbers of the orders.
async fn write(
    tx: &mut WriteTx<'_>,
    book: &Book,
    ids: &HashMap<StockKey, InventoryId>,
) -> Result<(Vec<LedgerRow>, Orders), StoreError> {
    let number = |key: StockKey| {
        let number = ids.get(&key).copied();
        number.ok_or(StoreError::Inconsistent("a level that was not locked"))
    };
    let untouched = book.untouched().map(|key| Ok(number(key)?.0));
    let untouched: Vec<i64> = untouched.collect::<Result<_, StoreError>>()?;
    if !untouched.is_empty() {
        tx.forget_levels(&untouched).await?;
    }
    let effects = book.effects();
    let mut entries: Vec<&Entry> = effects.entries.iter().collect();
    entries.sort_by_key(|entry| entry.key);
    let rows = entries.iter().map(|entry| {
        let level = book.level(entry.key);
        Ok(LedgerRow {
            key: entry.key,
            inventory_id: number(entry.key)?,
            kind: entry.kind,
            delta: entry.delta,
            after: level.amounts(),
            revision: level.revision,
        })
    });
    let rows: Vec<LedgerRow> = rows.collect::<Result<_, StoreError>>()?;
    if !rows.is_empty() {
        let levels = book.changed().map(|(key, level)| Ok((number(key)?, level)));
        let levels: Vec<_> = levels.collect::<Result<_, StoreError>>()?;
        tx.write_decided(&levels, &rows, &entries, &effects.made, book.now())
            .await?;
        tx.write_notes(&entries).await?;
    }
    if !effects.moved.is_empty() {
        tx.move_reservations(&effects.moved, book.now()).await?;
    }
    if !effects.extended.is_empty() {
        tx.extend_reservations(&effects.extended, book.now())
            .await?;
    }
    let made = effects.made.iter().filter(|made| made.is_order);
    let orders: Vec<Ordered> = made
        .filter_map(|made| {
            let (key, _) = made.lines.first()?;
            Some(Ordered {
                reservation: made.id,
                product: key.product,
                quantity: made.lines.iter().map(|(_, quantity)| quantity).sum(),
            })
        })
        .collect();
    let mut made = Orders::default();
    if !orders.is_empty() {
        made.0.extend(tx.write_orders(&orders, book.now()).await?);
    }
    Ok((rows, made))
}

/// The products that answers show, as they are now.
async fn show(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    open: &[usize],
    verdicts: &[Verdict],
) -> Result<HashMap<ProductId, ProductStock>, StoreError> {
    let granted = open.iter().zip(verdicts);
    let granted = granted.filter(|(_, verdict)| !matches!(verdict, Verdict::Refused(..)));
    let mut wanted: Vec<ProductId> = granted
        .filter_map(|(&place, _)| batch[place].command.shows)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let shown = tx.product_stock(&wanted).await?.into_iter();
    Ok(shown.map(|stock| (stock.product.id, stock)).collect())
}

/// Keeps the answers that are to be given again; those that were granted under that batch.
async fn keep(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    answers: &[Option<Reply>],
    under: Option<BatchNumber>,
) -> Result<Kept, StoreError> {
    let new = batch.iter().zip(answers).filter_map(|(pending, answer)| {
        let once = pending.command.once.as_ref()?;
        let rendered = &answer.as_ref()?.as_ref().ok()?.rendered;
        rendered.is_kept().then(|| NewAnswer {
            key: &once.key,
            fingerprint: once.fingerprint,
            status: i16::try_from(rendered.status).unwrap_or(i16::MAX),
            body: &rendered.body,
            batch: under.filter(|_| rendered.status < 400),
        })
    });
    let mut new: Vec<NewAnswer<'_>> = new.collect();
    if new.is_empty() {
        return Ok(Kept::Nothing);
    }
    new.sort_unstable_by_key(|answer| answer.key);
    Ok(if tx.keep_answers(&new).await? {
        Kept::Done
    } else {
        Kept::Elsewhere
    })
}
