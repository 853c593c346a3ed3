//! Services for a single-threaded event loop that tokio lacks: the time cached for one poll, cheap time-outs, and when
//! to give memory back.

pub mod alarm;
pub mod clock;
pub mod heap_trim;
