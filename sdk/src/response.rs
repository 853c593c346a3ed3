//! Decisions of hooks: [`Verdict`], the [`Response`] that one may hold, and the [`Reply`] that passes by.

use castling_abi::{HeaderMap, Status};
use serde::Serialize;

use crate::error::{self, Error, Result};
use crate::header::{self, HeaderList, HeaderValue, Headers};
use crate::set_cookie::SetCookie;
use crate::stream::{BodyWriter, Streamed};
use crate::{host, wait};

/// Decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request goes on to the next step. From `content`: this plugin does not answer it.
    Continue,
    /// This response is sent; no upstream is asked (or, from `response_headers`, the upstream's response is thrown
    /// away). The plugins' response hooks and the access log see it as they see any other.
    Answer(Response),
    /// The response that [`Response::stream`] has begun is whole: [`BodyWriter::finish`]. From `content` only.
    Streamed(Streamed),
    /// The route is looked for again, with the head as it is now. From `rewrite` only; bounded by the host.
    Reroute,
}

impl From<Response> for Verdict {
    fn from(response: Response) -> Self {
        Self::Answer(response)
    }
}

/// A response that a plugin makes.
///
/// ```
/// # use castling_sdk::prelude::*;
/// let response = Response::status(401)
///     .header("www-authenticate", "Bearer")
///     .body("token required");
/// # assert_eq!(response.status_code(), 401);
/// ```
///
/// The host writes `Content-Length`. What it refuses (a status outside 200 to 599, a line break in a header) makes the
/// hook fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: HeaderList,
    body: Vec<u8>,
}

impl Response {
    /// A response with this status, without headers and body.
    pub const fn status(status: u16) -> Self {
        Self {
            status,
            headers: HeaderList::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.headers.add(name.as_ref(), value.as_ref());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to this as JSON, and says so in `Content-Type`. Fails where it cannot be JSON: a map whose keys are no texts.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// #[derive(Serialize)]
    /// struct Problem {
    ///     title: &'static str,
    /// }
    /// let response = Response::status(429).json(&Problem { title: "too many" })?;
    /// assert_eq!(response.body_bytes(), br#"{"title":"too many"}"#);
    /// assert_eq!(response.header_value("content-type").unwrap(), "application/json");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self> {
        let body = serde_json::to_vec(body)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sets a cookie. Fails where browsers would not take it: see [`SetCookie`].
    pub fn set_cookie(self, cookie: &SetCookie) -> Result<Self> {
        Ok(self.header("set-cookie", cookie.field()?))
    }

    /// Sends the head now, and lends what the body is written with, piece by piece; a body that is set is its first piece. In
    /// `content` only; see [`BodyWriter`].
    ///
    /// The length of the body need not be known: it goes in chunks (to a client of HTTP/1.0 until the connection closes). Fails
    /// for a status outside 200 to 599, headers that are not valid, and where a response has begun.
    pub fn stream(self) -> Result<BodyWriter> {
        BodyWriter::begin(self.status, &self.headers, None, &self.body)
    }

    /// Begins as [`Self::stream`] does, with a body of exactly so many bytes, which the client is told as `Content-Length` (unless a plugin
    /// filters the body). A write beyond that is refused; a response that ends before it is cut.
    pub fn stream_exact(self, bytes: u64) -> Result<BodyWriter> {
        BodyWriter::begin(self.status, &self.headers, Some(bytes), &self.body)
    }

    /// The response as bytes, to be kept in a [kv zone](crate::zones::kv()). Fails as it would when it is sent.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let page = Response::status(200).header("etag", "\"1\"").body("hello");
    /// zones::kv("pages").put("/", page.to_bytes()?, None)?;
    /// let kept = zones::kv("pages").get("/")?.unwrap_or_default();
    /// assert_eq!(Response::from_bytes(&kept)?, page);
    /// assert!(Response::from_bytes(b"else").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let headers = self.headers.records("Response")?;
        let bytes = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let (status, bytes) = (self.status.to_le_bytes(), bytes.to_le_bytes());
        Ok([&status[..], &bytes, headers, &self.body].concat())
    }

    /// Reads what [`Self::to_bytes`] has made, by this release of the SDK. Fails where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let parts = || {
            let (status, rest) = bytes.split_first_chunk()?;
            let (head_bytes, rest) = rest.split_first_chunk()?;
            let head_bytes = usize::try_from(u32::from_le_bytes(*head_bytes)).ok()?;
            let (headers, body) = rest.split_at_checked(head_bytes)?;
            let headers = HeaderList::read(headers)?;
            Some((u16::from_le_bytes(*status), headers, body.to_vec()))
        };
        let (status, headers, body) =
            parts().ok_or_else(|| Error::msg("these bytes are no response that was kept"))?;
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    /// The status, for tests.
    pub const fn status_code(&self) -> u16 {
        self.status
    }

    /// The first value of a header, for tests.
    pub fn header_value(&self, name: &str) -> Option<HeaderValue> {
        self.headers.first(name)
    }

