//! `timestamptz` as the microseconds it is, without a calendar in between.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{
        PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid,
    },
};

use crate::domain::Timestamp;

/// A [`Timestamp`] on its way into or out of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgTime(pub Timestamp);

/// 2000-01-01T00:00:00Z: the wire format counts from there (`PostgreSQL`, `src/include/datatype/timestamp.h`).
const EPOCH_US: i64 = 946_684_800_000_000;
/// From `pg_type.dat`; fixed in every `PostgreSQL`.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for PgTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0.micros() - EPOCH_US, buffer)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

impl Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
                Ok(Self(Timestamp::from_micros(
                    since_2000.saturating_add(EPOCH_US),
                )))
            }
            PgValueFormat::Text => Err("a time is read in the binary format only".into()),
        }
    }
}
