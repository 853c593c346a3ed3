//! The cache (RFC 9111): which responses are stored, how long they are used, and by which key.
//!
//! What is here decides and does not wait; `flow/cached.rs` runs a request through it. Responses lie in a zone of kind `cache`, which
//! all workers share.

mod directives;
mod entry;
mod freshness;
mod key;
mod merge;
mod route_cache;
mod status_field;
mod storable;
mod vary;

pub use directives::RequestDirectives;
pub use entry::{Entry, Response};
pub use freshness::{Defaults, Moment};
pub use key::KeyDigest;
pub use merge::{freshen, make_conditional, make_whole};
pub use route_cache::{
    Found, Outcome, PASSES_FOR, PASSES_ONCE_FOR, Past, Place, RouteCache, is_fresh_for,
};
pub use status_field::StatusField;
pub use storable::{Rules, Storing, head_to_store, judge};
pub use vary::Vary;
