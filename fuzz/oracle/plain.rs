//! The decoder once more, written from the contract (README, "Publish movements") and for nothing but plainness.

use std::collections::BTreeSet;

use super::{
    super::{
        domain::{Fact, Side},
        event::Form,
    },
    json::{self, Json, Text},
};

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    movement: u128,
    product: u128,
    warehouse: u128,
    departs: bool,
    at_us: i64,
    units: i64,
    code: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotJson,
    Invalid,
}

impl Plain {
    pub(super) fn of(fact: &Fact) -> Self {
        Self {
            movement: fact.movement.uuid().as_u128(),
            product: fact.product.uuid().as_u128(),
            warehouse: fact.report.warehouse.uuid().as_u128(),
            departs: fact.side == Side::Departure,
            at_us: fact.report.at.micros(),
            units: fact.report.quantity.units(),
            code: fact.code.map(|code| code.as_str().to_owned()),
        }
    }
}

/// `CloudEvents` binary mode has `ce_` headers, and no content type that says otherwise.
pub(super) fn form<'i>(headers: &[(&'i str, Option<&'i [u8]>)]) -> Form<'i> {
    let last = |wanted: fn(&str) -> bool| {
        let (_, value) = headers.iter().rev().find(|(name, _)| wanted(name))?;
        str::from_utf8((*value)?).ok()
    };
    let content_type = last(|name| name.eq_ignore_ascii_case("content-type"));
    let says_structured = content_type.is_some_and(|said| {
        said.to_ascii_lowercase()
            .starts_with("application/cloudevents")
    });
    if !says_structured && headers.iter().any(|(name, _)| name.starts_with("ce_")) {
        let source = last(|name| name == "ce_source");
        Form::Binary { source }
    } else {
        Form::Structured
    }
}

pub(super) fn decode(value: &[u8], form: Form<'_>) -> Result<Plain, Refused> {
    let text = str::from_utf8(value).map_err(|_| Refused::NotJson)?;
    let json = json::read(text).ok_or(Refused::NotJson)?;
    let plain = match form {
        Form::Structured => object(&json, &["data", "source"]).and_then(|envelope| {
            let code = field(envelope, "source").and_then(text_of).and_then(code);
            data(field(envelope, "data")?, code)
        }),
        Form::Binary { source } => data(&json, source.and_then(code)),
    };
    plain.ok_or(Refused::Invalid)
}

fn data(json: &Json, code: Option<String>) -> Option<Plain> {
    let names = [
        "movement_id",
        "warehouse_id",
        "timestamp",
        "event",
        "product_id",
        "quantity",
    ];
    let data = object(json, &names)?;
    let text = |name| text_of(field(data, name)?);
    Some(Plain {
        movement: id(text("movement_id")?)?,
        product: id(text("product_id")?)?,
        warehouse: id(text("warehouse_id")?)?,
        departs: match text("event")? {
            "departure" => true,
            "arrival" => false,
            _ => return None,
        },
        at_us: moment(text("timestamp")?)?,
        units: match field(data, "quantity")? {
            // No sign, no point, no exponent.
            Json::Number(written) if written.bytes().all(|b| b.is_ascii_digit()) => written
                .parse()
                .ok()
                .filter(|units| *units <= 1_000_000_000_000)?,
            _ => return None,
        },
        code,
    })
}

/// An object whose names are text, and which has none of these twice: which of the two would count?
fn object<'j>(json: &'j Json, known: &[&str]) -> Option<&'j [(Text, Json)]> {
    let Json::Object(fields) = json else {
        return None;
    };
    let mut seen = BTreeSet::new();
    for (name, _) in fields {
        let name = name.as_deref()?;
        if known.contains(&name) && !seen.insert(name) {
            return None;
        }
    }
    Some(fields)
}

fn field<'j>(fields: &'j [(Text, Json)], wanted: &str) -> Option<&'j Json> {
    fields
        .iter()
        .find(|(name, _)| name.as_deref() == Some(wanted))
        .map(|(_, value)| value)
}

fn text_of(json: &Json) -> Option<&str> {
    match json {
        Json::Text(text) => text.as_deref(),
        _ => None,
    }
}

