//! The DNS (RFC 1035), as a client of servers that do the searching.

mod client;
mod message;
mod names;
mod resolve;
mod system;

pub use message::check_response;
pub use names::{Stamp, SystemNames, stamp};
pub use resolve::resolve;
pub use system::{Hosts, ResolvConf};
