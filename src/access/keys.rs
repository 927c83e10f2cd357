//! API keys: how they are made, and which there are.

use std::{collections::HashMap, fmt, sync::Arc};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

use super::{Denied, hash};
use crate::{domain::access::Principal, store::access::Hash};

/// What a key begins with: a scanner for secrets finds it, and nobody takes it for a token.
const KEY_PREFIX: &str = "sy_";
const TICKET_PREFIX: &str = "st_";
/// Of a key or a ticket: nobody guesses it.
const RANDOM_BYTES: usize = 32;

/// A key or a ticket as it is handed to its owner. It is never shown by itself.
pub struct Secret(String);

impl Secret {
    /// A new API key.
    pub fn key() -> Self {
        Self::random(KEY_PREFIX)
    }

    pub(super) fn ticket() -> Self {
        Self::random(TICKET_PREFIX)
    }

    fn random(prefix: &str) -> Self {
        let bytes: [u8; RANDOM_BYTES] = rand::rng().random();
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        Self(prefix.to_owned() + &digits.collect::<String>())
    }

    /// What is kept of it.
    pub fn hash(&self) -> Hash {
        hash(&self.0)
    }

    /// The secret itself, for its owner alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Whether this is a key, and not a token.
pub(super) fn is_key(credential: &str) -> bool {
    credential.starts_with(KEY_PREFIX)
}

/// Whether this has the form of a ticket.
pub(super) fn is_ticket(text: &str) -> bool {
    let digits = text.strip_prefix(TICKET_PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 2 * RANDOM_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// A key that is in use.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) principal: Arc<Principal>,
    /// Cancelled once it is revoked, or means somebody else.
    pub(super) revoked: CancellationToken,
}

/// The keys as they were read last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_hash: HashMap<Hash, Key>,
    /// Whether they were ever read.
    are_known: bool,
}

impl Keys {
    pub(super) fn find(&self, hash: &Hash) -> Option<&Key> {
        // A hash says nothing of the key: that the time of the look-up depends on it gives nothing away.
        self.by_hash.get(hash)
    }

    /// Why there is none.
    pub(super) fn refusal(&self) -> Denied {
        if self.are_known {
            Denied::UnknownKey
        } else {
            Denied::Unavailable
        }
    }

    /// Replaces them. Who uses one that is no more, or that may do something else now, has to come again.
    pub(super) fn become_those(&mut self, read: Vec<(Hash, Arc<Principal>)>) {
        let mut before = std::mem::take(&mut self.by_hash);
        for (hash, principal) in read {
            let key = match before.remove(&hash) {
                Some(key) if *key.principal == *principal => key,
                other => {
                    if let Some(other) = other {
                        other.revoked.cancel();
                    }
                    Key {
                        principal,
                        revoked: CancellationToken::new(),
                    }
                }
            };
            self.by_hash.insert(hash, key);
        }
        for key in before.into_values() {
            key.revoked.cancel();
        }
        self.are_known = true;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::access::{Reach, Scope};

    fn principal(name: &str, scope: Scope) -> Arc<Principal> {
        Arc::new(Principal {
            name: name.into(),
            scopes: BTreeSet::from([scope]),
            reach: Reach::All,
            expires_at: None,
        })
    }

    #[test]
    fn a_key_is_long_random_and_not_shown() {
        let (one, other) = (Secret::key(), Secret::key());
        assert!(is_key(one.reveal()) && one.reveal().len() == 67);
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(format!("{one:?}"), "Secret(***)");
        let ticket = Secret::ticket();
        assert!(is_ticket(ticket.reveal()) && !is_key(ticket.reveal()));
        assert!(!is_ticket(one.reveal()) && !is_ticket("st_"));
    }

    #[test]
    fn nobody_is_refused_before_the_keys_are_known() {
        let mut keys = Keys::default();
        assert!(matches!(keys.refusal(), Denied::Unavailable));
        keys.become_those(Vec::new());
        assert!(matches!(keys.refusal(), Denied::UnknownKey));
    }

    #[test]
    fn who_has_a_revoked_or_changed_key_is_told_and_the_others_are_not() {
        let mut keys = Keys::default();
        let all = |scope| {
            vec![
                ([1; 32], principal("stays", Scope::Read)),
                ([2; 32], principal("changes", scope)),
            ]
        };
        let mut first = all(Scope::Read);
        first.push(([3; 32], principal("goes", Scope::Read)));
        keys.become_those(first);
        let revoked = |keys: &Keys, at: u8| keys.find(&[at; 32]).unwrap().revoked.clone();
        let (stays, changes) = (revoked(&keys, 1), revoked(&keys, 2));
        let goes = revoked(&keys, 3);
        keys.become_those(all(Scope::Adjust));
        assert!(!stays.is_cancelled());
        assert!(changes.is_cancelled() && goes.is_cancelled());
        assert!(keys.find(&[3; 32]).is_none());
        assert!(keys.find(&[2; 32]).unwrap().principal.may(Scope::Adjust));
    }
}
