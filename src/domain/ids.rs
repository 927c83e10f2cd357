//! Identities. Each is a UUID that is not nil: the nil UUID stands for "none" in answers, so it can name nothing.

use std::fmt;

use uuid::Uuid;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// `None` for the nil UUID.
            pub fn new(id: Uuid) -> Option<Self> {
                (!id.is_nil()).then_some(Self(id))
            }

            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

identity!(
    /// A movement: goods on their way, however many products.
    MovementId
);
identity!(
    /// A product.
    ProductId
);
identity!(
    /// A warehouse.
    WarehouseId
);
identity!(
    /// A reservation. Made of the time it was made at first, so those made together lie together.
    ReservationId
);
identity!(
    /// A command: what the ledger rows of an adjustment are because of.
    CommandId
);

/// The number of a stock level, given once and never changed: the ledger's short name for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InventoryId(pub i64);

/// What one stock level is about. Ordered by warehouse, then product: the order in which levels are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StockKey {
    pub warehouse: WarehouseId,
    pub product: ProductId,
}

/// A warehouse's short name as an event's source gives it: `WH-` and 1 to [`WarehouseCode::TAIL_MAX`] ASCII letters,
/// digits or dashes. Kept in place, because nearly every event carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WarehouseCode {
    bytes: [u8; Self::LENGTH_MAX],
    length: u8,
}

impl WarehouseCode {
    /// Most characters after `WH-`: bounds what a message can put into the catalogue.
    pub const TAIL_MAX: usize = 20;
    const PREFIX: &str = "WH-";
    const LENGTH_MAX: usize = Self::PREFIX.len() + Self::TAIL_MAX;

    /// `None` if the source is of another form, which is no error: real producers send all kinds of sources.
    pub fn from_source(source: &str) -> Option<Self> {
        let tail = source.strip_prefix(Self::PREFIX)?;
        let in_form = (1..=Self::TAIL_MAX).contains(&tail.len())
            && tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !in_form {
            return None;
        }
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..source.len()].copy_from_slice(source.as_bytes());
        Some(Self {
            bytes,
            length: u8::try_from(source.len()).ok()?,
        })
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nil_uuid_names_nothing() {
        assert_eq!(WarehouseId::new(Uuid::nil()), None);
    }

    #[test]
    fn a_source_is_a_code_only_in_its_form() {
        let code = |source| WarehouseCode::from_source(source).map(|c| c.as_str().to_owned());
        assert_eq!(code("WH-3322").as_deref(), Some("WH-3322"));
        assert_eq!(
            code("WH-12345678901234567890").as_deref(),
            Some("WH-12345678901234567890")
        );
        for other in [
            "EXTERNAL",
            "test",
            "",
            "WH-",
            "wh-1",
            "WH-1 2",
            "WH-ü",
            "WH-123456789012345678901",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }
}
