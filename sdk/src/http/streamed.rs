//! Calls whose bodies stream.

use std::io;

use castling_abi::{BODY_UNWANTED, ErrorKind, LENGTH_UNKNOWN, Status};

use super::{Call, Request, Upstream};
use crate::buffer::{length, read_text, status};
use crate::error::{self, Error, Result};
use crate::header::{HeaderValue, Headers};
use crate::host;

/// Begins a request whose body is written piece by piece, of a length that is not known: [`Upload::write`]. A body that the request has is the
/// first piece of it. The response is then read piece by piece. So neither need fit into `limits.body` or memory.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
///
/// /// Makes a large page of a store's entries, of which it never holds more than a piece.
/// #[derive(Default)]
/// struct Listing;
///
/// #[plugin]
/// impl Listing {
///     fn content(&self, _: &mut Request) -> Result<Verdict> {
///         let mut wish = http::open("store", http::Request::post("/entries"))?;
///         for id in 0..3 {
///             wish.write(format!("{id}\n"))?;
///         }
///         let mut entries = wish.finish()?;
///         let mut page = Response::status(entries.status()).stream()?;
///         while let Some(piece) = entries.read(64 * 1024)? {
///             page.write(piece)?;
///         }
///         page.finish()
///     }
/// }
///
/// let mut exchange = Exchange::get("/").call("store", |wish| {
///     assert_eq!(wish.body_bytes(), b"0\n1\n2\n");
///     Response::status(200).body("zero, one, two")
/// });
/// Listing.content(exchange.request())?;
/// assert_eq!(exchange.streamed().unwrap().pieces().concat(), b"zero, one, two");
/// # Ok::<(), Error>(())
/// ```
///
/// - **Waiting**: `write` returns when there is room for the piece on the way to the peer, `read` when something has come. A peer that is slow makes the
///   plugin wait, and a plugin that does not read makes the peer wait. The request's [`timeout`](Request::timeout) is for each wait, 60 s where it has none.
/// - **The end**: the call ends when the response is read, when it is dropped (which costs its connection), and with the client's request at latest. At most 16
///   are open at a time, and each counts as a call out (`limits.calls`).
/// - **Failures** are those of [`send`](super::send), and may come in the middle of a body.
/// - A response that comes before the request's body has ended is kept meanwhile, up to `limits.body`.
/// - **Limits**: `limits.cpu` and `limits.host_calls` count anew with each piece, `limits.request_cpu` for all.
/// - To upstreams and hosts that are granted. Not to the gateway's own routes, and a peer is not asked again once 64 KiB were sent.
///
/// In the hooks that [`send`](super::send) is in.
pub fn open(upstream: impl AsRef<str>, mut request: Request) -> Result<Upload> {
    let first = std::mem::take(&mut request.body);
    let mut upload = begin("http::open", upstream.as_ref(), &request, LENGTH_UNKNOWN)?;
    upload.write(first)?;
    Ok(upload)
}

/// Begins a request whose body is of this length, which the peer is told. A piece that goes beyond it is refused, and
/// [`finish`](Upload::finish) before it fails the call. Else as [`open`].
pub fn open_sized(upstream: impl AsRef<str>, mut request: Request, length: u64) -> Result<Upload> {
    let first = std::mem::take(&mut request.body);
    let told = i64::try_from(length).map_err(|_| Error::msg("a body of 2^63 bytes or more"))?;
    let mut upload = begin("http::open_sized", upstream.as_ref(), &request, told)?;
    upload.write(first)?;
    Ok(upload)
}

/// Sends a request whose response is read piece by piece: [`open`] with a body that is there whole.
///
/// ```
/// # use castling_sdk::prelude::*;
/// # let mut exchange = castling_sdk::testing::Exchange::get("/").call("files", |_| Response::status(200).body("a long file"));
/// # exchange.request();
/// let mut file = http::stream("files", http::Request::get("/large.csv"))?;
/// let mut lines = 0;
/// while let Some(piece) = file.read(64 * 1024)? {
///     lines += piece.iter().filter(|&&byte| byte == b'\n').count();
/// }
/// # assert_eq!(lines, 0);
/// # Ok::<(), Error>(())
/// ```
pub fn stream(upstream: impl AsRef<str>, request: Request) -> Result<StreamedResponse> {
    begin("http::stream", upstream.as_ref(), &request, 0)?.finish()
}

fn begin(name: &'static str, upstream: &str, request: &Request, length: i64) -> Result<Upload> {
    let call = Call {
        name,
        upstream,
        request,
    };
    let mut record = Vec::new();
    call.write(&mut record)
        .map_err(|error| error.context(name))?;
    match host::call_open(&record, length) {
        number @ 0.. => Ok(Upload {
            handle: Handle {
                number: number.unsigned_abs(),
                called: call.to_string(),
            },
            is_wanted: true,
        }),
        refused => Err(match status(refused) {
            Status::BadArgument => call.refusal(Status::BadArgument),
            status => failure(&call.to_string(), status),
        }),
    }
}

/// A call, which is given up when this is dropped.
#[derive(Debug)]
struct Handle {
    number: u32,
    /// For errors.
    called: String,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Calls that have failed are gone already.
        let _ = host::call_close(self.number);
    }
}

/// A request whose body is written piece by piece: [`open`].
#[derive(Debug)]
#[must_use = "a call that is not finished is given up"]
pub struct Upload {
    handle: Handle,
    is_wanted: bool,
}

