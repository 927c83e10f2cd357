//! Makes levels and movements anew from the ledger, while the service goes on.
//!
//! New tables are filled beside the old ones, slice by slice, and compared with them; what is committed meanwhile is added and compared
//! again, until little is missing. Then writers wait for as long as the rest takes, and the new tables take the place of the old
//! ones in one transaction. Invariants: at every moment one of the two serves, whole; no statement holds a snapshot for more
//! than 5 s; whoever showed something that was not so is told to begin anew, and where nothing differed nobody notices.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::{difference::Difference, verify::Slice};
use crate::{
    clock::Clock,
    domain::Version,
    store::{
        Store, StoreError,
        rebuild::{LineTable, Rebuild},
    },
};

/// Ledger rows that are added by one statement, and levels or lines that are compared by one, at first; then as many as take some
/// tenths of a second.
const ROWS_FIRST: i64 = 2_000;
const ROWS_MAX: i64 = 20_000;
/// Commits that are looked through for the end of a slice, at first; then twice as many as the last slice had.
const COMMITS_FIRST: i64 = 10;
const COMMITS_MAX: i64 = 1_000;
/// Most ledger rows that are added while writers wait: tenths of a second.
const LAST_ROWS_MAX: i64 = 2_000;
/// How often the end is tried, and how long it is left between: long transactions and dumps are in the way.
const TRIES_MAX: usize = 30;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Differences that are named, of levels and of lines.
const NAMED_MAX: i64 = 100;

/// What a rebuild has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Levels and lines that were not what the ledger says.
    pub levels: i64,
    pub lines: i64,
    /// Up to which version old and new were compared.
    pub version: i64,
}

impl Rebuilt {
    pub fn differences(&self) -> i64 {
        self.levels + self.lines
    }
}

/// Why the old tables are still there.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("another rebuild is under way")]
    NotAlone,
    #[error(
        "the ledger has levels that stock_levels has not, so nothing says what they are of: inventory_id {0:?}"
    )]
    LevelsLost(Vec<i64>),
    #[error(
        "the tables were never free for a moment: a long transaction, a dump, or too much that is written"
    )]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A rebuild under way.
struct Rebuilder<'r> {
    rebuild: Rebuild,
    /// What the new tables hold.
    at: Version,
    /// Everything was compared once.
    is_compared: bool,
    /// How much is added at once.
    slice: Slice,
    clock: &'r Clock,
    is_dry: bool,
    tell: &'r mut dyn FnMut(&Difference),
}

/// Runs a rebuild to its end. A dry one only compares.
pub async fn rebuild(
    store: &Store,
    clock: &Clock,
    is_dry: bool,
    tell: &mut dyn FnMut(&Difference),
) -> Result<Rebuilt, RebuildError> {
    let rebuild = store.begin_rebuild().await?.ok_or(RebuildError::NotAlone)?;
    let mut rebuilder = Rebuilder {
        rebuild,
        at: Version::ZERO,
        is_compared: false,
        slice: Slice::new(ROWS_FIRST, ROWS_MAX),
        clock,
        is_dry,
        tell,
    };
    let result = rebuilder.run().await;
    if result.is_err() {
        rebuilder.tidy().await;
    }
    rebuilder.rebuild.close().await?;
    result
}

