//! Responses that a plugin writes piece by piece.

use castling_abi::{BODY_UNWANTED, LENGTH_UNKNOWN};

use crate::buffer::status;
use crate::error::{self, Error, Result};
use crate::header::HeaderList;
use crate::host;
use crate::response::Verdict;

/// Writes the body of a response, whose head is out: [`Response::stream`](crate::Response::stream).
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
///
/// /// Tells the time each second, as server-sent events.
/// #[derive(Default)]
/// struct Clock;
///
/// #[plugin]
/// impl Clock {
///     fn content(&self, _: &mut Request) -> Result<Verdict> {
///         let mut body = Response::status(200).header("content-type", "text/event-stream").stream()?;
///         for tick in 1..=3 {
///             body.write(format!("data: {tick}\n\n"))?;
///             delay(Duration::from_secs(1))?;
///         }
///         body.finish()
///     }
/// }
///
/// let mut exchange = Exchange::get("/clock");
/// Clock.content(exchange.request())?;
/// assert_eq!(exchange.reply().header("content-type").unwrap(), "text/event-stream");
/// let body = exchange.streamed().unwrap();
/// assert_eq!(body.pieces(), [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]);
/// assert!(body.is_finished());
/// # Ok::<(), Error>(())
/// ```
///
/// - **Each piece is sent at once**, through the plugins' `response_body` hooks (their `response_headers` hooks have seen the
///   head; this plugin's own run in another instance, with a state of their own), and [`write`](Self::write) returns when the client's connection has taken it. A client that reads slowly makes the
///   plugin wait; the gateway serves other requests meanwhile.
/// - **The end** is [`finish`](Self::finish), whose verdict the hook returns. A hook that ends otherwise, by an error, a panic or
///   another verdict, has its response cut: the client sees that it is not whole, and the access log says `plugin`.
/// - **A client that leaves** ends the hook in the middle of what it waits for, without another line of the plugin being run.
/// - **Nobody may want the body**: the request is HEAD, the status is 204 or 304, or another plugin's filter has answered in the
///   response's place or ended its body. Then `write` fails with an error that [`is_unwanted`](Error::is_unwanted),
///   and a hook that returns that, as `?` does, has not failed. [`is_wanted`](Self::is_wanted) tells before.
/// - **Limits**: `limits.cpu`, `limits.host_calls` and `limits.calls` count from one piece to the next, `limits.request_cpu` for the whole response. Each
///   stream keeps an instance of the plugin, of which there are `limits.instances` in a worker.
/// - **Request and response** cannot be changed any more, and the request's body cannot be read: that comes before.
#[derive(Debug)]
#[must_use = "a response that is not finished is cut"]
pub struct BodyWriter {
    is_wanted: bool,
    trailers: Option<HeaderList>,
}

/// Proof that a streamed response is whole: [`BodyWriter::finish`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// The SDK alone makes it.
    _whole: (),
}

/// Bytes that are handed to the host at once, and so what filters see at once.
const PIECE_BYTES: usize = 64 * 1024;

impl BodyWriter {
    pub(crate) fn begin(
        code: u16,
        headers: &HeaderList,
        length: Option<u64>,
        first: &[u8],
    ) -> Result<Self> {
        let list = headers.records("Response")?;
        let told = match length.map(i64::try_from) {
            None => LENGTH_UNKNOWN,
            Some(told) => told.map_err(|_| Error::msg("a response of 2^63 bytes or more"))?,
        };
        let is_wanted = match host::response_begin(code, list, told) {
            BODY_UNWANTED => false,
            0.. => true,
            refused => return Err(not_begun(code, refused)),
        };
        let mut body = Self {
            is_wanted,
            trailers: None,
        };
        match body.write(first) {
            Err(error) if !error.is_unwanted() => Err(error),
            _ => Ok(body),
        }
    }

    /// Sends a piece, and waits until the client's connection has taken it. Nothing happens for an empty one.
    ///
    /// Fails with an error that [`is_unwanted`](Error::is_unwanted) when nobody takes more, for a piece that goes beyond the
    /// length of [`stream_exact`](crate::Response::stream_exact), of which nothing is sent then, and, where
    /// `limits.body` is less than 64 KiB, for one that is longer than that.
    pub fn write(&mut self, piece: impl AsRef<[u8]>) -> Result<()> {
        piece
            .as_ref()
            .chunks(PIECE_BYTES)
            .try_for_each(|part| self.write_part(part))
    }

    fn write_part(&mut self, part: &[u8]) -> Result<()> {
        if self.is_wanted {
            match host::response_write(part) {
                BODY_UNWANTED => self.is_wanted = false,
                0.. => return Ok(()),
                refused => {
                    return Err(error::bad_argument(
                        format_args!("write({} bytes)", part.len()),
                        status(refused),
                        "no more than the length that the response has told",
                    ));
                }
            }
        }
        Err(Error::unwanted())
    }

    /// Whether anybody takes what is written, as far as the last call has told.
    pub const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Adds a trailer, a field that follows the body where the client's protocol has any (HTTP/1.1 with a body of unknown
    /// length). What decides how a response is read cannot be one (RFC 9110 §6.5.1).
    pub fn trailer(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        self.trailers
            .get_or_insert_with(HeaderList::new)
            .add(name.as_ref(), value.as_ref());
    }

    /// Ends the body. The hook returns this verdict.
    pub fn finish(self) -> Result<Verdict> {
        if let Some(trailers) = &self.trailers {
            let refused = host::response_trailers(trailers.records("trailer")?);
            if refused < 0 {
                return Err(error::bad_argument(
                    format_args!("finish with trailers"),
                    status(refused),
                    "trailers that say nothing of the message's framing, type or caching",
                ));
            }
        }
        Ok(Verdict::Streamed(Streamed { _whole: () }))
    }
}

#[cold]
fn not_begun(code: u16, refused: i32) -> Error {
    let expected = match code {
        200..=599 => "headers that do not frame the message: that is the gateway's business",
        _ => "a status of 200 to 599",
    };
    error::bad_argument(
        format_args!("stream with status {code}"),
        status(refused),
        expected,
    )
}
