//! What stock is, without any technology: no I/O, no async, no clock.
//!
//! The words, as the whole code uses them:
//! - **movement**: goods on their way from one warehouse to another, told by a *departure* and an *arrival* (its *sides*);
//!   several products under one movement are its *lines*.
//! - **fact**: one side of one line, as a message reports it. Facts are never refused.
//! - **on hand**: what stands in a warehouse; may be negative, because facts come in any order and some never come.
//! - **reserved**: promised units, never negative. **available**: what is neither.
//! - **level**: on hand and reserved of one *key* (warehouse and product) at one *revision*.
//! - **reservation**: promised units of one or several levels, its *lines*. While it is *active* they count as reserved; it is *due*
//!   once its time is over, whether or not somebody has tidied it up; a line is *at risk* that what is on hand does not cover.
//! - **request**: what somebody wants done; it is *decided*, and may be refused.
//! - **commit**: one published transaction, known by its *version* and a random *tag*.

pub mod access;
pub mod batch;
pub mod catalogue;
pub mod change;
pub mod command;
pub mod commit;
pub mod decide;
pub mod explain;
pub mod ids;
pub mod movement;
pub mod past;
pub mod price;
pub mod quantity;
pub mod reservation;
pub mod risk;
pub mod stock;
pub mod time;
pub mod trace;
pub mod transit;
pub mod void;

pub use catalogue::{Product, Warehouse};
pub use commit::{CommitPoint, Tag, Version};
pub use ids::{
    CommandId, InventoryId, MovementId, ProductId, ReservationId, StockKey, WarehouseCode,
    WarehouseId,
};
pub use movement::{Fact, Movement, MovementLine, Side, SideReport, Sides, Status};
pub use quantity::Quantity;
pub use stock::{Revision, StockLevel};
pub use time::Timestamp;
pub use trace::TraceParent;
