//! One transaction of requests, between its begin and its commit, in the order of its locks.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{Answered, Decided, Reply, desk::Pending, replay};
use crate::{
    domain::{
        InventoryId, ProductId, ReservationId, StockKey,
        change::LedgerRow,
        command::Request,
        decide::{Book, Entry, Refusal, Standing, TagOf, Verdict},
        stock::ProductStock,
    },
    inventory::follow::Changed,
    store::{
        StoreError,
        answers::{KeptAnswer, NewAnswer, OnceKey},
        catalogue::CatalogueChange,
        decided::{IfHeld, Locked, Ordered, Wanted},
        listings::NewProduct,
        writer::{BatchNumber, WriteTx},
    },
};

/// Most reservations' lines that one transaction expires: what more is due, the next ones do, before anything is decided.
pub(super) const EXPIRED_MAX: i64 = 5_000;

/// What the requests of a batch touch.
#[derive(Default)]
struct Touched {
    /// And whether they may be made.
    levels: BTreeMap<StockKey, bool>,
    /// Products of which any warehouse will do.
    products: Vec<Uuid>,
    reservations: Vec<Uuid>,
    /// The levels of those that are there.
    held: HashMap<ReservationId, Vec<StockKey>>,
}

/// A transaction before it is committed.
pub(super) struct Written {
    /// In the order of the batch; those of its own commit are not dated.
    pub(super) answers: Answers,
    pub(super) kept: Kept,
    pub(super) is_published: bool,
    pub(super) levels: Vec<Wanted>,
    pub(super) created: Vec<NewProduct>,
    pub(super) changed: Changed,
    pub(super) catalogue: Vec<CatalogueChange>,
}

/// What a batch is answered, in its order; nothing where a request is to be decided by who waits for levels.
pub(super) type Answers = Vec<Option<Reply>>;

/// What became of the answers that are to be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    Done,
    /// Another transaction keeps one under one of the keys: this one must not be committed.
    Elsewhere,
}

/// What a transaction came to before its end.
pub(super) enum Found {
    Decided(Written),
    /// On these levels; so much that it is expired first.
    MoreIsDue(Vec<Wanted>),
}

