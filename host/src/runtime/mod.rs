//! Services for a single-threaded event loop that tokio lacks: the time cached for one poll, cheap time-outs, turns, random
//! numbers, and when to give memory back.

pub mod alarm;
pub mod clock;
pub mod gate;
pub mod heap_trim;
mod piece_budget;
pub mod random;
pub mod readiness;

pub use piece_budget::PieceBudget;
