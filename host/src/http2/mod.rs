//! HTTP/2 (RFC 9113): frames, flow control and HPACK, by the `h2` crate, which nothing outside of here names.
//!
//! A connection reads and writes frames ([`ServerConnection`]); each request that it brings is a [`ServerStream`], whose head
//! becomes the same [`RequestHead`](crate::message::RequestHead) as that of HTTP/1, by the same rules. Nothing is translated
//! into another protocol's bytes. Windows open when the other side has taken what came, so that a slow receiver holds up its
//! sender and nobody else.

mod flood;
mod head;
mod io;
mod server;

pub use head::{HeadError, ReceivedRequest};
pub use server::{Builder, ServerConnection, ServerStream};

/// First bytes of a client that speaks HTTP/2 without having been asked (RFC 9113 §3.4), as far as a parser of HTTP/1 reads
/// before it refuses their version.
pub const PREFACE_BEGIN: &[u8] = b"PRI * HTTP/2";
