//! Filters: what requests' bodies, responses' heads and responses' bodies go through on their way.
//!
//! A filter sees pieces of a body and whether one is the last, never a protocol: length and framing are its connection's.

mod chain;
mod emit;
mod request_body;
mod response_body;
mod response_head;

pub use emit::{BodySink, PeerSink, Taking};
pub use request_body::RequestBodyFilter;
pub use response_body::{ResponseBodyFilter, is_active};
pub use response_head::{HEAD, run_head, settle_head};