    /// The body, for tests.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Status, header list and body, for the fake host.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn into_parts(self) -> Result<(u16, Vec<u8>, Vec<u8>)> {
        let headers = self.headers.records("Response")?.to_vec();
        Ok((self.status, headers, self.body))
    }

    #[cold]
    fn refusal(&self, status: Status) -> Error {
        let expected = match self.status {
            200..=599 => "headers that do not frame the message: that is the gateway's business",
            _ => "a status of 200 to 599",
        };
        error::bad_argument(
            format_args!(
                "answer with status {} and {} bytes",
                self.status,
                self.body.len()
            ),
            status,
            expected,
        )
    }

    /// Why the host would not send it, as the fake host sees it.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn check(&self) -> Result<()> {
        let refused =
            host::check_answer(self.status, self.headers.records("Response")?, &self.body);
        match refused {
            None => Ok(()),
            Some(status) => Err(self.refusal(status)),
        }
    }

    /// Hands it to the host, which sends it when the hook has returned.
    pub(crate) fn hand_over(&self) -> Result<()> {
        let headers = self.headers.records("Response")?;
        match host::answer(self.status, headers, &self.body) {
            0.. => Ok(()),
            refused => Err(self.refusal(crate::buffer::status(refused))),
        }
    }
}

/// The response on its way to the client, an upstream's or a plugin's: a handle to what the host keeps.
///
/// What [`Request`](crate::Request) says about names, values and refused changes is true here too. Lengths and
/// framing are the host's business.
#[derive(Debug)]
pub struct Reply {
    /// The SDK alone lends replies.
    _lent: (),
}

impl Reply {
    pub(crate) const fn new() -> Self {
        Self { _lent: () }
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        u16::try_from(host::status_get()).unwrap_or(0)
    }

    /// Sets the status code, 200 to 599.
    pub fn set_status(&mut self, status: u16) {
        error::note_refusal(host::status_set(status), |why| {
            error::bad_argument(format_args!("set_status({status})"), why, "200 to 599")
        });
    }

    /// The first value of the header; `None` when there is no such header.
    pub fn header(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::get(HeaderMap::Response, name.as_ref())
    }

    /// All values of the header.
    pub fn header_all(&self, name: impl AsRef<str>) -> Vec<HeaderValue> {
        header::all(HeaderMap::Response, name.as_ref())
    }

    /// All headers.
    pub fn headers(&self) -> Headers {
        header::list(HeaderMap::Response, "")
    }

    /// Puts this value in the place of all of that name.
    pub fn set_header(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        header::set(HeaderMap::Response, name.as_ref(), value.as_ref());
    }

    /// Adds a value to those of that name.
    pub fn add_header(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        header::add(HeaderMap::Response, name.as_ref(), value.as_ref());
    }

    /// Sets a cookie, beside those that the response sets. One that browsers would not take is a refused change: see [`SetCookie`].
    pub fn set_cookie(&mut self, cookie: &SetCookie) {
        match cookie.field() {
            Ok(field) => self.add_header("set-cookie", field),
            Err(refused) => error::note(refused),
        }
    }

    /// Removes all values of that name and says how many there were.
    pub fn remove_header(&mut self, name: impl AsRef<str>) -> usize {
        header::remove(HeaderMap::Response, name.as_ref())
    }

    /// Leaves this response's body alone: the plugin's `response_body` hook does not see it, and it goes on with the length,
    /// the validators and the ranges that it has. In `response_headers` only. A plugin with a `response_body` hook calls this
    /// for every response that is not its business; for one that it does not skip, the gateway has the head say what is true
    /// of a body that may change.
    pub fn skip_body(&mut self) {
        error::note_refusal(host::body_skip(), |why| {
            error::refusal(format_args!("skip_body()"), why)
        });
    }

    /// Waits for the whole body and returns it; the client gets it all the same, after the hook. The gateway serves
    /// other requests meanwhile.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    ///
    /// /// Answers 502 where a backend says that it has failed, whatever its status.
    /// #[derive(Default)]
    /// struct Honest;
    ///
    /// #[plugin]
    /// impl Honest {
    ///     fn response_headers(&self, _: &Request, reply: &mut Reply) -> Result<Verdict> {
    ///         let body = reply.read_body(64 * 1024)?;
    ///         if body.starts_with(b"{\"error\"") {
    ///             reply.set_status(502);
    ///             reply.set_header("cache-control", "no-store");
    ///         }
    ///         Ok(Verdict::Continue)
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::get("/").response(200).response_body(r#"{"error":"no"}"#);
    /// let (request, reply) = exchange.request_and_reply();
    /// Honest.response_headers(request, reply)?;
    /// assert_eq!(exchange.reply().status(), 502);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// Fails with [`Error::is_limit`](crate::Error::is_limit) when it is longer than `limit` bytes, and goes on to
    /// the client all the same. `limit` may be up to the plugin's `limits.body`. In `response_headers` only.
    pub fn read_body(&self, limit: usize) -> Result<Vec<u8>> {
        wait::read_body(HeaderMap::Response, limit)
    }
}
