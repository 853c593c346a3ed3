//! Calls out: HTTP requests to the gateway's upstreams, with their pools, balancing and time-outs.
//!
//! The call returns when the response is there, whole; the gateway serves other requests meanwhile. When the client
//! leaves, what the hook waits for is cancelled. The upstream must be granted to the plugin:
//! `grants = { upstreams = ["users"] }`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::Exchange;
//!
//! #[derive(Default)]
//! struct Greylist;
//!
//! #[plugin]
//! impl Greylist {
//!     fn access(&self, request: &mut Request) -> Result<Verdict> {
//!         let question = http::Request::get(format!("/check?ip={}", request.client_address()))
//!             .header("accept", "text/plain")
//!             .timeout(Duration::from_millis(200));
//!         let answer = http::send("reputation", question)?;
//!         Ok(match (answer.status(), answer.body()) {
//!             (200, b"bad") => Response::status(403).into(),
//!             _ => Verdict::Continue,
//!         })
//!     }
//! }
//!
//! let mut exchange = Exchange::get("/").call("reputation", |question| {
//!     assert_eq!(question.target(), "/check?ip=192.0.2.1");
//!     Response::status(200).body("bad")
//! });
//! assert_eq!(Greylist.access(exchange.request()).unwrap(), Response::status(403).into());
//! ```
//!
//! A host that is no upstream is called by its name, in the place of the upstream's: `https://HOST`, `https://HOST:PORT`, or the same with
//! `http`. The config grants it by a pattern (`grants = { hosts = ["*.example.com:443"] }`), and addresses of the name that are not public
//! are refused. Each call has a connection of its own; redirects come back as they are.
//!
//! ```
//! # use castling_sdk::prelude::*;
//! # let mut exchange = castling_sdk::testing::Exchange::get("/").call("https://api.example.com", |_| Response::status(204));
//! # exchange.request();
//! let answer = http::send("https://api.example.com", http::Request::post("/events").body("started"))?;
//! assert_eq!(answer.status(), 204);
//! # Ok::<(), Error>(())
//! ```
//!
//! What is longer than `limits.body`, or comes slowly, is sent and read piece by piece: [`open`] and [`stream`].
//!
//! In `rewrite`, `preaccess`, `access`, `content`, `response_headers`, `after_response`, `timer` and `message`.

use std::fmt;
use std::time::Duration;

use castling_abi::{ErrorKind, Grant, Status, call};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffer::{read_bytes, read_text, status};
use crate::error::{self, Error, Result};
use crate::header::{HeaderList, HeaderValue, Headers, is_name};
use crate::wait::milliseconds;
use crate::{config, host};
use castling_abi::rules::check::is_framing;

mod location;
mod streamed;
mod upstream;

pub use crate::params::{Params, decode, encode};
pub use location::on_this_host;
pub use streamed::{StreamedResponse, Upload, open, open_sized, stream};
pub use upstream::Upstream;

/// Sends a request to an upstream and waits for its response, whatever its status.
///
/// Fails when the upstream is not granted, the request cannot be sent as it is, no peer has answered in time, or
/// the response's body is longer than the plugin's `limits.body`: [`Error::kind`] tells them apart, and what becomes of the client's
/// request where the hook returns the error.
pub fn send(upstream: impl AsRef<str>, request: Request) -> Result<Response> {
    send_one("http::send", upstream.as_ref(), request)
}

fn send_one(name: &'static str, upstream: &str, request: Request) -> Result<Response> {
    let results = send_named(name, vec![(upstream, request)]);
    // A single call has a single result.
    let none = || Error::msg(format_args!("{name}: the host has no result"));
    results.into_iter().next().ok_or_else(none)?
}

/// Fails when the config has no upstream of this name or does not grant it to the plugin. In `configure`, so that `castling
/// check` and a reload refuse a config that names one which is not there.
pub fn must_be_granted(upstream: impl AsRef<str>) -> Result<()> {
    error::must_be_granted(Grant::Upstream, upstream.as_ref())
}

/// Sends several requests at once, at most 16, and waits until all have ended. The results are in the order of the
/// calls; each fails for itself, as [`send`] does. When one of them cannot be sent at all (not granted, not valid),
/// none is, and all fail.
///
/// ```
/// # use castling_sdk::prelude::*;
/// # let mut exchange = castling_sdk::testing::Exchange::get("/")
/// #     .call("users", |_| Response::status(200).body("ada")).call("prices", |_| Response::status(500));
/// # exchange.request();
/// let answers = http::send_all([
///     ("users", http::Request::get("/me")),
///     ("prices", http::Request::get("/today")),
/// ]);
/// for answer in answers.into_iter().flatten().filter(|answer| answer.status() == 200) {
///     assert_eq!(answer.body(), b"ada");
/// }
/// ```
pub fn send_all<U: AsRef<str>>(
    calls: impl IntoIterator<Item = (U, Request)>,
) -> Vec<Result<Response>> {
    send_named("http::send_all", calls.into_iter().collect())
}

