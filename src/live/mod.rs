//! Every change for every screen, with no gap: commits in, frames out. No socket is known here.
//!
//! A process keeps one [`ring`] of the last commits for all its clients; a [`session`] keeps of its client only the commit at
//! which the client's picture stands, and takes from the ring what came after. So a client costs the same whether it keeps up or
//! not, nothing waits in queues, and one that is behind is told the newest state of each key.
//!
//! Invariants: a frame is written once for everybody; a cursor stands only on a frame after which nothing up to its version is
//! still to come; a client whose commit is not in the ring any more is told so and begins anew.

pub mod filter;
mod frames;
pub mod hub;
pub mod product;
pub mod pushes;
pub mod quantity;
pub mod quiet;
pub mod retry;
pub mod ring;
pub mod session;
pub mod snapshot;
pub mod stretch;

#[cfg(test)]
mod tests;