impl Upload {
    /// Sends a piece, and waits until there is room for it on the way to the peer. Nothing happens for an empty one, and once the peer
    /// takes no more.
    pub fn write(&mut self, piece: impl AsRef<[u8]>) -> Result<()> {
        for part in piece.as_ref().chunks(PIECE_BYTES) {
            if !self.is_wanted {
                return Ok(());
            }
            match host::call_write(self.handle.number, part) {
                BODY_UNWANTED => self.is_wanted = false,
                0.. => {}
                refused => return Err(self.write_refused(part.len(), status(refused))),
            }
        }
        Ok(())
    }

    #[cold]
    fn write_refused(&self, bytes: usize, refused: Status) -> Error {
        let called = &self.handle.called;
        match refused {
            Status::BadArgument => error::bad_argument(
                format_args!("{called}: write({bytes} bytes)"),
                refused,
                "no more than the length that it was opened with",
            ),
            status => failure(called, status),
        }
    }

    /// False once the peer has answered, or has begun to, and takes no more of the body: what is written then is thrown away, and
    /// [`finish`](Self::finish) has its answer.
    pub const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Ends the body, and waits for the response's head, whatever its status.
    pub fn finish(self) -> Result<StreamedResponse> {
        let Self { handle, .. } = self;
        let told = host::call_finish(handle.number);
        let Ok(code) = u16::try_from(told) else {
            return Err(failure(&handle.called, status(told)));
        };
        let headers = Headers::read(|out| host::call_reply_headers(handle.number, out));
        Ok(StreamedResponse {
            handle,
            status: code,
            headers,
        })
    }
}

/// A response whose body is read piece by piece: [`Upload::finish`], [`stream`].
#[derive(Debug)]
pub struct StreamedResponse {
    handle: Handle,
    status: u16,
    headers: Headers,
}

impl StreamedResponse {
    /// The status code.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The first value of the header; `None` when there is no such header.
    pub fn header(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        self.headers.first(name)
    }

    /// All headers.
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The next bytes of the body, at most so many (and 64 KiB), once some have come; `None` at its end.
    pub fn read(&mut self, most: usize) -> Result<Option<Vec<u8>>> {
        let mut room = vec![0; most.clamp(1, PIECE_BYTES)];
        let bytes = self.read_into(&mut room)?;
        room.truncate(bytes);
        Ok((bytes > 0).then_some(room))
    }

    fn read_into(&mut self, room: &mut [u8]) -> Result<usize> {
        let read = host::call_read(self.handle.number, room);
        length(read).map_err(|status| failure(&self.handle.called, status))
    }
}

impl io::Read for StreamedResponse {
    /// Waits until there is something; 0 at the end.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match room.is_empty() {
            true => Ok(0),
            false => self
                .read_into(room)
                .map_err(|error| io::Error::other(error.to_string())),
        }
    }
}

impl Upstream {
    /// Begins a request to it whose body is written piece by piece: [`open`].
    pub fn open(&self, request: Request) -> Result<Upload> {
        open(self, request)
    }

    /// Begins a request to it whose body is of this length: [`open_sized`].
    pub fn open_sized(&self, request: Request, length: u64) -> Result<Upload> {
        open_sized(self, request, length)
    }

    /// Sends it a request whose response is read piece by piece: [`stream`].
    pub fn stream(&self, request: Request) -> Result<StreamedResponse> {
        stream(self, request)
    }
}

/// Error of a call; the gateway says why one has failed.
#[cold]
fn failure(called: &str, status: Status) -> Error {
    let why = match status {
        Status::NotFound => read_text(host::call_failure).ok(),
        _ => None,
    };
    let Some(why) = why else {
        return error::refusal(format_args!("{called}"), status);
    };
    let kind = u32::try_from(host::call_failure_kind()).ok();
    let id = kind
        .and_then(ErrorKind::from_raw)
        .unwrap_or(ErrorKind::Broken);
    Error::of_kind(id, format_args!("{called}: {why}"))
}

/// Bytes that are handed to the host at once.
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response as Answer;
    use crate::testing::Exchange;

    #[test]
    fn pieces_go_and_come() {
        let mut exchange = Exchange::get("/").call("up", |request| {
            Answer::status(201)
                .header("x-a", "1")
                .body(request.body_bytes())
        });
        exchange.request();
        let mut upload = open("up", Request::post("/x").body("first ")).unwrap();
        upload.write("second").unwrap();
        upload.write("").unwrap();
        assert!(upload.is_wanted());
        let mut answer = upload.finish().unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.header("x-a").unwrap(), "1");
        assert_eq!(answer.read(5).unwrap().unwrap(), b"first");
        let mut rest = String::new();
        io::Read::read_to_string(&mut answer, &mut rest).unwrap();
        assert_eq!(rest, " second");
        assert_eq!(answer.read(5).unwrap(), None);
        assert_eq!(exchange.calls()[0].1.body_bytes(), b"first second");
    }

    #[test]
    fn a_length_is_held_to() {
        let mut exchange = Exchange::get("/").call("up", |_| Answer::status(200));
        exchange.request();
        let mut upload = open_sized("up", Request::post("/x"), 3).unwrap();
        upload.write("ab").unwrap();
        let error = upload.write("cd").unwrap_err();
        assert_eq!(
            error.to_string(),
            "http::open_sized(\"up\", POST /x): write(2 bytes): bad argument: expected no more than the length that it was opened with"
        );
        assert!(upload.finish().is_err());
    }

    #[test]
    fn what_fails_says_why() {
        let mut exchange = Exchange::get("/").failing_call("down", "no peer");
        exchange.request();
        let error = stream("down", Request::get("/x")).unwrap_err();
        assert_eq!(error.to_string(), "http::stream(\"down\", GET /x): no peer");
        let error = open("other", Request::get("/x")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "http::open(\"other\", GET /x): not granted"
        );
        let error = stream("down", Request::get("x")).unwrap_err();
        assert!(
            error.to_string().contains("a target that begins with /"),
            "{error}"
        );
    }
}
