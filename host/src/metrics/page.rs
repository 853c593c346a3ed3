//! The answer of a route with `metrics = true`.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use super::Recorder;
use super::text::CONTENT_TYPE;
use crate::error::reply;
use crate::exchange::Answer;
use crate::http1::Headers;

/// All metrics, read now from the memory of all workers, whichever worker was asked.
pub fn answer(recorder: &Recorder, method: &Method) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refusal = reply::plain(StatusCode::METHOD_NOT_ALLOWED);
        // RFC 9110 §15.5.6.
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers.add(header::ALLOW, allowed);
        return refusal;
    }
    let mut headers = Headers::new();
    let content_type = HeaderValue::from_static(CONTENT_TYPE);
    headers.add(header::CONTENT_TYPE, content_type);
    headers.add(header::SERVER, HeaderValue::from_static("castling"));
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::from(recorder.text()),
    }
}
