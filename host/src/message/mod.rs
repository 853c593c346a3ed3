//! Messages as all protocols have them: heads, fields, targets, and what is said of a body's size.
//!
//! Codecs make them and write them; phases, filters and plugins see nothing else of a protocol.

mod body_size;
pub mod claims;
pub mod conditions;
pub mod cookies;
mod field_name;
pub mod forwarded;
pub mod grpc;
mod head;
mod head_limits;
mod headers;
pub mod path;
mod piece;
mod protocol;
pub mod query;
pub mod ranges;
mod request_id;
mod swar;
mod target;
mod trailers;
mod upgrade;

pub use body_size::{BodySize, never_has_body};
pub use field_name::{FieldName, KnownHeader, is_valid_value};
pub use head::{HeadRoom, ReplyHead, RequestHead};
pub use head_limits::HeadLimits;
pub use headers::{Dropped, FoundField, Headers, Occurrences, write_line};
pub use piece::Piece;
pub use protocol::{Protocol, Scheme};
pub use target::{
    Target, is_path_byte, is_target_byte, is_valid_authority, is_valid_host, is_valid_path,
    is_valid_query,
};
pub use trailers::may_be_trailer;
pub use upgrade::Upgrade;
