//! Takes sides of movements back.
//!
//! Invariants: a side is taken back once, by an entry of the ledger in the same transaction; who is told that it was taken back, or
//! that there was none, is told what the database says, also where the connection was lost in the middle of the commit.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Inventory,
    decide::{Answered, CommandError, Once, Rendered, replay},
    follow::{Changed, Handed},
    record::ledger_rows,
};
use crate::{
    domain::{
        Movement,
        batch::deltas_by_key,
        void::{Reason, Refusal, TakenBack, Wanted, take_back},
    },
    store::{
        StoreError,
        answers::NewAnswer,
        writer::{BatchNumber, LevelAfter, Mark, Published, WriteTx, Writer},
    },
};

/// How long after a commit that was not answered it is looked for, and again where the database cannot be asked.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Who takes something back, and why.
#[derive(Clone, Copy, Debug)]
pub struct Because<'b> {
    pub actor: Option<&'b str>,
    pub reason: &'b Reason,
}

/// Something to take back, and how its answer is written.
pub struct Voiding<'v> {
    pub wanted: Wanted,
    pub because: Because<'v>,
    /// Under what the answer is kept for whoever asks again.
    pub once: Option<&'v Once>,
    /// Of the movement as it is afterwards, perhaps without a line.
    pub render: &'v (dyn Fn(Result<&Movement, Refusal>) -> Rendered + Sync),
}

/// What a transaction did, before it is committed.
struct Written {
    taken: TakenBack,
    levels: Vec<LevelAfter>,
    rendered: Rendered,
}

/// A transaction that was sent to be committed, and of which nothing was heard.
struct Sent {
    mark: Mark,
    written: Written,
}

/// What one try came to.
enum Tried {
    Answered(Answered),
    /// The key was used for another request.
    OtherRequest,
    /// Another transaction keeps an answer under the key: it can be read.
    Again,
}

impl Inventory {
    /// Takes a side back.
    pub async fn void(&self, voiding: &Voiding<'_>) -> Result<Answered, CommandError> {
        let under_way = voiding.once.map(|once| self.desk.begin(&once.key));
        let _under_way = under_way.transpose()?;
        let limit = self.store.write_timeout();
        let not_done = |error| CommandError::NotDone(std::sync::Arc::new(error));
        let mut writer = timeout(limit, self.void_writer.lock())
            .await
            .map_err(|_| not_done(StoreError::NoAnswer(limit)))?;
        let mut sent = None;
        let mut is_first = true;
        let give_up_at = self.clock.elapsed() + 2 * limit;
        loop {
            let result = self.void_once(&mut writer, voiding, &mut sent).await;
            let error = match result {
                Ok(Tried::Answered(answered)) => return Ok(answered),
                Ok(Tried::OtherRequest) => return Err(CommandError::OtherRequest),
                Ok(Tried::Again) => continue,
                Err(error) => error,
            };
            let is_lost = error.is_lost_connection() || matches!(error, StoreError::NoAnswer(_));
            // The first connection may have gone stale. Whether a commit that was not answered was made has to be found out.
            let is_tried_again = is_first || sent.is_some() && self.clock.elapsed() < give_up_at;
            if !(is_lost && is_tried_again) {
                let error = std::sync::Arc::new(error);
                return Err(match sent {
                    Some(_) => CommandError::Unknown(error),
                    None => CommandError::NotDone(error),
                });
            }
            is_first = false;
            if sent.is_some() {
                sleep(LOOK_AFTER).await;
            }
        }
    }

    async fn void_once(
        &self,
        writer: &mut Writer,
        voiding: &Voiding<'_>,
        sent: &mut Option<Sent>,
    ) -> Result<Tried, StoreError> {
        let limit = self.store.write_timeout();
        timeout(limit, self.transact_void(writer, voiding, sent))
            .await
            .unwrap_or(Err(StoreError::NoAnswer(limit)))
    }

