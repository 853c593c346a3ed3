//! Answers to challenges of an ACME authority over HTTP (RFC 8555 §8.3), on listeners without TLS.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::exchange::Answer;
use crate::message::{Headers, KnownHeader, RequestHead};

/// Challenges that a listener answers now. Between orders there are none, and a request costs one look at a flag.
#[derive(Default)]
pub struct HttpChallenges {
    are_live: Cell<bool>,
    /// Answers by token.
    answers: RefCell<BTreeMap<String, String>>,
}

impl HttpChallenges {
    /// Puts these tokens with their answers in the place of those that there were.
    pub fn replace(&self, answers: BTreeMap<String, String>) {
        self.are_live.set(!answers.is_empty());
        self.answers.replace(answers);
    }

    /// Answer to a request that is an authority's. Whatever its host is: the token is known to the authority alone.
    #[inline]
    pub fn answer(&self, request: &RequestHead) -> Option<Answer> {
        match self.are_live.get() {
            true => self.look_up(request),
            false => None,
        }
    }

    #[cold]
    fn look_up(&self, request: &RequestHead) -> Option<Answer> {
        let token = request.target.path().strip_prefix(PATH)?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let answers = self.answers.borrow();
        let answer = answers.get(token)?;
        let mut headers = Headers::new();
        headers.add(KnownHeader::ContentType, b"application/octet-stream");
        headers.add(KnownHeader::Server, b"castling");
        Some(Answer {
            status: StatusCode::OK,
            headers,
            body: Bytes::copy_from_slice(answer.as_bytes()),
        })
    }
}

const PATH: &str = "/.well-known/acme-challenge/";
