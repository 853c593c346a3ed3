//! Kinds of failures of calls out.

/// Kind of a call out that has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedCall {
    /// None came in time.
    Timeout,
    /// No connection could be made.
    Connect,
    /// The peer has refused the connection or the request.
    Refused,
    /// What came was no response, or not all of one.
    Broken,
    /// All peers are down or busy.
    Unavailable,
    /// Its body is longer than `limits.body`.
    Limit,
}

impl From<FailedCall> for castling_abi::ErrorKind {
    fn from(kind: FailedCall) -> Self {
        match kind {
            FailedCall::Timeout => Self::Timeout,
            FailedCall::Connect => Self::Connect,
            FailedCall::Refused => Self::Refused,
            FailedCall::Broken => Self::Broken,
            FailedCall::Unavailable => Self::Unavailable,
            FailedCall::Limit => Self::Limit,
        }
    }
}
