//! How long movements take, and from when on one is late.
//!
//! Durations are counted in buckets a quarter of a power of two wide: a number read back is off by a fifth at most, whatever
//! the scale, from a second to a century.

/// Completed movements without which nothing is called usual.
pub const LEARNED_MIN: i64 = 20;
/// With more than so many counted of a warehouse, older ones are forgotten by halves.
pub const LEARNED_MAX: i64 = 10_000;
/// Buckets to a power of two.
const STEPS: f64 = 4.0;

/// A range of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(i16);

impl Bucket {
    /// The one with this duration, in microseconds. `None` for what arrived before it departed, which says nothing about the way.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a century is 2^52 µs, and its logarithm is small"
    )]
    pub fn of(micros: i64) -> Option<Self> {
        let seconds = micros as f64 / 1_000_000.0;
        (micros >= 0).then(|| Self((seconds.max(1.0).log2() * STEPS).floor() as i16))
    }

    /// One that was stored.
    pub fn stored(number: i16) -> Self {
        Self(number)
    }

    pub fn number(self) -> i16 {
        self.0
    }

    /// The duration at which it ends, in seconds.
    fn end_seconds(self) -> f64 {
        ((f64::from(self.0) + 1.0) / STEPS).exp2()
    }

    /// The duration in its middle, in seconds.
    fn middle_seconds(self) -> f64 {
        ((f64::from(self.0) + 0.5) / STEPS).exp2()
    }
}

/// What is usual, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Half of the movements took no longer.
    pub usual_seconds: f64,
    /// 99 of 100 took no longer.
    pub late_after_seconds: f64,
}

impl Usual {
    /// What these counts say; `None` if they are too few to say anything.
    pub fn of(counts: &mut [(Bucket, i64)]) -> Option<Self> {
        counts.sort_unstable_by_key(|(bucket, _)| *bucket);
        let total: i64 = counts.iter().map(|(_, count)| count).sum();
        if total < LEARNED_MIN {
            return None;
        }
        // The bucket that holds the last of so many in a hundred.
        let of_hundred = |share: i64| {
            let mut below = 0;
            let holds = |(_, count): &&(Bucket, i64)| {
                below += count;
                below * 100 >= total * share
            };
            counts.iter().find(holds).map(|(bucket, _)| *bucket)
        };
        Some(Self {
            usual_seconds: of_hundred(50)?.middle_seconds(),
            late_after_seconds: of_hundred(99)?.end_seconds(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_usual_before_enough_has_arrived() {
        let hour = Bucket::of(3_600_000_000).unwrap();
        assert_eq!(Usual::of(&mut [(hour, LEARNED_MIN - 1)]), None);
        assert_eq!(Usual::of(&mut []), None);
        assert!(Usual::of(&mut [(hour, LEARNED_MIN)]).is_some());
        assert_eq!(Bucket::of(-1), None);
    }

    proptest! {
        #[test]
        fn what_is_usual_is_near_what_was(mut hours in prop::collection::vec(0.01..100_000.0_f64, 20..300)) {
            #[expect(clippy::cast_possible_truncation, reason = "hours")]
            let micros = |hours: f64| (hours * 3_600_000_000.0) as i64;
            let mut counts: Vec<_> = hours.iter().map(|h| (Bucket::of(micros(*h)).unwrap(), 1)).collect();
            let usual = Usual::of(&mut counts).unwrap();
            hours.sort_by(f64::total_cmp);
            let at = |share: usize| hours[(hours.len() * share).div_ceil(100) - 1] * 3_600.0;
            let off = usual.usual_seconds / at(50);
            prop_assert!((0.8..1.25).contains(&off), "median off by {off}");
            let off = usual.late_after_seconds / at(99);
            prop_assert!((0.99..1.2).contains(&off), "99th off by {off}");
        }
    }
}