/// Everything between begin and commit.
pub(super) async fn decide(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    tag_of: TagOf,
    if_held: IfHeld,
) -> Result<Found, StoreError> {
    let known = known_answers(tx, batch).await?;
    // What creates a product makes its level.
    let may_wait =
        |place: &usize| if_held == IfHeld::Wait || batch[*place].command.creates.is_none();
    let open: Vec<usize> = (0..batch.len())
        .filter(|n| !known.contains_key(n))
        .filter(may_wait)
        .collect();
    let (created, catalogue) = create(tx, batch, &open).await?;
    let is_taken = |place: &usize| created.get(place).is_some_and(Option::is_none);
    let (taken, mut open): (Vec<usize>, Vec<usize>) = open.into_iter().partition(is_taken);
    let request = |place: &usize| &batch[*place].command.request;
    let mut touched = touch(tx, open.iter().map(request)).await?;
    let locked = touched.lock(tx, if_held).await?;
    open.retain(|place| !touched.is_any(request(place), &locked.passed_over));
    let requests = || open.iter().map(request);
    for (_, standing) in &locked.levels {
        touched.level(standing.key, false);
    }
    let Some(mut book) = read(tx, &locked, &touched, tag_of).await? else {
        return Ok(Found::MoreIsDue(touched.levels()));
    };
    let verdicts: Vec<Verdict> = requests().map(|request| book.decide(request)).collect();
    let ids = numbers(&locked);
    let (rows, orders) = write(tx, &book, &ids).await?;
    let shown = show(tx, batch, &open, &verdicts).await?;

    let refused = Verdict::Refused(Refusal::SkuTaken, None);
    let taken = taken.iter().map(|place| (place, &refused));
    let mut answers: Answers = (0..batch.len()).map(|_| None).collect();
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
        answers[place] = once.map(|once| replay(once, answer));
    }
    let created = created.into_iter().filter(|(_, number)| number.is_some());
    let created = created.filter_map(|(place, _)| batch[place].command.creates.clone());
    Ok(Found::Decided(Written {
        answers,
        kept,
        is_published,
        levels: touched.levels(),
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
    touched.products.sort_unstable();
    touched.products.dedup();
    if !touched.reservations.is_empty() {
        for (reservation, held) in tx.reservations(&touched.reservations).await? {
            let keys: Vec<StockKey> = held.lines.iter().map(|(key, _)| *key).collect();
            for key in &keys {
                touched.level(*key, false);
            }
            touched.held.insert(reservation, keys);
        }
    }
    Ok(touched)
}

impl Touched {
    fn level(&mut self, key: StockKey, may_make: bool) {
        *self.levels.entry(key).or_default() |= may_make;
    }

    fn levels(&self) -> Vec<Wanted> {
        let levels = self.levels.iter();
        levels
            .map(|(&key, &may_make)| Wanted { key, may_make })
            .collect()
    }

    /// Locks the levels, and forgets those that are passed over.
    async fn lock(&mut self, tx: &mut WriteTx<'_>, if_held: IfHeld) -> Result<Locked, StoreError> {
        let locked = tx
            .lock_levels(&self.levels(), &self.products, if_held)
            .await?;
        self.levels
            .retain(|key, _| !locked.passed_over.contains(key));
        Ok(locked)
    }

    /// Whether a request is about any of these levels.
    fn is_any(&self, request: &Request, levels: &HashSet<StockKey>) -> bool {
        let is_one = |key: &StockKey| levels.contains(key);
        if levels.is_empty() {
            return false;
        }
        match request {
            Request::Adjust { adjustment, .. } => is_one(&adjustment.key),
            Request::AdjustMany { adjustments, .. } => {
                adjustments.iter().any(|adjustment| is_one(&adjustment.key))
            }
            Request::Reserve(reserve) => reserve.items.iter().any(|item| {
                let product = item.product;
                match item.warehouse {
                    Some(warehouse) => is_one(&StockKey { warehouse, product }),
                    None => levels.iter().any(|key| key.product == product),
                }
            }),
            Request::Step { reservation, .. } => {
                let keys = self.held.get(reservation);
                keys.is_some_and(|keys| keys.iter().any(is_one))
            }
            Request::Tidy(keys) => keys.iter().any(is_one),
        }
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
    if locked.may_have_due {
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

pub(super) fn numbers(locked: &Locked) -> HashMap<StockKey, InventoryId> {
    let levels = locked.levels.iter();
    levels
        .map(|(id, Standing { key, .. })| (*key, *id))
        .collect()
}

/// The numbers of the orders that were made, by their reservations.
#[derive(Default)]
pub(super) struct Orders(HashMap<ReservationId, i64>);

impl Orders {
    fn number_of(&self, verdict: &Verdict) -> Option<i64> {
        match verdict {
            Verdict::Reserved(reserved) => self.0.get(&reserved.id).copied(),
            _ => None,
        }
    }
}

/// Writes what was decided; the rows of the ledger by key, and the numbers of the orders.
pub(super) async fn write(
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

/// Keeps the answers that are to be given again; those that were granted under that batch. Under a key whose answer is not one of them,
/// somebody else may have kept one while this transaction waited for him.
async fn keep(
    tx: &mut WriteTx<'_>,
    batch: &[Pending],
    answers: &[Option<Reply>],
    under: Option<BatchNumber>,
) -> Result<Kept, StoreError> {
    let answers = batch.iter().zip(answers).filter_map(|(pending, answer)| {
        let rendered = &answer.as_ref()?.as_ref().ok()?.rendered;
        Some((pending.command.once.as_ref()?, rendered))
    });
    let (mut new, mut not_kept) = (Vec::new(), Vec::new());
    for (once, rendered) in answers {
        if rendered.is_kept() {
            new.push(NewAnswer {
                key: &once.key,
                fingerprint: once.fingerprint,
                status: i16::try_from(rendered.status).unwrap_or(i16::MAX),
                body: &rendered.body,
                batch: under.filter(|_| rendered.status < 400),
            });
        } else {
            not_kept.push(&once.key);
        }
    }
    if !not_kept.is_empty() && !tx.kept_answers(&not_kept).await?.is_empty() {
        return Ok(Kept::Elsewhere);
    }
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
