//! How many units a fact reports.

/// 0 to [`Quantity::MAX`] units. The bound keeps a batch's sums far inside 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i64);

impl Quantity {
    pub const ZERO: Self = Self(0);
    /// The contract's largest quantity, in units.
    pub const MAX: i64 = 1_000_000_000_000;

    /// `None` outside 0 to [`Quantity::MAX`].
    pub fn new(units: i64) -> Option<Self> {
        (0..=Self::MAX).contains(&units).then_some(Self(units))
    }

    pub fn units(self) -> i64 {
        self.0
    }
}
