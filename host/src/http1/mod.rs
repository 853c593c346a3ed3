//! The HTTP/1 codec: heads, framing and bodies, over bytes that others read and write.
//!
//! Our own for two reasons. Request smuggling lives here, so every doubtful framing has to be seen and refused, where
//! hyper's server drops a `Content-Length` beside a `Transfer-Encoding` in silence. And a codec in one task measured
//! 0.85 of nginx's CPU a request, hyper 1.05.
//!
//! [`parse_request`] and [`parse_response`] cut a head off what was read, a [`BodyDecoder`] then cuts the body, and
//! [`encode`](write_response_head) writes. What goes out is written anew from checked parts, its framing always by the
//! encoder, so nothing that a peer could read in two ways is ever passed on.

mod body;
mod encode;
mod error;
mod fields;
mod framing;
mod head;
mod limits;
mod request;
mod response;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod smuggling;
mod target;
mod trailers;

pub use body::BodyDecoder;
pub use encode::{
    CHUNK_END, ReplyTo, write_chunk_head, write_request_head, write_response_head,
    write_switching_head, write_trailers,
};
pub use error::{BodyError, HeadError};
pub use framing::Framing;
pub use head::{HeadProgress, ParsedRequest, ParsedResponse};
pub use request::parse_request;
pub use response::parse_response;
