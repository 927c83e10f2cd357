//! Reservations: units that are promised, and what may become of the promise.

use super::Timestamp;

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its units are promised, until it expires.
    Active,
    /// Its units were taken.
    Confirmed,
    /// Given back before they were taken.
    Released,
    /// Its time ran out.
    Expired,
    /// Taken, and given back afterwards.
    Returned,
    /// Taken, and on their way to who ordered them.
    Shipped,
}

impl State {
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Confirmed,
        Self::Released,
        Self::Expired,
        Self::Returned,
        Self::Shipped,
    ];

    /// As clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Returned => "returned",
            Self::Shipped => "shipped",
        }
    }

    /// As it is stored.
    pub fn number(self) -> i16 {
        match self {
            Self::Active => 1,
            Self::Confirmed => 2,
            Self::Released => 3,
            Self::Expired => 4,
            Self::Returned => 5,
            Self::Shipped => 6,
        }
    }

    /// The one that is stored so.
    pub fn stored(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// The state at a moment of one that expires then: what is due has expired, whether or not anybody has tidied up.
    #[must_use]
    pub fn at(self, now: Timestamp, expires_at: Option<Timestamp>) -> Self {
        match self {
            Self::Active if expires_at.is_some_and(|at| at <= now) => Self::Expired,
            state => state,
        }
    }
}

/// What may be asked of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the units.
    Confirm,
    /// Give them back.
    Release,
    /// Keep them so many seconds from now, if that is longer.
    Extend { seconds: i64 },
    /// As an order: take the units; they are paid for.
    Pay,
    /// As an order: they are on their way.
    Ship,
    /// As an order: give everything back, whether paid for or not.
    Cancel,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// To that state.
    To(State),
    /// It stays active, for longer.
    Longer,
    /// Nothing: it was done before.
    Nothing,
    /// It cannot be done.
    Refused,
}

impl Step {
    /// What the step does to a reservation in that state.
    pub fn from(self, state: State) -> Move {
        use self::State::{Active, Confirmed, Expired, Released, Returned, Shipped};
        match (self, state) {
            (Self::Confirm | Self::Pay, Active) => Move::To(Confirmed),
            (Self::Release | Self::Cancel, Active) => Move::To(Released),
            (Self::Ship, Confirmed) => Move::To(Shipped),
            (Self::Cancel, Confirmed) => Move::To(Returned),
            (Self::Extend { .. }, Active) => Move::Longer,
            (Self::Confirm, Confirmed | Shipped)
            | (Self::Release, Released | Expired)
            | (Self::Cancel, Released | Expired | Returned) => Move::Nothing,
            _ => Move::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_is_stored() {
        for state in State::ALL {
            assert_eq!(State::stored(state.number()), Some(state));
        }
        assert_eq!(State::stored(0), None);
    }

    #[test]
    fn what_is_due_has_expired() {
        let (due, now) = (Timestamp::from_micros(5), Timestamp::from_micros(5));
        assert_eq!(State::Active.at(now, Some(due)), State::Expired);
        let before = Timestamp::from_micros(4);
        assert_eq!(State::Active.at(before, Some(due)), State::Active);
        assert_eq!(State::Active.at(now, None), State::Active);
        assert_eq!(State::Confirmed.at(now, Some(due)), State::Confirmed);
    }

    #[test]
    fn a_repeated_step_changes_nothing_and_units_are_given_back_once() {
        for state in State::ALL {
            for step in [Step::Confirm, Step::Release, Step::Cancel] {
                if let Move::To(next) = step.from(state) {
                    assert_eq!(step.from(next), Move::Nothing, "{step:?} from {state:?}");
                }
            }
        }
        for step in [Step::Confirm, Step::Extend { seconds: 1 }, Step::Pay] {
            assert_eq!(step.from(State::Expired), Move::Refused);
        }
        // As an order: paid once, shipped once, and then neither paid nor cancelled.
        assert_eq!(Step::Pay.from(State::Confirmed), Move::Refused);
        assert_eq!(Step::Ship.from(State::Active), Move::Refused);
        assert_eq!(Step::Ship.from(State::Shipped), Move::Refused);
        assert_eq!(Step::Cancel.from(State::Shipped), Move::Refused);
    }
}
