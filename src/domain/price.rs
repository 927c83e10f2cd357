//! Money, as it is written: a number with at most two decimals.

use std::fmt;

/// 0 to 99,999,999,999.99 of whatever the prices are in, in hundredths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(i64);

/// A text or number that is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a price is a number from 0 to 99999999999.99 with at most two decimals")]
pub struct NotAPrice;

impl Price {
    /// 99,999,999,999.99: a quantity of an order times it stays within 128 bits by far.
    const CENTS_MAX: i64 = 9_999_999_999_999;

    /// A price as people and JSON write it: `12`, `12.5`, `12.50`.
    pub fn parse(text: &str) -> Result<Self, NotAPrice> {
        let (whole, cents) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| {
            !digits.is_empty() && digits.len() <= 11 && digits.bytes().all(|b| b.is_ascii_digit())
        };
        // 1.500 is 1.5, as a number would be.
        let cents = if cents.len() > 2 {
            cents.trim_end_matches('0')
        } else {
            cents
        };
        let cents = if cents.is_empty() && text.contains('.') && !text.ends_with('.') {
            "0"
        } else {
            cents
        };
        if !is_number(whole) || !is_number(cents) || cents.len() > 2 {
            return Err(NotAPrice);
        }
        let number = |digits: &str| digits.parse::<i64>().map_err(|_| NotAPrice);
        let scale = if cents.len() == 1 { 10 } else { 1 };
        let all = number(whole)? * 100 + number(cents)? * scale;
        (all <= Self::CENTS_MAX)
            .then_some(Self(all))
            .ok_or(NotAPrice)
    }

    /// The price of so many.
    #[must_use]
    pub fn times(self, units: i64) -> Total {
        Total(i128::from(self.0) * i128::from(units))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Total(i128::from(self.0)).fmt(f)
    }
}

/// A price of several, shown as a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total(i128);

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_read_and_shown() {
        for (text, shown) in [
            ("0", "0.00"),
            ("12", "12.00"),
            ("12.5", "12.50"),
            ("12.05", "12.05"),
            ("12.500", "12.50"),
            ("12.000", "12.00"),
            ("99999999999.99", "99999999999.99"),
        ] {
            assert_eq!(Price::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "-1",
            "1e3",
            "1.234",
            ".",
            "1.",
            ".5",
            "100000000000",
            " 1",
            "1,5",
        ] {
            assert_eq!(Price::parse(text), Err(NotAPrice), "{text}");
        }
        let price = Price::parse("19.99").unwrap();
        assert_eq!(price.times(3).to_string(), "59.97");
    }
}
