//! The one place that turns errors into status codes and replies.

use bytes::Bytes;
use http::StatusCode;

use super::{ClientError, Error, PluginFault, UpstreamError, client_closed_request};
use crate::exchange::Answer;
use crate::message::{FieldName, Headers, KnownHeader, grpc};

/// Status that the client is answered, or that the log says where no answer is possible.
pub fn status(error: &Error) -> StatusCode {
    match error {
        Error::Client(error) => client_status(error),
        Error::Upstream {
            cause: UpstreamError::NoRoom { .. } | UpstreamError::NoPeer,
            ..
        } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Upstream { cause, .. } if cause.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
        // The peer before has failed, which is what the client could have been told of.
        Error::Upstream { .. } | Error::BodyLost { .. } => StatusCode::BAD_GATEWAY,
        Error::Plugin {
            what: PluginFault::Failed,
            ..
        } => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Plugin {
            what: PluginFault::Told(kind),
            ..
        } => {
            StatusCode::from_u16(kind.client_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Error::Plugin {
            what: PluginFault::HalfDone,
            ..
        } => StatusCode::BAD_GATEWAY,
        Error::Plugin {
            what: PluginFault::Exhausted,
            ..
        } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Shortage { .. } | Error::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::NoRoute => StatusCode::NOT_FOUND,
        Error::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        // The request is well formed, and another client may have it: 403 and not nginx's 400.
        Error::NoClientCertificate | Error::NoTarget => StatusCode::FORBIDDEN,
        Error::Trace | Error::NoTunnel => StatusCode::METHOD_NOT_ALLOWED,
        Error::Loop => StatusCode::LOOP_DETECTED,
        Error::BadPath(_) => StatusCode::BAD_REQUEST,
        Error::TooManyReroutes(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn client_status(error: &ClientError) -> StatusCode {
    match error {
        ClientError::Gone | ClientError::Io(_) | ClientError::SendTimeout(_) => {
            client_closed_request()
        }
        ClientError::Head(error) => error.status(),
        ClientError::Body(_) => StatusCode::BAD_REQUEST,
        ClientError::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ClientError::BodyTimeout(_) | ClientError::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
    }
}

/// Answer to a call of gRPC: 200 with the error in its fields, and no body (Trailers-Only in gRPC's specification). `is_late`: the
/// client's own deadline has passed.
pub fn grpc(status: StatusCode, is_late: bool) -> Answer {
    let mut headers = Headers::with_capacity(4);
    headers.add(KnownHeader::ContentType, b"application/grpc");
    headers.add(KnownHeader::Server, b"castling");
    let code = match is_late {
        true => grpc::DEADLINE_EXCEEDED,
        false => grpc::status(status),
    };
    let mut digits = itoa::Buffer::new();
    let reason = status.canonical_reason().unwrap_or("Error");
    for (name, value) in [
        (&b"grpc-status"[..], digits.format(code).as_bytes()),
        (b"grpc-message", reason.as_bytes()),
    ] {
        if let Some(name) = FieldName::new(name) {
            headers.add(name, value);
        }
    }
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::new(),
    }
}

/// Seconds after which a client may come again, where the gateway has a guess.
pub fn retry_after(error: &Error) -> Option<&'static [u8]> {
    // What is under way ends, and the limit may be another by then.
    matches!(error, Error::Overloaded { .. }).then_some(b"1")
}

/// A short text that says no more than the status: what went wrong inside is for the log.
pub fn plain(status: StatusCode) -> Answer {
    let mut headers = Headers::with_capacity(4);
    headers.add(KnownHeader::ContentType, b"text/plain; charset=utf-8");
    headers.add(KnownHeader::Server, b"castling");
    let reason = status.canonical_reason().unwrap_or("Error");
    Answer {
        status,
        headers,
        body: Bytes::from(format!("{} {reason}\n", status.as_u16())),
    }
}
