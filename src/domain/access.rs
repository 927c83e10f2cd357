//! Who may do what. How somebody proves who they are is not here.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::{Timestamp, WarehouseId};

/// A kind of thing somebody may be let do. What a route asks for is in `http::rights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Look at stock, movements, orders, and what happens.
    Read,
    /// Change what stands in a warehouse.
    Adjust,
    /// Reserve and order, and what comes of it.
    Reserve,
    /// Everything: the catalogue, taking sides of movements back, and what the others may.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Read, Self::Adjust, Self::Reserve, Self::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Adjust => "adjust",
            Self::Reserve => "reserve",
            Self::Admin => "admin",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The warehouses whose stock somebody may see and change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    #[default]
    All,
    Only(BTreeSet<WarehouseId>),
}

impl Reach {
    /// Most warehouses of one that is limited: as many as a live connection may name.
    pub const WAREHOUSES_MAX: usize = 32;

    pub fn has(&self, warehouse: WarehouseId) -> bool {
        match self {
            Self::All => true,
            Self::Only(warehouses) => warehouses.contains(&warehouse),
        }
    }
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What the ledger says of who did it, and whose the keys of commands are.
    pub name: Arc<str>,
    pub scopes: BTreeSet<Scope>,
    pub reach: Reach,
    /// From then on they have to prove it anew; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Longest name, in characters.
    pub const NAME_CHARS_MAX: usize = 100;

    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[Scope]) -> Principal {
        Principal {
            name: "shop".into(),
            scopes: scopes.iter().copied().collect(),
            reach: Reach::All,
            expires_at: Some(Timestamp::from_micros(10)),
        }
    }

    #[test]
    fn a_scope_lets_do_what_it_says_and_admin_everything() {
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.as_str()), Some(scope));
            for asked in Scope::ALL {
                let may = principal(&[scope]).may(asked);
                assert_eq!(may, scope == asked || scope == Scope::Admin);
            }
            assert!(!principal(&[]).may(scope));
        }
        assert_eq!(Scope::named("Read"), None);
    }

    #[test]
    fn what_is_over_is_over_from_then_on() {
        let principal = principal(&[]);
        assert!(!principal.has_expired(Timestamp::from_micros(9)));
        assert!(principal.has_expired(Timestamp::from_micros(10)));
    }

    #[test]
    fn no_warehouses_are_none_and_not_all() {
        let warehouse = WarehouseId::new(uuid::Uuid::from_u128(1)).unwrap();
        assert!(Reach::All.has(warehouse));
        assert!(!Reach::Only(BTreeSet::new()).has(warehouse));
        assert!(Reach::Only(BTreeSet::from([warehouse])).has(warehouse));
    }
}
