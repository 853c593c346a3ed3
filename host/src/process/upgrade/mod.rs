//! Binary upgrade: one master hands everything to the next, which may be of another version.
//!
//! ```text
//! old master                                 new master (`castling take-over`)
//!   starts it, sends descriptors and Offer ->  checks them, loads the config, compiles, starts its workers
//!                                          <-  Ready, or Refused with the reason
//!   Commit                                 ->  its workers accept; control socket, pid file
//!                                          <-  Serving
//!   Yours: owns nothing from here on       ->  the one master
//!   drains its generations, ends           <-  StatusRequest, Stop, ReopenLogs
//! ```
//!
//! Whatever goes wrong before `Serving`, the old master goes on as it was, and ends the new one. Both have the same sockets and the
//! same zones; a connection that waits to be accepted is served by whoever is quicker.

mod descriptors;
mod hand_over;
mod inheritance;
mod message;
mod predecessor;
mod take_over;

pub use hand_over::{Successor, hand_over};
pub use inheritance::{Inheritance, InheritedZone, ZoneInMemory};
pub use message::{Described, FORMAT, FromNew, Offer, Paths, Serving};
pub use predecessor::Predecessor;
pub use take_over::TakeOver;
