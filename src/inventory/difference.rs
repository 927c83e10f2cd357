//! What `verify` may find, and how it says it.

use std::fmt;

use uuid::Uuid;

use crate::{
    domain::{MovementLine, StockKey, Version, batch::LineId},
    store::{
        rebuild::{OtherLevel, OtherLine},
        slices::{LedgerSums, LevelSlice, SideId, StrayRow},
    },
};

/// One way in which the tables contradict each other, or the generator.
#[derive(Debug)]
pub enum Difference {
    LevelIsNotItsLedger {
        level: LevelSlice,
    },
    RevisionDoesNotFollow {
        key: StockKey,
        revision: i64,
    },
    ReservedIsNotPromised {
        key: StockKey,
        reserved: i64,
        promised: i64,
    },
    ReservationIsNotItsLedger {
        key: StockKey,
        reservation: Uuid,
    },
    StrayReservation(Uuid),
    OrderWithoutReservation(i64),
    LevelWithoutCatalogue {
        key: StockKey,
    },
    LedgerRowWithoutCause(StrayRow),
    SideWithoutLedgerRow(SideId),
    SideTwiceInLedger(SideId),
    SideOnlyInLedger(SideId),
    VoidWithoutLedgerRow(SideId),
    /// By movement and product.
    LineTellsOtherVoids(Uuid, Uuid),
    LevelIsRebuilt(OtherLevel),
    LineIsRebuilt(OtherLine),
    BatchNeverPublished {
        batch: i64,
    },
    VersionsMissing {
        after: Version,
        to: Version,
        missing: i64,
    },
    TimesGoBack {
        after: Version,
        to: Version,
        late: i64,
    },
    LevelNotAsExpected {
        key: StockKey,
        expected: i64,
        found: i64,
    },
    LineNotAsExpected {
        id: LineId,
        expected: Option<MovementLine>,
        found: Option<MovementLine>,
    },
}

impl fmt::Display for Difference {
    #[expect(clippy::too_many_lines, reason = "one sentence for each")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |key: &StockKey| format!("warehouse {} product {}", key.warehouse, key.product);
        let side = |(movement, product, kind): &SideId| {
            let side = if *kind == 1 { "departure" } else { "arrival" };
            format!("movement {movement} product {product} {side}")
        };
        match self {
            Self::LevelIsNotItsLedger { level } => {
                write!(
                    f,
                    "level is not the sum of its ledger: {}: level on hand {} reserved {} revision {}, ledger ",
                    key(&level.key),
                    level.on_hand,
                    level.reserved,
                    level.revision
                )?;
                match level.ledger {
                    Some(LedgerSums {
                        on_hand,
                        reserved,
                        revision,
                    }) => {
                        write!(
                            f,
                            "on hand {on_hand} reserved {reserved} revision {revision}"
                        )
                    }
                    None => f.write_str("has no rows"),
                }
            }
            Self::RevisionDoesNotFollow { key: of, revision } => {
                write!(
                    f,
                    "revision {revision} is not the one before plus its changes: {}",
                    key(of)
                )
            }
            Self::ReservedIsNotPromised {
                key: of,
                reserved,
                promised,
            } => write!(
                f,
                "reserved is not the sum of the active reservations: {}: reserved {reserved}, reservations {promised}",
                key(of)
            ),
            Self::ReservationIsNotItsLedger {
                key: of,
                reservation,
            } => write!(
                f,
                "reservation {reservation} is not what the ledger says of it: {}",
                key(of)
            ),
            Self::StrayReservation(id) => {
                write!(f, "reservation {id} without its level or ledger row")
            }
            Self::OrderWithoutReservation(number) => {
                write!(f, "order {number} without its reservation")
            }
            Self::LevelWithoutCatalogue { key: of } => {
                write!(f, "level without its product or warehouse: {}", key(of))
            }
            Self::LedgerRowWithoutCause(row) => {
                let cause = row.cause_id.map_or("none".to_owned(), |id| id.to_string());
                write!(
                    f,
                    "ledger row that nothing confirms: version {} inventory_id {} cause {cause} kind {} change {}",
                    row.version, row.inventory_id, row.kind, row.on_hand_delta
                )
            }
            Self::SideWithoutLedgerRow(of) => write!(f, "side without a ledger row: {}", side(of)),
            Self::SideTwiceInLedger(of) => {
                write!(f, "side more than once in the ledger: {}", side(of))
            }
            Self::SideOnlyInLedger(of) => {
                write!(
                    f,
                    "side in the ledger that its movement does not have: {}",
                    side(of)
                )
            }
            Self::VoidWithoutLedgerRow(of) => {
                write!(f, "side taken back without a ledger row: {}", side(of))
            }
            Self::LineTellsOtherVoids(movement, product) => {
                write!(
                    f,
                    "line tells of other sides taken back than there are: movement {movement} product {product}"
                )
            }
            Self::LevelIsRebuilt(OtherLevel { key: of, was, is }) => {
                let (was, is) = (amounts(*was), amounts(*is));
                write!(f, "level was {was}, is {is}: {}", key(of))
            }
            Self::LineIsRebuilt(OtherLine { id, was, is }) => {
                let (was, is) = (shown(was.as_ref()), shown(is.as_ref()));
                write!(f, "movement {} product {} was {was}, is {is}", id.0, id.1)
            }
            Self::BatchNeverPublished { batch } => {
                write!(f, "batch {batch} is in the ledger and was never published")
            }
            Self::VersionsMissing { after, to, missing } => {
                write!(f, "{missing} versions are missing between {after} and {to}")
            }
            Self::TimesGoBack { after, to, late } => {
                write!(
                    f,
                    "{late} commits between {after} and {to} are not later than the one before"
                )
            }
            Self::LevelNotAsExpected {
                key: of,
                expected,
                found,
            } => {
                write!(
                    f,
                    "level is not as expected: {}: expected {expected}, found {found}",
                    key(of)
                )
            }
            Self::LineNotAsExpected {
                id: (movement, product),
                expected,
                found,
            } => {
                write!(
                    f,
                    "movement {movement} product {product} is not as expected: expected {}, found {}",
                    shown(expected.as_ref()),
                    shown(found.as_ref())
                )
            }
        }
    }
}

fn amounts(of: Option<LedgerSums>) -> String {
    of.map_or("not there".to_owned(), |of| {
        format!(
            "on hand {} reserved {} revision {}",
            of.on_hand, of.reserved, of.revision
        )
    })
}

fn shown(line: Option<&MovementLine>) -> String {
    let side = |report: Option<crate::domain::SideReport>| {
        report.map_or("-".to_owned(), |side| {
            format!(
                "{} of {} at {}",
                side.quantity.units(),
                side.warehouse,
                side.at
            )
        })
    };
    line.map_or("nothing".to_owned(), |line| {
        format!(
            "(departed {}, arrived {})",
            side(line.departure),
            side(line.arrival)
        )
    })
}