/// 32 hex digits, or with dashes in their places; not nil.
fn id(text: &str) -> Option<u128> {
    let mut digits = text.to_owned();
    if text.len() == 36 {
        // From the back, so that the places before stay.
        for place in [23, 18, 13, 8] {
            if !text.is_ascii() || digits.remove(place) != '-' {
                return None;
            }
        }
    }
    let is_hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u128::from_str_radix(&digits, 16).ok()?;
    (is_hex && id != 0).then_some(id)
}

/// `WH-` and 1 to 20 letters, digits or dashes.
fn code(source: &str) -> Option<String> {
    let tail = source.strip_prefix("WH-")?;
    let is_code = (1..=20).contains(&tail.len())
        && tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_code.then(|| source.to_owned())
}

/// ISO 8601, calendar date and time of day, extended or basic, as microseconds since 1970; within the years 2000 to 2099.
/// The sixtieth second of a minute is taken as the one before it; 24:00 is not taken.
fn moment(text: &str) -> Option<i64> {
    let mut left = text;
    let year = match left.chars().next()? {
        '+' => number(left.get(1..7)?).inspect(|_| left = &left[7..])?,
        // Long before 2000.
        '-' => return None,
        _ => digits(&mut left, 4)?,
    };
    let dash = if left.starts_with('-') { "-" } else { "" };
    left = left.strip_prefix(dash)?;
    let month = digits(&mut left, 2)?;
    left = left.strip_prefix(dash)?;
    let day = digits(&mut left, 2)?;
    left = left.strip_prefix(['T', 't', ' '])?;
    let clock = clock(&mut left, 23, 60)?;
    let offset_s = match left.chars().next() {
        None => 0,
        Some('Z' | 'z') => {
            left = &left[1..];
            0
        }
        Some(sign @ ('+' | '-')) => {
            left = &left[1..];
            let shift = self::clock(&mut left, 23, 59)?;
            // To the nearest second, and less than a day.
            let seconds = (shift + 500_000_000) / 1_000_000_000;
            let shift_s = Some(seconds).filter(|seconds| *seconds < 86_400)?;
            if sign == '+' { shift_s } else { -shift_s }
        }
        Some(_) => return None,
    };
    if !left.is_empty() {
        return None;
    }
    let at_us = (day_number(year, month, day)? * 86_400 - offset_s) * 1_000_000 + clock / 1_000;
    let is_in_range = (946_684_800_000_000..4_102_444_800_000_000).contains(&at_us);
    is_in_range.then_some(at_us)
}

/// `12`, `12:30`, `12:30:15`, `12:30:15.5` or the same without colons, in nanoseconds.
fn clock(left: &mut &str, hour_max: i64, second_max: i64) -> Option<i64> {
    let hour = digits(left, 2).filter(|hour| *hour <= hour_max)?;
    let colon = if left.starts_with(':') { ":" } else { "" };
    let goes_on = |left: &str| match colon {
        "" => left.get(..2).is_some_and(|next| number(next).is_some()),
        colon => left.starts_with(colon),
    };
    let (mut minute, mut second, mut nanos) = (0, 0, 0);
    if goes_on(left) {
        *left = left.strip_prefix(colon)?;
        minute = digits(left, 2).filter(|minute| *minute <= 59)?;
        if goes_on(left) {
            *left = left.strip_prefix(colon)?;
            second = digits(left, 2)
                .filter(|second| *second <= second_max)?
                .min(59);
            if let Some(tail) = left.strip_prefix(['.', ',']) {
                let count = tail.bytes().take_while(u8::is_ascii_digit).count();
                let fraction = tail.get(..count).filter(|_| (1..=9).contains(&count))?;
                nanos = number(&format!("{fraction:0<9}"))?;
                *left = &tail[count..];
            }
        }
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}

fn digits(left: &mut &str, count: usize) -> Option<i64> {
    let number = number(left.get(..count)?)?;
    *left = &left[count..];
    Some(number)
}

fn number(digits: &str) -> Option<i64> {
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

/// Days since 1970, counted; only from the years that a fact can lie in, whatever its offset.
fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    if !(1999..=2100).contains(&year) || !(1..=*lengths.get(before)?).contains(&day) {
        return None;
    }
    let years: i64 = (1970..year)
        .map(|year| if is_leap(year) { 366 } else { 365 })
        .sum();
    Some(years + lengths[..before].iter().sum::<i64>() + day - 1)
}