impl Rebuilder<'_> {
    async fn run(&mut self) -> Result<Rebuilt, RebuildError> {
        self.rebuild.make_tables().await?;
        self.catch_up().await?;
        crash_point!("rebuild_filled");
        self.place_and_compare().await?;
        self.is_compared = true;
        for _ in 0..TRIES_MAX {
            self.catch_up().await?;
            if let Some(rebuilt) = self.end().await? {
                return Ok(rebuilt);
            }
            sleep(TRY_AGAIN_AFTER).await;
        }
        Err(RebuildError::Busy)
    }

    /// Takes away what was made, as far as that can be done: what is left goes with the next rebuild.
    async fn tidy(&mut self) {
        drop(self.rebuild.rollback().await);
        drop(self.rebuild.drop_tables().await);
    }

    /// Adds what was committed, until nothing was at the end of a slice.
    async fn catch_up(&mut self) -> Result<(), RebuildError> {
        let mut commits = COMMITS_FIRST;
        loop {
            let rebuild = &mut self.rebuild;
            let end = rebuild.slice_end(self.at, commits, self.slice.size).await?;
            let Some(end) = end else { return Ok(()) };
            let (before, began) = (self.at, self.clock.elapsed());
            let had = end.to.number() - before.number();
            commits = (2 * had).clamp(COMMITS_FIRST, COMMITS_MAX);
            self.rebuild.begin().await?;
            let added = self.add(end.to).await;
            let is_smaller_next = self.slice.size > 1;
            self.slice.adapt(self.clock.elapsed().saturating_sub(began));
            if is_held_up(&added) && is_smaller_next {
                self.rebuild.rollback().await?;
                self.at = before;
                continue;
            }
            added?;
            self.rebuild.commit().await?;
            if end.to == end.newest {
                return Ok(());
            }
        }
    }

    /// Adds the commits up to that version. Once everything was compared, what they touched is compared again.
    async fn add(&mut self, to: Version) -> Result<(), RebuildError> {
        let after = self.at;
        let lost = if self.is_compared {
            self.rebuild.add_levels(after, to).await?;
            self.rebuild.add_lines(LineTable::New, after, to).await?
        } else {
            self.rebuild.add_sums(after, to).await?;
            self.rebuild.add_lines(LineTable::Aside, after, to).await?
        };
        if !lost.is_empty() {
            return Err(RebuildError::LevelsLost(lost));
        }
        if self.is_compared {
            // What is touched again after `to` may differ until that is added, and is compared then.
            self.rebuild.compare_levels_of(after, to).await?;
            self.rebuild.compare_lines_of(after, to).await?;
        }
        self.at = to;
        Ok(())
    }

    /// Writes what was kept aside into the new tables, and compares them with the old ones. Those go on meanwhile: what is touched
    /// is compared again when it is added.
    async fn place_and_compare(&mut self) -> Result<(), RebuildError> {
        let (levels, lines) = (i64::MIN, (Uuid::nil(), Uuid::nil()));
        let clock = self.clock;
        let rebuild = &mut self.rebuild;
        paged(clock, levels, async |from, limit| {
            rebuild.place_levels(from, limit).await
        })
        .await?;
        paged(clock, lines, async |from, limit| {
            rebuild.place_lines(from, limit).await
        })
        .await?;
        self.rebuild.analyze().await?;
        let rebuild = &mut self.rebuild;
        paged(clock, levels, async |from, limit| {
            rebuild.compare_levels(from, limit).await
        })
        .await?;
        paged(clock, lines, async |from, limit| {
            rebuild.compare_lines(from, limit).await
        })
        .await
    }

    /// Ends it, or leaves everything as it was if the tables are busy.
    async fn end(&mut self) -> Result<Option<Rebuilt>, RebuildError> {
        let (before, began) = (self.at, self.clock.elapsed());
        let ended = self.end_or_not().await;
        let waited_ms = self.clock.elapsed().saturating_sub(began).as_millis();
        tracing::info!(%waited_ms, is_over = !matches!(ended, Ok(None)), "writers waited");
        if is_held_up(&ended) {
            self.rebuild.rollback().await?;
        } else if !matches!(ended, Ok(None)) {
            return ended;
        }
        self.at = before;
        Ok(None)
    }

    /// Adds the last commits while nobody writes, and swaps; `None` if they are too many, with the transaction over.
    async fn end_or_not(&mut self) -> Result<Option<Rebuilt>, RebuildError> {
        self.rebuild.stop_writers().await?;
        let last = self
            .rebuild
            .slice_end(self.at, COMMITS_MAX, LAST_ROWS_MAX)
            .await?;
        if let Some(end) = last {
            if end.to != end.newest {
                self.rebuild.rollback().await?;
                return Ok(None);
            }
            self.add(end.to).await?;
        }
        let (levels, lines) = self.rebuild.count_differing().await?;
        let rebuilt = Rebuilt {
            levels,
            lines,
            version: self.at.number(),
        };
        let mut differences = Vec::new();
        if rebuilt.differences() > 0 {
            let levels = self.rebuild.other_levels(NAMED_MAX).await?;
            differences.extend(levels.into_iter().map(Difference::LevelIsRebuilt));
            let lines = self.rebuild.other_lines(NAMED_MAX).await?;
            differences.extend(lines.into_iter().map(Difference::LineIsRebuilt));
        }
        crash_point!("rebuild_locked");
        if self.is_dry {
            self.rebuild.rollback().await?;
            self.rebuild.drop_tables().await?;
        } else {
            self.rebuild.stop_readers().await?;
            self.rebuild.swap().await?;
            if rebuilt.differences() > 0 {
                self.rebuild.retag().await?;
            }
            crash_point!("rebuild_swapped");
            self.rebuild.commit().await?;
        }
        for difference in &differences {
            (self.tell)(difference);
        }
        Ok(Some(rebuilt))
    }
}

/// Does something page by page, each of a size that takes a fitting time.
async fn paged<P: Copy>(
    clock: &Clock,
    first: P,
    mut page: impl AsyncFnMut(P, i64) -> Result<Option<P>, StoreError>,
) -> Result<(), RebuildError> {
    let mut slice = Slice::new(ROWS_FIRST, ROWS_MAX);
    let mut after = Some(first);
    while let Some(from) = after {
        let began = clock.elapsed();
        let next = page(from, slice.size).await;
        let is_smaller_next = slice.size > 1;
        slice.adapt(clock.elapsed().saturating_sub(began));
        match next {
            Err(error) if error.is_held_up() && is_smaller_next => {}
            next => after = next?,
        }
    }
    Ok(())
}

/// Whether others were in the way, or it was too much at once.
fn is_held_up<T>(result: &Result<T, RebuildError>) -> bool {
    matches!(result, Err(RebuildError::Store(error)) if error.is_held_up())
}
