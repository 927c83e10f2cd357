//! One read at a time for one thing: who comes while a read is under way waits for it instead of reading as well.
//!
//! Whether its result may answer the one who joined is for the rule to say. A leader that goes away without a result
//! (its client left) leaves its joiners free to lead.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{CacheKey, Entry};

type Result = watch::Receiver<Option<Entry>>;

/// The reads under way.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<CacheKey, Result>>);

/// A place in a read.
#[derive(Debug)]
pub enum Seat {
    /// This caller reads, and lands the result.
    Leader(Lead),
    /// Another reads.
    Joiner(Joined),
}

/// The duty to read.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    key: CacheKey,
    result: watch::Sender<Option<Entry>>,
}

/// The wait for another's read.
#[derive(Debug)]
pub struct Joined(Result);

impl Flights {
    /// Joins the read of this key that is under way, or leads a new one.
    pub fn board(self: &Arc<Self>, key: CacheKey) -> Seat {
        let mut under_way = self.under_way();
        if let Some(result) = under_way.get(&key) {
            return Seat::Joiner(Joined(result.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key, receiver);
        Seat::Leader(Lead {
            flights: Arc::clone(self),
            key,
            result: sender,
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<CacheKey, Result>> {
        // A panic while the lock is held leaves the map as it was: no operation on it is half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Hands the result to those who wait, and lets the next caller read anew.
    pub fn land(self, entry: &Entry) {
        self.result.send_replace(Some(entry.clone()));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
    }
}

impl Joined {
    /// The result; `None` if the leader went away without one.
    pub async fn result(mut self) -> Option<Entry> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{CommitPoint, MovementId, Tag, Version};

    fn key() -> CacheKey {
        CacheKey::Movement(MovementId::new(Uuid::from_u128(1)).unwrap())
    }

    #[tokio::test]
    async fn a_joiner_gets_the_leaders_result() {
        let flights = Arc::new(Flights::default());
        let Seat::Leader(lead) = flights.board(key()) else {
            panic!("the first leads")
        };
        let Seat::Joiner(joined) = flights.board(key()) else {
            panic!("the second joins")
        };
        let as_of = CommitPoint {
            version: Version::ZERO,
            tag: Tag(1),
        };
        let entry = Entry {
            as_of,
            valid_until: None,
            body: None,
            level: None,
        };
        lead.land(&entry);
        assert_eq!(joined.result().await, Some(entry));
        assert!(
            matches!(flights.board(key()), Seat::Leader(_)),
            "what has landed is over"
        );
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_frees_its_joiners() {
        let flights = Arc::new(Flights::default());
        let lead = flights.board(key());
        let Seat::Joiner(joined) = flights.board(key()) else {
            panic!("the second joins")
        };
        drop(lead);
        assert_eq!(joined.result().await, None);
    }
}
