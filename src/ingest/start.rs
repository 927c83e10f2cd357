//! Where to begin a partition: the smaller of the position in the database and the group's in Kafka.
//!
//! A database restored from an older backup so takes again, by itself, what has come since, and an operator who rewinds
//! the group gets a replay.

/// What is known of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The next offset by the database.
    pub(super) stored: Option<i64>,
    /// The next offset by the consumer group.
    pub(super) committed: Option<i64>,
    /// The first offset in the log.
    pub(super) first: i64,
    /// The offset after the last one in the log.
    pub(super) end: i64,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(i64),
    /// The log ends before the position: the topic was made anew. Begin with it.
    Anew(i64),
    /// The log begins after the position: the facts between are gone.
    Gap {
        from: i64,
        to: i64,
    },
}

/// Decides where to begin.
pub(super) fn decide(known: Known) -> Start {
    let Some(stored) = known.stored else {
        // This database has nothing of the partition, whatever the group has seen.
        return Start::At(known.first);
    };
    if stored.max(known.committed.unwrap_or(0)) > known.end {
        return Start::Anew(known.first);
    }
    if stored < known.first {
        return Start::Gap {
            from: stored,
            to: known.first,
        };
    }
    // Without a committed position the group was removed or has expired: the database knows best. What the group has not
    // and the log has no more, the database has.
    let at = known
        .committed
        .map_or(stored, |committed| committed.min(stored));
    Start::At(at.max(known.first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(stored: Option<i64>, committed: Option<i64>, log: (i64, i64)) -> Start {
        decide(Known {
            stored,
            committed,
            first: log.0,
            end: log.1,
        })
    }

    #[test]
    fn the_smaller_position_counts() {
        assert_eq!(
            start(Some(60), Some(100), (0, 120)),
            Start::At(60),
            "a restored database"
        );
        assert_eq!(
            start(Some(100), Some(0), (0, 120)),
            Start::At(0),
            "a rewound group"
        );
        assert_eq!(
            start(Some(100), None, (0, 120)),
            Start::At(100),
            "a removed group"
        );
        assert_eq!(
            start(None, Some(100), (0, 120)),
            Start::At(0),
            "a new database"
        );
        assert_eq!(
            start(None, None, (50, 120)),
            Start::At(50),
            "nothing was ever taken, so nothing is missing"
        );
    }

    #[test]
    fn a_position_beyond_the_end_is_of_another_topic() {
        assert_eq!(start(Some(121), Some(121), (0, 120)), Start::Anew(0));
        assert_eq!(start(Some(120), Some(120), (0, 120)), Start::At(120));
        assert_eq!(start(Some(60), Some(200), (0, 120)), Start::Anew(0));
    }

    #[test]
    fn what_was_dropped_after_it_was_taken_is_none() {
        assert_eq!(start(Some(100), Some(95), (100, 100)), Start::At(100));
        assert_eq!(start(Some(100), Some(95), (97, 120)), Start::At(97));
    }

    #[test]
    fn what_was_dropped_before_it_was_taken_is_a_gap() {
        assert_eq!(
            start(Some(60), Some(100), (70, 120)),
            Start::Gap { from: 60, to: 70 }
        );
        assert_eq!(start(Some(70), None, (70, 120)), Start::At(70));
    }
}
