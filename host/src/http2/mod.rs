//! HTTP/2 (RFC 9113): frames, flow control and HPACK, by the `h2` crate, which nothing outside of here names.
//!
//! A connection reads and writes frames ([`ServerConnection`]); each request that it brings is a [`ServerStream`], whose head
//! becomes the same [`RequestHead`](crate::message::RequestHead) as that of HTTP/1, by the same rules. Nothing is translated
//! into another protocol's bytes. Windows open when the other side has taken what came, so that a slow receiver holds up its
//! sender and nobody else.

mod client;
mod flood;
mod head;
mod incoming;
mod io;
mod outgoing;
mod server;

pub use client::{ClientBuilder, ClientConnection, ClientStream, StreamError};
pub use head::{HeadError, ReceivedRequest, read_request};
pub use server::{Builder, ServerConnection, ServerStream};

/// First bytes of a client that speaks HTTP/2 without having been asked (RFC 9113 §3.4), as far as a parser of HTTP/1 reads
/// before it refuses their version.
pub const PREFACE_BEGIN: &[u8] = b"PRI * HTTP/2";

/// Kind of an error that ends a stream or a connection: the other side's doing, however it has come about.
fn io_error(error: h2::Error) -> std::io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| std::io::ErrorKind::BrokenPipe.into()),
        false => std::io::Error::new(std::io::ErrorKind::ConnectionReset, error),
    }
}
