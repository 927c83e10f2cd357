//! What must hold of the decoder for any message at all. Shared by the fuzz target and by `tests/it/decoder.rs`; either
//! gives it the decoder under the names `super::event` and `super::domain`.
//!
//! - It never panics.
//! - It accepts and refuses what [`plain`] does, for the same reason, and reads the same out of it.
//! - What it accepts keeps the bounds of the contract.
//! - A fact written down again is the same fact.

mod json;
mod plain;

use super::{
    domain::{Fact, Side, WarehouseCode},
    event::{self, Form, dead_letter::Reason},
};
use plain::{Plain, Refused};

/// Deeper than this the plain reader, which calls itself for each level, is not asked.
const DEPTH_MAX: usize = 500;

/// A message as one run of bytes, so that files and fuzzers can hold it: lines of the form `#name:value` are its headers, the
/// rest is its value. No JSON begins with `#`, so every value can be written.
struct Message<'i> {
    headers: Vec<(&'i str, Option<&'i [u8]>)>,
    value: &'i [u8],
}

impl<'i> Message<'i> {
    fn of(input: &'i [u8]) -> Self {
        let (mut headers, mut value) = (Vec::new(), input);
        while let Some(line) = value.strip_prefix(b"#") {
            let end = line.iter().position(|byte| *byte == b'\n');
            let (line, rest) = end.map_or((line, &line[line.len()..]), |end| {
                (&line[..end], &line[end + 1..])
            });
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, content) = colon.map_or((line, None), |colon| {
                (&line[..colon], Some(&line[colon + 1..]))
            });
            // Kafka's client hands over no header whose name is not text.
            headers.extend(str::from_utf8(name).map(|name| (name, content)));
            value = rest;
        }
        Self { headers, value }
    }
}

/// Whether this message is a fact, or the first thing that does not hold of it.
pub fn check(input: &[u8]) -> Result<bool, String> {
    let message = Message::of(input);
    let form = Form::of_headers(message.headers.iter().copied());
    let plain_form = plain::form(&message.headers);
    if form != plain_form {
        return Err(format!("{form:?}, but plainly {plain_form:?}"));
    }
    let decoded = event::decode(Some(message.value), form);
    if let Ok(fact) = &decoded {
        keeps_bounds(fact)?;
        comes_back(fact)?;
    }
    let openings = message.value.iter().filter(|byte| b"[{".contains(byte));
    if openings.count() > DEPTH_MAX {
        return Ok(decoded.is_ok());
    }
    let read = match &decoded {
        Ok(fact) => Ok(Plain::of(fact)),
        Err(bad) if bad.reason == Reason::NotJson => Err(Refused::NotJson),
        Err(bad) if bad.reason == Reason::InvalidMessage => Err(Refused::Invalid),
        Err(bad) => return Err(format!("no reason of the decoder's: {bad}")),
    };
    let plainly = plain::decode(message.value, form);
    if read == plainly {
        return Ok(read.is_ok());
    }
    let why = decoded.err().map(|bad| bad.to_string());
    Err(format!(
        "{read:?} {why:?}, but plainly {plainly:?}:\n{}",
        input.escape_ascii()
    ))
}

/// 2000-01-01T00:00:00Z and 2100-01-01T00:00:00Z.
const FROM_US: i64 = 946_684_800_000_000;
const UNTIL_US: i64 = 4_102_444_800_000_000;
const UNITS_MAX: i64 = 1_000_000_000_000;

fn keeps_bounds(fact: &Fact) -> Result<(), String> {
    let ids = [
        fact.movement.uuid(),
        fact.product.uuid(),
        fact.report.warehouse.uuid(),
    ];
    let is_kept = (FROM_US..UNTIL_US).contains(&fact.report.at.micros())
        && (0..=UNITS_MAX).contains(&fact.report.quantity.units())
        && ids.iter().all(|id| !id.is_nil());
    is_kept
        .then_some(())
        .ok_or(format!("out of bounds: {fact:?}"))
}

fn comes_back(fact: &Fact) -> Result<(), String> {
    let source = fact.code.as_ref().map(WarehouseCode::as_str);
    let event = match fact.side {
        Side::Departure => "departure",
        Side::Arrival => "arrival",
    };
    let data = format!(
        r#"{{"movement_id":"{}","warehouse_id":"{}","timestamp":"{}","event":"{event}","product_id":"{}","quantity":{}}}"#,
        fact.movement,
        fact.report.warehouse,
        fact.report.at,
        fact.product,
        fact.report.quantity.units()
    );
    let envelope = match source {
        Some(source) => format!(r#"{{"source":"{source}","data":{data}}}"#),
        None => format!(r#"{{"data":{data}}}"#),
    };
    for (form, value) in [
        (Form::Structured, envelope.as_bytes()),
        (Form::Binary { source }, data.as_bytes()),
    ] {
        let again = event::decode(Some(value), form);
        if again.as_ref() != Ok(fact) {
            return Err(format!("{fact:?} came back as {again:?}"));
        }
    }
    Ok(())
}
