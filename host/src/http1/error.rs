//! Errors of HTTP/1 messages.

use http::StatusCode;

use super::limits::{MAX_EMPTY_LINES, MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES, MAX_TRAILERS};

/// Why a head was refused. The connection must be closed: where the next message begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Against the grammar of RFC 9112: among others a bare CR, a control byte, a space before the colon, a folded
    /// line, an empty name.
    #[error("malformed head: {0}")]
    Malformed(httparse::Error),
    /// RFC 9112 §2.2 lets a recipient take a bare LF for a line end. We do not from clients: a proxy before us may have
    /// passed it on as part of a value.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("more than {MAX_EMPTY_LINES} empty lines before the head")]
    EmptyLines,
    #[error("unsupported protocol version")]
    Version,
    #[error("the target of CONNECT must be a host and a port, and no body follows it")]
    Connect,
    #[error("invalid request target")]
    Target,
    #[error("head larger than the limit")]
    TooLarge,
    #[error("start line longer than the limit for the whole head")]
    StartLineTooLong,
    #[error("more header fields than the limit")]
    TooManyFields,
    #[error("HTTP/1.1 without Host")]
    HostMissing,
    #[error("more than one Host")]
    HostRepeated,
    #[error("a field that is no list comes twice")]
    FieldRepeated,
    #[error("invalid host")]
    HostInvalid,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("invalid Content-Length")]
    LengthInvalid,
    #[error("Content-Lengths that differ")]
    LengthsDiffer,
    /// RFC 9112 §6.1 would answer 501 to a coding that is only unknown; one answer for all leaves nothing to probe.
    #[error("Transfer-Encoding is not exactly \"chunked\"")]
    Encoding,
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInHttp10,
    #[error("invalid status code")]
    Status,
}

impl HeadError {
    /// Status that a client is answered. A response that was refused is a 502 whatever this says.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::BareLineFeed
            | Self::EmptyLines
            | Self::Target
            | Self::Connect
            | Self::HostMissing
            | Self::HostRepeated
            | Self::FieldRepeated
            | Self::HostInvalid
            | Self::LengthAndEncoding
            | Self::LengthInvalid
            | Self::LengthsDiffer
            | Self::Encoding
            | Self::EncodingInHttp10
            | Self::Status => StatusCode::BAD_REQUEST,
            Self::StartLineTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            error => Self::Malformed(error),
        }
    }
}

/// Why a body was refused. The connection must be closed: where the next message begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the connection ended within the body")]
    Truncated,
    #[error("invalid chunk size")]
    ChunkSize,
    #[error("invalid chunk extension")]
    ChunkExtension,
    #[error("more than {MAX_EXTENSION_BYTES} bytes of chunk extensions")]
    ExtensionsTooLong,
    #[error("a chunk or its size does not end in CR LF")]
    ChunkEnd,
    #[error("invalid trailers")]
    Trailers,
    #[error("trailers of more than {MAX_TRAILERS} fields or {MAX_TRAILER_BYTES} bytes")]
    TrailersTooLarge,
}
