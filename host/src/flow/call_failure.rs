//! Failures of calls out, as plugins are told of them.

use std::io;

use castling_abi::ErrorKind;

use crate::error::{Error, PluginFault, UpstreamError};
use crate::wasm::CallFailure;

/// Failure of a call that has ended with this error.
pub fn failure(error: Error) -> CallFailure {
    CallFailure::new(kind(&error), error.to_string())
}

fn kind(error: &Error) -> ErrorKind {
    match error {
        Error::Upstream { cause, .. } => of_upstream(cause),
        Error::Shortage { .. } | Error::Overloaded { .. } => ErrorKind::Unavailable,
        Error::BodyLost { .. } => ErrorKind::Broken,
        // A policy that is a plugin.
        Error::Plugin { what, .. } => match what {
            PluginFault::Exhausted => ErrorKind::Unavailable,
            PluginFault::Told(kind) => *kind,
            PluginFault::Failed | PluginFault::HalfDone => ErrorKind::HostFailed,
        },
        Error::Client(_)
        | Error::NoRoute
        | Error::Misdirected
        | Error::NoClientCertificate
        | Error::Trace
        | Error::NoTunnel
        | Error::NoTarget
        | Error::BadPath(_)
        | Error::Loop
        | Error::TooManyReroutes(_) => ErrorKind::HostFailed,
    }
}

fn of_upstream(cause: &UpstreamError) -> ErrorKind {
    match cause {
        UpstreamError::NoPeer | UpstreamError::NoRoom { .. } => ErrorKind::Unavailable,
        UpstreamError::Connect { cause, .. }
            if cause.kind() == io::ErrorKind::ConnectionRefused =>
        {
            ErrorKind::Refused
        }
        UpstreamError::NotProcessed { .. } => ErrorKind::Refused,
        UpstreamError::Connect { .. }
        | UpstreamError::Handshake { .. }
        | UpstreamError::Preface { .. } => ErrorKind::Connect,
        cause if cause.is_timeout() => ErrorKind::Timeout,
        UpstreamError::ConnectTimeout { .. }
        | UpstreamError::HandshakeTimeout { .. }
        | UpstreamError::Closed { .. }
        | UpstreamError::Io { .. }
        | UpstreamError::ResponseTimeout { .. }
        | UpstreamError::DeadlinePassed { .. }
        | UpstreamError::TryTimeout { .. }
        | UpstreamError::TriesTimeout { .. }
        | UpstreamError::SendTimeout { .. }
        | UpstreamError::BadHead { .. }
        | UpstreamError::TooManyInterims { .. }
        | UpstreamError::UnexpectedUpgrade { .. }
        | UpstreamError::BadBody { .. }
        | UpstreamError::BodyTooLarge { .. }
        | UpstreamError::BodyTimeout { .. } => ErrorKind::Broken,
    }
}
