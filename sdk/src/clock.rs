//! Time. (`std::time::Instant::now` and `SystemTime::now` work in a plugin for `wasm32-wasip1` only: `wasm32-unknown-unknown` has no
//! clock.)
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing;
//!
//! struct Lookup {
//!     fetched: Duration,
//! }
//!
//! impl Lookup {
//!     fn is_stale(&self) -> bool {
//!         clock::monotonic() - self.fetched > Duration::from_secs(60)
//!     }
//! }
//!
//! let lookup = Lookup { fetched: clock::monotonic() };
//! assert!(!lookup.is_stale());
//! testing::advance_clock(Duration::from_secs(61));
//! assert!(lookup.is_stale());
//! ```

use std::time::Duration;

use crate::host;

/// Time since some moment in the past. Never goes backwards; the same for all instances of a worker.
pub fn monotonic() -> Duration {
    Duration::from_nanos(u64::try_from(host::clock_monotonic()).unwrap_or(0))
}

/// Time since 1970-01-01 UTC, as the system's clock has it.
pub fn wall() -> Duration {
    Duration::from_nanos(u64::try_from(host::clock_wall()).unwrap_or(0))
}