    async fn transact_void(
        &self,
        writer: &mut Writer,
        voiding: &Voiding<'_>,
        sent: &mut Option<Sent>,
    ) -> Result<Tried, StoreError> {
        let wanted = voiding.wanted;
        let mut tx = writer.begin().await?;
        // Whoever holds the lines waits for every transaction that wrote them: one that was sent before is over by now.
        let lines = tx.lock_lines(wanted.movement).await?;
        if let Some(before) = sent.as_ref()
            && let Some(published) = tx.published(before.mark).await?
        {
            tx.rollback().await?;
            return Ok(self.tell_void(published, &before.written));
        }
        *sent = None;
        if let Some(once) = voiding.once
            && let Some((_, kept)) = tx.kept_answers(&[&once.key]).await?.pop()
        {
            tx.rollback().await?;
            return Ok(replay(once, kept).map_or(Tried::OtherRequest, Tried::Answered));
        }
        let taken = match take_back(&lines, wanted) {
            Ok(taken) => taken,
            Err(refusal) => return refuse(tx, voiding, refusal).await,
        };
        let span = self.traces.commit("void", 1, self.traces.cause());
        tx.record(span.place());
        let mark = tx.mark();
        let written = write(&mut tx, taken, voiding).await?;
        if !keep(&mut tx, voiding, &written.rendered, Some(mark.batch)).await? {
            tx.rollback().await?;
            return Ok(Tried::Again);
        }
        let sent = sent.insert(Sent { mark, written });
        let published = tx.publish().await?;
        span.published(published.point);
        Ok(self.tell_void(published, &sent.written))
    }

    /// Makes the commit known, and says what it left.
    fn tell_void(&self, published: Published, written: &Written) -> Tried {
        self.announce(Handed {
            published,
            changed: Changed::Sides {
                changes: written.taken.changes.clone(),
                levels: written.levels.clone(),
            },
            catalogue: Vec::new(),
        });
        Tried::Answered(Answered {
            rendered: written.rendered.clone(),
            as_of: Some(published.point),
        })
    }
}

/// Says no, and keeps it if it is to be said again.
async fn refuse(
    mut tx: WriteTx<'_>,
    voiding: &Voiding<'_>,
    refusal: Refusal,
) -> Result<Tried, StoreError> {
    let rendered = (voiding.render)(Err(refusal));
    let answered = Answered {
        rendered,
        as_of: None,
    };
    if !keep(&mut tx, voiding, &answered.rendered, None).await? {
        tx.rollback().await?;
        return Ok(Tried::Again);
    }
    tx.commit_silently().await?;
    Ok(Tried::Answered(answered))
}

/// Keeps an answer, if it has a key and is one to be given again. False if another transaction has kept one meanwhile.
async fn keep(
    tx: &mut WriteTx<'_>,
    voiding: &Voiding<'_>,
    rendered: &Rendered,
    batch: Option<BatchNumber>,
) -> Result<bool, StoreError> {
    match voiding.once.filter(|_| rendered.is_kept()) {
        None => Ok(true),
        Some(once) => {
            tx.keep_answers(&[NewAnswer {
                key: &once.key,
                fingerprint: once.fingerprint,
                status: i16::try_from(rendered.status).unwrap_or(i16::MAX),
                body: &rendered.body,
                batch,
            }])
            .await
        }
    }
}

/// Everything between the decision and the commit, in lock order. The lines are locked.
async fn write(
    tx: &mut WriteTx<'_>,
    taken: TakenBack,
    voiding: &Voiding<'_>,
) -> Result<Written, StoreError> {
    let (movement, because) = (voiding.wanted.movement, voiding.because);
    tx.keep_voided(&taken).await?;
    tx.clear_sides(&taken).await?;
    let levels = tx.add_to_levels(&deltas_by_key(&taken.changes)).await?;
    let rows = ledger_rows(&taken.changes, &levels)?;
    let rows = rows.iter().map(|(change, level)| (*change, level));
    tx.append_ledger(rows).await?;
    tx.note_void(movement, taken.side, because.actor, because.reason)
        .await?;
    let left = Movement {
        id: movement,
        lines: taken.left.clone(),
    };
    Ok(Written {
        rendered: (voiding.render)(Ok(&left)),
        taken,
        levels,
    })
}
