//! The shows: what the gateway promises, each shown with counts. `cargo xtask show NAME` runs one at full size,
//! `tests/tests/shows.rs` all of them small, `docs/SHOWS.md` says what each does.

pub mod cache_suite;
pub mod chaos;
pub mod coalesce;
pub mod greedy;
pub mod idle;
mod load;
mod marks;
mod origin;
pub mod protocols;
pub mod reload_storm;
pub mod reload_time;
mod report;
pub mod states;
mod tunnels;
pub mod upgrades;
pub mod upstreams;
mod watched;

pub use report::{Progress, Report};