/// `name` is the function that the plugin has called, for errors.
fn send_named<U: AsRef<str>>(
    name: &'static str,
    calls: Vec<(U, Request)>,
) -> Vec<Result<Response>> {
    let mut records = Vec::new();
    for (upstream, request) in &calls {
        let call = Call {
            name,
            upstream: upstream.as_ref(),
            request,
        };
        if let Err(error) = call.write(&mut records) {
            let error = error.context(name);
            return calls.iter().map(|_| Err(error.again())).collect();
        }
    }
    let sent = host::calls_send(&records);
    calls
        .iter()
        .zip(0..)
        .map(|((upstream, request), index)| {
            let call = Call {
                name,
                upstream: upstream.as_ref(),
                request,
            };
            match sent {
                0.. => result(index, &call),
                refused => Err(call.refusal(status(refused))),
            }
        })
        .collect()
}

/// In the place of an upstream's name in [`send_all`]: a sub-request, see [`subrequest`].
pub const OWN_ROUTES: &str = "";

/// Sends a request to the gateway's own routes, those of the listener that the client's request came through, and waits
/// for its response.
///
/// It is routed by its path, and by the host of the client's request unless it sets one, and runs through the plugins
/// of its route, with the client's address. It has no other header of the client's request than those set here. What
/// goes wrong on the way is a response with the status that a client would get (404 where no route matches, 502 where
/// no peer answers). It is not in the access log. Sub-requests may be nested 5 deep, and count as calls out of the
/// client's request (`limits.calls`). The config must allow it: `grants = { own_routes = true }`.
///
/// In `timer` and `message` there is no client's request: the routes are those of the gateway's only listener, or of the one that the config
/// names, `grants = { own_routes = "web" }`. The sub-request has the host that it sets or none, the client `0.0.0.0`, a line in the access log
/// (`$subrequest_of` is the plugin), and 60 s at most.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
///
/// #[derive(Default)]
/// struct Page;
///
/// #[plugin]
/// impl Page {
///     fn content(&self, request: &mut Request) -> Result<Verdict> {
///         if request.path() != "/page" {
///             return Ok(Verdict::Continue);
///         }
///         let [head, news] = ["/parts/head", "/parts/news"].map(http::Request::get);
///         let mut page = Vec::new();
///         for part in http::send_all([(http::OWN_ROUTES, head), (http::OWN_ROUTES, news)]) {
///             page.extend(part?.into_body());
///         }
///         Ok(Response::status(200).body(page).into())
///     }
/// }
///
/// let mut exchange = Exchange::get("/page")
///     .own_routes(|request| Response::status(200).body(format!("<{}>", request.target())));
/// let page = Response::status(200).body("</parts/head></parts/news>");
/// assert_eq!(Page.content(exchange.request()).unwrap(), page.into());
/// ```
pub fn subrequest(request: Request) -> Result<Response> {
    send_one("http::subrequest", OWN_ROUTES, request)
}

/// A request that a plugin sends. (The client's is [`crate::Request`].)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    target: String,
    headers: HeaderList,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

impl Request {
    /// A request with this method for this target: path, or path and query, encoded.
    pub fn new(method: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: HeaderList::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// A `GET` for this target.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A `POST` to this target.
    pub fn post(target: impl Into<String>) -> Self {
        Self::new("POST", target)
    }

    /// Adds a header. `Host` is the upstream's own unless one is set here; `Content-Length` is the gateway's
    /// business.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.headers.add(name.as_ref(), value.as_ref());
        self
    }

    /// Adds the values that the client's request has of these headers.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::testing::Exchange;
    /// let mut exchange = Exchange::get("/").header("authorization", "Bearer 7").header("accept", "*/*");
    /// let call = http::Request::get("/me").forward(exchange.request(), ["authorization", "accept-language"]);
    /// assert_eq!(call, http::Request::get("/me").header("authorization", "Bearer 7"));
    /// ```
    #[must_use]
    pub fn forward<N: AsRef<str>>(
        self,
        request: &crate::Request,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        names.into_iter().fold(self, |call, name| {
            let values = request.header_all(&name);
            let add = |call: Self, value: &HeaderValue| call.header(&name, value);
            values.iter().fold(call, add)
        })
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to this as JSON, and says so in `Content-Type`. Fails where it cannot be JSON.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self> {
        let body = serde_json::to_vec(body)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sets the body to this form, and says so in `Content-Type`.
    #[must_use]
    pub fn form(self, form: &Params) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_string())
    }

