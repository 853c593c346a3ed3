//! What the hooks decide: [`Verdict`], the [`Response`] that one may hold, and the [`Reply`] that passes by.

use castling_abi::{HeaderMap, header_list};

use crate::error::{self, Error, Result};
use crate::header::{self, HeaderValue, Headers};
use crate::host;

/// What becomes of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next step. From `content`: this plugin does not answer it.
    Continue,
    /// This response is sent; no upstream is asked (or, from `response_headers`, the upstream's response is thrown
    /// away). The plugins' response hooks and the access log see it as they see any other.
    Answer(Response),
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
    /// [`header_list`].
    headers: Vec<u8>,
    body: Vec<u8>,
    /// What is wrong with one of the headers; said when the response is to be sent.
    refused: Option<String>,
}

impl Response {
    /// A response with this status, without headers and body.
    pub const fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            refused: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref());
        let valid = header::is_name(name) && header::is_value(value);
        match header_list::record_head(name, value).filter(|_| valid) {
            Some(head) => {
                self.headers.extend_from_slice(&head);
                self.headers.extend_from_slice(name);
                self.headers.extend_from_slice(value);
            }
            None => {
                let text = format!("\"{}\", \"{}\"", name.escape_ascii(), value.escape_ascii());
                self.refused.get_or_insert(text);
            }
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status, for tests.
    pub const fn status_code(&self) -> u16 {
        self.status
    }

    /// The first value of a header, for tests.
    pub fn header_value(&self, name: &str) -> Option<HeaderValue> {
        header_list::records(&self.headers)
            .map_while(std::result::Result::ok)
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, value)| HeaderValue::new(value).ok())
    }

    /// The body, for tests.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Hands it to the host, which sends it when the hook has returned.
    pub(crate) fn hand_over(&self) -> Result<()> {
        if let Some(header) = &self.refused {
            return Err(Error::msg(format_args!(
                "Response::header({header}): bad argument"
            )));
        }
        match host::answer(self.status, &self.headers, &self.body) {
            0.. => Ok(()),
            refused => Err(error::refusal(
                format_args!(
                    "answer with status {} and {} bytes",
                    self.status,
                    self.body.len()
                ),
                crate::buffer::status(refused),
            )),
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
        error::note_refusal(
            host::status_set(status),
            format_args!("set_status({status})"),
        );
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

    /// Removes all values of that name and says how many there were.
    pub fn remove_header(&mut self, name: impl AsRef<str>) -> usize {
        header::remove(HeaderMap::Response, name.as_ref())
    }
}
