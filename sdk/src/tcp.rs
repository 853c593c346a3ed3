//! Connections to peers of the gateway's upstreams, on which a plugin speaks what it likes: Redis, memcached, a line protocol.
//!
//! The upstream must be granted (`grants = { upstreams = ["cache"] }`). The gateway chooses the peer as it does for a request, and makes the
//! handshake where the upstream has `tls`. A connection counts as a call out (`limits.calls`), and as a request under way at its peer until
//! it is dropped; with the request that it was made for it ends. Each call waits, for the time that the connection was made with at most.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//!
//! use castling_sdk::prelude::*;
//! use castling_sdk::tcp;
//! use castling_sdk::testing::Exchange;
//!
//! #[derive(Default)]
//! struct Counter;
//!
//! #[plugin]
//! impl Counter {
//!     fn access(&self, request: &mut Request) -> Result<Verdict> {
//!         let mut redis = tcp::connect("redis", Duration::from_millis(100))?;
//!         redis.write_all(format!("INCR {}\r\n", request.client_address()).as_bytes())?;
//!         let mut answer = String::new();
//!         BufReader::new(redis).read_line(&mut answer)?;
//!         let count: u64 = answer.trim_start_matches(':').trim_end().parse()?;
//!         Ok(if count > 100 { Response::status(429).into() } else { Verdict::Continue })
//!     }
//! }
//!
//! let mut exchange = Exchange::get("/").tcp("redis", |sent| {
//!     assert_eq!(sent, b"INCR 192.0.2.1\r\n");
//!     b":101\r\n".to_vec()
//! });
//! assert_eq!(Counter.access(exchange.request()).unwrap(), Response::status(429).into());
//! ```
//!
//! In `rewrite`, `preaccess`, `access`, `content`, `response_headers`, `after_response`, `timer` and `message`.

use std::io;
use std::time::Duration;

use castling_abi::Status;

use crate::buffer::{length, read_text, status};
use crate::error::{self, Error, Result};
use crate::host;
use crate::wait::milliseconds;

/// Connects to a peer of an upstream. `timeout` (at most 60 s) is for this and for each read and write.
///
/// Fails when the upstream is not granted, no peer could be connected to in time, the request has made as many calls as it may
/// (`limits.calls`), or has 16 connections open.
pub fn connect(upstream: impl AsRef<str>, timeout: Duration) -> Result<Connection> {
    let (upstream, milliseconds) = (upstream.as_ref(), milliseconds(timeout));
    match host::tcp_connect(upstream.as_bytes(), milliseconds) {
        number @ 0.. => Ok(Connection {
            number: number.unsigned_abs(),
            milliseconds,
        }),
        refused => Err(failure(
            format_args!("tcp::connect({upstream:?})"),
            status(refused),
        )),
    }
}

/// A connection. It closes when it is dropped.
#[derive(Debug)]
pub struct Connection {
    number: u32,
    milliseconds: u32,
}

impl io::Read for Connection {
    /// Waits until there is something; 0 at the end.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        let read = host::tcp_read(self.number, room, self.milliseconds);
        length(read).map_err(|status| io_error(failure(format_args!("tcp read"), status)))
    }
}

impl io::Write for Connection {
    /// Waits until all of it is written, or, of more than 64 KiB, so much.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        match host::tcp_write(self.number, piece, self.milliseconds) {
            0.. => Ok(piece.len()),
            refused => {
                let status = status(refused);
                Err(io_error(failure(format_args!("tcp write"), status)))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A connection that is gone is closed already.
        let _ = host::tcp_close(self.number);
    }
}

const PIECE_BYTES: usize = 64 << 10;

fn io_error(error: Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// Error of a call; the gateway says why a connection has failed.
fn failure(call: std::fmt::Arguments<'_>, status: Status) -> Error {
    match (status, read_text(host::tcp_error)) {
        (Status::NotFound, Ok(why)) => Error::msg(format_args!("{call}: {why}")),
        (status, _) => error::refusal(call, status),
    }
}
