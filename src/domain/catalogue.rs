//! What products and warehouses are called, and at what levels somebody wants to be told.

use std::{fmt, sync::Arc};

use super::{ProductId, WarehouseId};

/// A product in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    pub sku: Option<Code>,
    pub name: Option<Name>,
    /// A warehouse's stock of it is low at or below this many units; `None`: never.
    pub min_stock: Option<Threshold>,
    /// It is to be ordered again when what is available in all warehouses is at or below this; `None`: never.
    pub reorder_point: Option<Threshold>,
}

/// A warehouse in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warehouse {
    pub id: WarehouseId,
    pub code: Option<Code>,
    pub name: Option<Name>,
}

impl Product {
    /// One of which nothing is known but that it exists.
    pub fn unnamed(id: ProductId) -> Self {
        Self {
            id,
            sku: None,
            name: None,
            min_stock: None,
            reorder_point: None,
        }
    }

    /// What clients know it by: the sku where there is one, else the id.
    pub fn label(&self) -> String {
        let sku = self.sku.as_ref();
        sku.map_or_else(|| self.id.to_string(), Code::to_string)
    }

    /// What people call it: its name, else its label.
    pub fn title(&self) -> String {
        let name = self.name.as_ref();
        name.map_or_else(|| self.label(), Name::to_string)
    }

    /// Whether so many units in a warehouse are low.
    pub fn is_low(&self, units: i64) -> bool {
        self.min_stock.is_some_and(|min| min.is_reached_by(units))
    }

    /// Whether so many units in all warehouses are so few that it is to be ordered again.
    pub fn is_to_be_reordered(&self, available: i64) -> bool {
        let point = self.reorder_point;
        point.is_some_and(|point| point.is_reached_by(available))
    }
}

impl Warehouse {
    /// One of which nothing is known but that it exists.
    pub fn unnamed(id: WarehouseId) -> Self {
        Self {
            id,
            code: None,
            name: None,
        }
    }

    /// What clients know it by: the code where there is one, else the id.
    pub fn label(&self) -> String {
        let code = self.code.as_ref();
        code.map_or_else(|| self.id.to_string(), Code::to_string)
    }
}

/// A product's sku or a warehouse's code: it may stand in a path in place of the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(Arc<str>);

/// Why a text is no sku or code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACode {
    #[error("a sku or code has 1 to {} characters", Code::CHARS_MAX)]
    Length,
    #[error("a sku or code has no control characters and no spaces at its ends")]
    Characters,
    #[error("a sku or code must not look like a UUID")]
    Uuid,
    #[error("this word is part of a path and cannot be a sku or code")]
    Word,
}

impl Code {
    pub const CHARS_MAX: usize = 64;
    /// Words that stand in the place of a sku or code in some path.
    const WORDS: [&str; 4] = ["adjust", "low-stock", "recent", "query"];

    pub fn new(text: &str) -> Result<Self, NotACode> {
        if text.is_empty() || text.chars().count() > Self::CHARS_MAX {
            return Err(NotACode::Length);
        }
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(NotACode::Characters);
        }
        if uuid::Uuid::try_parse(text).is_ok() {
            return Err(NotACode::Uuid);
        }
        if Self::WORDS
            .iter()
            .any(|word| word.eq_ignore_ascii_case(text))
        {
            return Err(NotACode::Word);
        }
        Ok(Self(text.into()))
    }

    /// One that was checked when it was stored.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What people call a product or a warehouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Arc<str>);

/// A text that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {} characters and no control characters",
    Name::CHARS_MAX
)]
pub struct NotAName;

impl Name {
    pub const CHARS_MAX: usize = 200;

    pub fn new(text: &str) -> Result<Self, NotAName> {
        let is_one = !text.trim().is_empty()
            && text.chars().count() <= Self::CHARS_MAX
            && !text.chars().any(char::is_control);
        is_one.then(|| Self(text.into())).ok_or(NotAName)
    }

    /// One that was checked when it was stored.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of units at or below which somebody wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(i64);

/// A number that is no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a minimum or reorder point is a number of units from 0 to {}",
    Threshold::MAX
)]
pub struct NotAThreshold;

impl Threshold {
    /// In units; no level is near it.
    pub const MAX: i64 = 1_000_000_000_000_000;

    pub fn new(units: i64) -> Result<Self, NotAThreshold> {
        (0..=Self::MAX)
            .contains(&units)
            .then_some(Self(units))
            .ok_or(NotAThreshold)
    }

    /// One that was checked when it was stored.
    pub fn stored(units: i64) -> Self {
        Self(units)
    }

    pub fn units(self) -> i64 {
        self.0
    }

    /// Whether so many units are low.
    pub fn is_reached_by(self, units: i64) -> bool {
        units <= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_can_stand_in_a_path() {
        for text in ["W-1", "OLJCESPC7Z", "45", "Größe 7", "US-WEST"] {
            assert_eq!(Code::new(text).unwrap().as_str(), text);
        }
        for (text, why) in [
            ("", NotACode::Length),
            (&"x".repeat(65), NotACode::Length),
            ("a\nb", NotACode::Characters),
            (" a", NotACode::Characters),
            ("c6290746-790e-43fa-8270-014dc90e02e0", NotACode::Uuid),
            ("c6290746790e43fa8270014dc90e02e0", NotACode::Uuid),
            ("low-stock", NotACode::Word),
            ("Adjust", NotACode::Word),
        ] {
            assert_eq!(Code::new(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_what_people_can_read() {
        assert_eq!(Name::new("Widget A").unwrap().as_str(), "Widget A");
        for text in ["", "  ", "a\0b", &"x".repeat(201)] {
            assert_eq!(Name::new(text), Err(NotAName), "{text:?}");
        }
    }

    #[test]
    fn a_threshold_is_reached_at_it_and_below() {
        let ten = Threshold::new(10).unwrap();
        assert_eq!(
            [9, 10, 11].map(|units| ten.is_reached_by(units)),
            [true, true, false]
        );
        assert_eq!(Threshold::new(-1), Err(NotAThreshold));
    }
}
