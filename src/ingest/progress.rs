//! How far one lane is with each partition.
//!
//! A lane takes some of a partition's messages, those of its products, so the offsets it is done with have holes where
//! the other lanes' messages are. Invariant: everything of the lane's share below `done` is in the database and its dead
//! letters are acknowledged; everything of it below `routed` has been handed to the lane's buffer.

use std::collections::BTreeMap;

use crate::store::positions::Advance;

#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<i32, Reach>);

/// `done <= taken <= routed`, but that a lane may have taken a message before it was said how far the share is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    /// What the database has for this lane.
    done: i64,
    /// What the lane works on or has worked on.
    taken: i64,
    /// How far the polling thread has read.
    routed: i64,
}

impl Progress {
    /// The partition is taken from here on.
    pub(super) fn begin(&mut self, partition: i32, offset: i64) {
        let reach = Reach {
            done: offset,
            taken: offset,
            routed: offset,
        };
        self.0.insert(partition, reach);
    }

    /// The partition is no longer ours.
    pub(super) fn end(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    /// Every message below `offset` was handed to its lane.
    pub(super) fn route(&mut self, partition: i32, offset: i64) {
        if let Some(reach) = self.0.get_mut(&partition) {
            reach.routed = offset;
        }
    }

    /// What was handed over from `first` on is thrown away: it does not count as routed.
    pub(super) fn forget(&mut self, partition: i32, first: i64) {
        if let Some(reach) = self.0.get_mut(&partition) {
            reach.routed = reach.routed.min(first);
        }
    }

    /// Takes everything there is: `ends` are the offsets after the last messages taken, by partition. What comes back
    /// are the steps this makes, by partition.
    pub(super) fn take(&mut self, ends: &BTreeMap<i32, i64>) -> Vec<Advance> {
        let step = |(&partition, reach): (&i32, &mut Reach)| {
            let to = ends
                .get(&partition)
                .map_or(reach.routed, |end| reach.routed.max(*end))
                .max(reach.taken);
            let from = std::mem::replace(&mut reach.taken, to);
            (from != to).then_some(Advance {
                partition,
                from,
                to,
            })
        };
        self.0.iter_mut().filter_map(step).collect()
    }

    /// These steps are done, as far as each goes on from what was.
    pub(super) fn settle(&mut self, advances: &[Advance]) {
        for advance in advances {
            if let Some(reach) = self
                .0
                .get_mut(&advance.partition)
                .filter(|reach| reach.done == advance.from)
            {
                reach.done = advance.to;
            }
        }
    }

    /// Whether the lane could go on without a message in one of the partitions that are `among` them.
    pub(super) fn is_behind(&self, among: impl Fn(i32) -> bool) -> bool {
        let is_behind =
            |(&partition, reach): (&i32, &Reach)| among(partition) && reach.taken < reach.routed;
        self.0.iter().any(is_behind)
    }

    /// Up to where the lane has nothing left to do in each partition. `waiting` are the partitions of the messages that
    /// it has not taken.
    pub(super) fn positions(&self, waiting: impl Fn(i32) -> bool) -> BTreeMap<i32, i64> {
        let position = |(&partition, reach): (&i32, &Reach)| {
            let is_idle = reach.done == reach.taken && !waiting(partition);
            (
                partition,
                if is_idle {
                    reach.routed.max(reach.done)
                } else {
                    reach.done
                },
            )
        };
        self.0.iter().map(position).collect()
    }

    /// What the database must hold for this lane, for the partitions of which nothing is under way.
    pub(super) fn quiet(&self) -> BTreeMap<i32, i64> {
        let quiet = self.0.iter().filter(|(_, reach)| reach.done == reach.taken);
        quiet
            .map(|(partition, reach)| (*partition, reach.done))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut progress = Progress::default();
        progress.begin(0, 10);
        progress.begin(1, 20);
        progress
    }

    fn step(partition: i32, from: i64, to: i64) -> Advance {
        Advance {
            partition,
            from,
            to,
        }
    }

    #[test]
    fn a_lane_goes_on_over_the_others_messages() {
        let mut progress = progress();
        progress.route(0, 18);
        assert_eq!(
            progress.positions(|_| false)[&0],
            18,
            "nothing of it was this lane's"
        );
        assert!(progress.is_behind(|_| true));
        assert_eq!(progress.take(&[(0, 15)].into()), [step(0, 10, 18)]);
        assert_eq!(progress.positions(|_| false)[&0], 10, "it is under way");
        assert_eq!(progress.quiet(), [(1, 20)].into());
        progress.settle(&[step(0, 10, 18)]);
        assert_eq!(progress.positions(|_| false)[&0], 18);
        assert!(!progress.is_behind(|_| true));
    }

    #[test]
    fn a_message_may_be_taken_before_it_is_routed() {
        let mut progress = progress();
        assert_eq!(progress.take(&[(1, 23)].into()), [step(1, 20, 23)]);
        assert_eq!(progress.take(&BTreeMap::new()), [], "and nothing is undone");
        progress.settle(&[step(1, 20, 23)]);
        assert_eq!(progress.positions(|_| false)[&1], 23);
        progress.route(1, 23);
        assert!(!progress.is_behind(|_| true));
        assert_eq!(progress.take(&BTreeMap::new()), []);
    }

    #[test]
    fn what_waits_or_failed_is_not_done() {
        let mut progress = progress();
        progress.route(0, 18);
        assert_eq!(progress.positions(|partition| partition == 0)[&0], 10);
        let taken = progress.take(&[(0, 18)].into());
        // The batch failed and was not settled; the next one is.
        progress.route(0, 20);
        let next = progress.take(&[(0, 20)].into());
        progress.settle(&next);
        assert_eq!(progress.positions(|_| false)[&0], 10);
        assert_eq!(taken, [step(0, 10, 18)]);
        progress.begin(0, 10);
        assert_eq!(progress.quiet()[&0], 10);
    }

    #[test]
    fn what_is_thrown_away_is_not_gone_over() {
        let mut progress = progress();
        progress.route(0, 18);
        progress.forget(0, 15);
        assert_eq!(progress.positions(|_| false)[&0], 15);
        assert_eq!(progress.take(&BTreeMap::new()), [step(0, 10, 15)]);
    }

    #[test]
    fn a_partition_that_is_gone_is_not_gone_on_with() {
        let mut progress = progress();
        progress.end(0);
        progress.route(0, 18);
        progress.settle(&[step(0, 10, 18)]);
        assert_eq!(progress.positions(|_| false), [(1, 20)].into());
    }
}