    /// Longest wait for the whole of it, tries of other peers included; in whole milliseconds, rounded up. Default:
    /// as long as the upstream's own time-outs allow.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The method, for tests.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Path and query, for tests.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The first value of a header, for tests.
    pub fn header_value(&self, name: &str) -> Option<HeaderValue> {
        self.headers.first(name)
    }

    /// The body, for tests.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Time that [`Self::timeout`] has set, for tests.
    pub const fn longest_wait(&self) -> Option<Duration> {
        self.timeout
    }

    /// Adds to the body, for the fake host.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// Reads back, for the fake host, what was written for the host; `None` where it is not text.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn read(record: &call::Record<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let timeout = Duration::from_millis(record.timeout_ms.into());
        Some(Self {
            method: text(record.method)?,
            target: text(record.target)?,
            headers: HeaderList::from_records(record.headers),
            body: record.body.to_vec(),
            timeout: (!timeout.is_zero()).then_some(timeout),
        })
    }
}

/// The response to a plugin's request. (The one that a plugin makes is [`crate::Response`].)
#[derive(Debug)]
pub struct Response {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Response {
    /// The status code, 200 to 599.
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

    /// The body, whole.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON. An error names the place in it: `body.tags[2]: …`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        config::parse_body(&self.body)
    }

    /// The body, whole.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

/// Passes the response on to the client, with all headers but those that frame the message.
impl From<Response> for crate::Response {
    fn from(answer: Response) -> Self {
        let kept = |(name, _): &(&str, &[u8])| !is_framing(name.as_bytes());
        let headers = answer.headers.iter().filter(kept);
        let response = headers.fold(Self::status(answer.status), |response, (name, value)| {
            response.header(name, value)
        });
        response.body(answer.body)
    }
}

/// A call under way. Shown in errors: `http::send("auth", GET /check)`, without the query, which may hold a secret.
struct Call<'a> {
    /// The function that the plugin has called.
    name: &'static str,
    upstream: &'a str,
    request: &'a Request,
}

impl Call<'_> {
    #[cold]
    fn refusal(&self, status: Status) -> Error {
        let Request { method, target, .. } = self.request;
        let expected = if !is_name(method.as_bytes()) || method == "CONNECT" {
            "a method, and another than CONNECT"
        } else if !target.starts_with('/') {
            "a target that begins with /"
        } else if !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            "a target without #, space or other character that is to be encoded"
        } else {
            "requests without headers that frame the message: that is the gateway's business"
        };
        error::bad_argument(format_args!("{self}"), status, expected)
    }

    /// Writes the call as the host takes it: [`castling_abi::call`].
    fn write(&self, records: &mut Vec<u8>) -> Result<()> {
        let request = self.request;
        let texts = [
            self.upstream.as_bytes(),
            request.method.as_bytes(),
            request.target.as_bytes(),
            request.headers.records("http::Request")?,
            &request.body,
        ];
        // No time at all is the shortest there is; 0 would mean none of its own.
        let timeout_ms = request
            .timeout
            .map_or(0, |timeout| milliseconds(timeout).max(1));
        let head = call::record_head(timeout_ms, texts.map(<[u8]>::len))
            .ok_or_else(|| self.refusal(Status::Limit))?;
        records.extend_from_slice(&head);
        for text in texts {
            records.extend_from_slice(text);
        }
        Ok(())
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, target, .. } = self.request;
        let path = target.split('?').next().unwrap_or_default();
        let (method, path) = (method.escape_debug(), path.escape_debug());
        match self.upstream {
            OWN_ROUTES if self.name == "http::subrequest" => {
                write!(f, "{}({method} {path})", self.name)
            }
            OWN_ROUTES => write!(f, "{}(OWN_ROUTES, {method} {path})", self.name),
            upstream => {
                let upstream = upstream.escape_debug();
                write!(f, "{}(\"{upstream}\", {method} {path})", self.name)
            }
        }
    }
}

