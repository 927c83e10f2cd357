//! The wire format of movement messages: bytes in, a [`Fact`] or the reason why not out.
//!
//! Everything outside `data` is optional and lenient, because real producers are; `data` is strict, because it becomes
//! stock. The envelope's `id` identifies nothing: both halves of one movement are published with the same one.
//! What is not here: Kafka itself, and what the facts do.

pub mod dead_letter;

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::{
    Fact, MovementId, ProductId, Quantity, Side, SideReport, Timestamp, WarehouseCode, WarehouseId,
};
use dead_letter::Reason;

/// How the value is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// An envelope, or a bare object, with the fact under `data`.
    Structured,
    /// `CloudEvents` binary mode: the value is `data`, the attributes are headers.
    Binary { source: Option<&'a str> },
}

impl<'a> Form<'a> {
    /// The form that the headers tell, by the Kafka protocol binding of `CloudEvents` 1.0 (section 3): structured if
    /// the content type says so, binary if there are `ce_` attributes.
    pub fn of_headers(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        const STRUCTURED: &str = "application/cloudevents";
        let (mut structured, mut binary, mut source) = (false, false, None);
        for (name, value) in headers {
            let text = || value.and_then(|bytes| str::from_utf8(bytes).ok());
            if name.eq_ignore_ascii_case("content-type") {
                structured = text().is_some_and(|t| {
                    t.get(..STRUCTURED.len())
                        .is_some_and(|t| t.eq_ignore_ascii_case(STRUCTURED))
                });
            } else if name.starts_with("ce_") {
                binary = true;
                if name == "ce_source" {
                    source = text();
                }
            }
        }
        if binary && !structured {
            Form::Binary { source }
        } else {
            Form::Structured
        }
    }
}

/// A message that is no fact.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct BadMessage {
    pub reason: Reason,
    /// For the people who look at the dead letter.
    pub detail: String,
}

/// Decodes a message's value as ingest does: one above that many bytes is not looked into.
pub fn decode_within(
    bytes_max: usize,
    value: Option<&[u8]>,
    form: Form<'_>,
) -> Result<Fact, BadMessage> {
    match value {
        Some(bytes) if bytes.len() > bytes_max => Err(BadMessage {
            reason: Reason::TooLarge,
            detail: format!("{} bytes, and at most {bytes_max} are decoded", bytes.len()),
        }),
        value => decode(value, form),
    }
}

/// Decodes a message's value; `None` is a tombstone.
pub fn decode(value: Option<&[u8]>, form: Form<'_>) -> Result<Fact, BadMessage> {
    let bytes = value.ok_or_else(|| invalid("a tombstone carries no movement"))?;
    let text = str::from_utf8(bytes).map_err(|error| BadMessage {
        reason: Reason::NotJson,
        detail: error.to_string(),
    })?;
    let wire = match form {
        Form::Structured => {
            serde_json::from_str::<MapOnly<Envelope>>(text).map(|envelope| envelope.0)
        }
        Form::Binary { source } => {
            serde_json::from_str::<MapOnly<Data>>(text).map(|data| Envelope {
                data,
                source: source.and_then(WarehouseCode::from_source),
            })
        }
    };
    wire.map_err(|error| explain(text, &error))?.into_fact()
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: MapOnly<Data<'a>>,
    #[serde(default, deserialize_with = "code_of_source")]
    source: Option<WarehouseCode>,
}

#[derive(Deserialize)]
struct Data<'a> {
    movement_id: WireId,
    warehouse_id: WireId,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    event: WireSide,
    product_id: WireId,
    quantity: i64,
}

impl Envelope<'_> {
    fn into_fact(self) -> Result<Fact, BadMessage> {
        let data = self.data.0;
        let nil = |field: &str| invalid(&format!("{field} is the nil UUID"));
        Ok(Fact {
            movement: MovementId::new(data.movement_id.0).ok_or_else(|| nil("movement_id"))?,
            product: ProductId::new(data.product_id.0).ok_or_else(|| nil("product_id"))?,
            side: data.event.0,
            report: SideReport {
                warehouse: WarehouseId::new(data.warehouse_id.0)
                    .ok_or_else(|| nil("warehouse_id"))?,
                at: Timestamp::parse_fact_time(&data.timestamp)
                    .map_err(|error| invalid(&format!("timestamp: {error}")))?,
                quantity: Quantity::new(data.quantity).ok_or_else(|| {
                    invalid(&format!("quantity is not from 0 to {}", Quantity::MAX))
                })?,
            },
            code: self.source,
        })
    }
}

fn invalid(detail: &str) -> BadMessage {
    BadMessage {
        reason: Reason::InvalidMessage,
        detail: detail.to_owned(),
    }
}

/// Tells text that is no JSON from JSON that is no movement. The decoder stops at the first thing it does not like, so
/// the rest is looked at only now.
fn explain(text: &str, error: &serde_json::Error) -> BadMessage {
    let reason = match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Reason::InvalidMessage,
        Err(_) => Reason::NotJson,
    };
    BadMessage {
        reason,
        detail: error.to_string(),
    }
}

/// A JSON object read as `T`. On its own a struct would take an array of its fields as well.
struct MapOnly<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOnly<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = MapOnly<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(MapOnly)
            }
        }

        deserializer.deserialize_map(Object(PhantomData))
    }
}

/// A UUID with dashes or as 32 hex digits, in any case; no other written form.
struct WireId(Uuid);

impl<'de> Deserialize<'de> for WireId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = WireId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WireId, E> {
                matches!(text.len(), 32 | 36)
                    .then(|| Uuid::try_parse(text).ok())
                    .flatten()
                    .map(WireId)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A side by its name. On its own an enum would take an object with that name as well.
struct WireSide(Side);

impl<'de> Deserialize<'de> for WireSide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = WireSide;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`departure` or `arrival`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<WireSide, E> {
                match name {
                    "departure" => Ok(WireSide(Side::Departure)),
                    "arrival" => Ok(WireSide(Side::Arrival)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }
        }

        deserializer.deserialize_str(Name)
    }
}

/// The code in a source of whatever type: what is no code is no error.
fn code_of_source<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WarehouseCode>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    if raw.contains('\\') {
        // Written with escapes, which may stand for anything, or for no text at all.
        let text = serde_json::from_str::<String>(raw).ok();
        return Ok(text.as_deref().and_then(WarehouseCode::from_source));
    }
    let text = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Ok(text.and_then(WarehouseCode::from_source))
}

#[cfg(test)]
mod tests;
