//! The answer of a route with `metrics = true`.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::error::reply;
use crate::exchange::Answer;
use crate::message::{Headers, KnownHeader};
use crate::metrics::{CONTENT_TYPE, Recorder};

/// All metrics, read now from the memory of all workers, whichever worker was asked.
pub fn answer(recorder: &Recorder, method: &Method) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refusal = reply::plain(StatusCode::METHOD_NOT_ALLOWED);
        // RFC 9110 §15.5.6.
        refusal.headers.add(KnownHeader::Allow, b"GET, HEAD");
        return refusal;
    }
    let mut headers = Headers::new();
    headers.add(KnownHeader::ContentType, CONTENT_TYPE.as_bytes());
    headers.add(KnownHeader::Server, b"castling");
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::from(recorder.text()),
    }
}