fn result(index: u32, call: &Call<'_>) -> Result<Response> {
    let Ok(status) = u16::try_from(host::call_status(index)) else {
        let reason = read_text(|out| host::call_error(index, out))
            .unwrap_or_else(|status| status.name().to_owned());
        // A kind that a newer host tells is a failure all the same.
        let id = u32::try_from(host::call_error_kind(index))
            .ok()
            .and_then(ErrorKind::from_raw);
        let id = id.unwrap_or(ErrorKind::Broken);
        return Err(Error::of_kind(id, format_args!("{call}: {reason}")));
    };
    let headers = Headers::read(|out| host::call_headers(index, out));
    // Room for most answers to a plugin's question; a longer body costs a second call.
    const USUAL_BODY_BYTES: usize = 1024;
    let body = read_bytes(USUAL_BODY_BYTES, |out| host::call_body(index, out))
        .map_err(|status| error::refusal(format_args!("{call}"), status))?;
    Ok(Response {
        status,
        headers,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response as Answer;
    use crate::testing::Exchange;

    #[test]
    fn a_response_comes_whole() {
        let mut exchange = Exchange::get("/").call("a", |_| {
            Answer::status(404)
                .header("X-Tag", "1")
                .header("x-tag", "2")
                .body(vec![b'x'; 5_000])
        });
        exchange.request();
        let request = Request::post("/p?q").header("X-Mine", "m").body("b");
        let response = send("a", request.clone()).unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(response.header("x-TAG").unwrap(), "1");
        assert_eq!(response.headers().all("x-tag").count(), 2);
        assert_eq!(response.body(), vec![b'x'; 5_000]);
        let passed_on = Answer::status(404)
            .header("X-Tag", "1")
            .header("x-tag", "2");
        assert!(Answer::from(response) == passed_on.body(vec![b'x'; 5_000]));
        assert_eq!(exchange.calls(), [(String::from("a"), request)]);
    }

    #[test]
    fn each_call_fails_for_itself() {
        let mut exchange = Exchange::get("/")
            .call("up", |request| Answer::status(200).body(request.target()))
            .failing_call("down", "no peer could be connected to");
        exchange.request();
        let results = send_all([
            ("down", Request::get("/a?token=secret")),
            ("up", Request::get("/b")),
        ]);
        let [Err(error), Ok(response)] = results.as_slice() else {
            panic!("{results:?}")
        };
        assert_eq!(
            error.to_string(),
            "http::send_all(\"down\", GET /a): no peer could be connected to"
        );
        assert_eq!(response.body(), b"/b");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before_any_is() {
        let mut exchange = Exchange::get("/").call("up", |_| Answer::status(200));
        exchange.request();
        for (upstream, request, text) in [
            (
                "other",
                Request::get("/"),
                "http::send(\"other\", GET /): not granted",
            ),
            (
                "up",
                Request::get("no-slash"),
                "http::send(\"up\", GET no-slash): bad argument: expected a target that begins with /",
            ),
            (
                "up",
                Request::get("/").header("a", "b\r\nc"),
                r#"http::send: http::Request::header("a", "b\r\nc"): bad argument: expected a value without control characters"#,
            ),
        ] {
            let error = send(upstream, request).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        let error = send_all([("up", Request::get("/").header("a", "\n"))])
            .remove(0)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"http::send_all: http::Request::header("a", "\n"): bad argument: expected a value without control characters"#
        );
        let error = subrequest(Request::get("/part")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "http::subrequest(GET /part): not granted"
        );
        let error = send_all([(OWN_ROUTES, Request::get("/part"))]).remove(0);
        assert_eq!(
            error.unwrap_err().to_string(),
            "http::send_all(OWN_ROUTES, GET /part): not granted"
        );
        let many = send_all((0..17).map(|_| ("up", Request::get("/"))));
        assert_eq!(many.len(), 17);
        assert!(
            many.iter()
                .all(|result| result.as_ref().is_err_and(Error::is_limit))
        );
        assert!(exchange.calls().is_empty());
    }

    #[test]
    fn a_timeout_is_never_none() {
        let mut exchange = Exchange::get("/").call("up", |_| Answer::status(200));
        exchange.request();
        for (given, sent) in [
            (None, None),
            (Some(Duration::ZERO), Some(Duration::from_millis(1))),
            (
                Some(Duration::from_micros(1_001)),
                Some(Duration::from_millis(2)),
            ),
        ] {
            let mut request = Request::get("/");
            request.timeout = given;
            send("up", request).unwrap();
            let (_, seen) = exchange.calls().pop().unwrap();
            assert_eq!(seen.longest_wait(), sent);
        }
    }
}
