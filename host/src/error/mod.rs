//! Errors of a request: whose fault, may we try again, what caused it.

pub mod reply;

use std::io;
use std::time::Duration;

use castling_abi::ErrorKind;
use http::StatusCode;
use rustix::io::Errno;

use crate::http1::{BodyError, HeadError};
use crate::message::path::PathError;

/// Why an exchange did not come to the response that it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("client: {0}")]
    Client(#[from] ClientError),
    #[error("upstream {upstream}: {cause}")]
    Upstream {
        upstream: String,
        cause: UpstreamError,
    },
    #[error("plugin {plugin}: {what}")]
    Plugin { plugin: String, what: PluginFault },
    /// No descriptors, no memory or no ports for a connection to a peer: nobody's fault but ours.
    #[error("upstream {upstream}: no connection can be made: {cause}")]
    Shortage { upstream: String, cause: io::Error },
    /// A peer has failed, and the body for the next one is on disk and cannot be read.
    #[error("upstream {upstream}: the body that is kept to be sent again cannot be read: {cause}")]
    BodyLost { upstream: String, cause: io::Error },
    /// The upstream has as much under way as it may, or as it can take.
    #[error("upstream {upstream}: its limit of {limit} is reached")]
    Overloaded {
        upstream: String,
        limit: &'static str,
    },
    #[error("no route matches")]
    NoRoute,
    /// The client was verified for another server than the request is for.
    #[error("the connection was made for another host, whose clients are verified otherwise")]
    Misdirected,
    #[error("the route requires a certificate of the client")]
    NoClientCertificate,
    #[error("TRACE is not served")]
    Trace,
    #[error("the route goes on with no other protocol")]
    NoTunnel,
    #[error("the host is none of the upstream's peers")]
    NoTarget,
    #[error("the path is refused: {0}")]
    BadPath(PathError),
    #[error("the request has come back to the listener that it went through before")]
    Loop,
    #[error("rewritten and routed again {0} times")]
    TooManyReroutes(u32),
}

/// The client's fault, or its right: it may leave.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("it closed the connection")]
    Gone,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("body: {0}")]
    Body(#[from] BodyError),
    #[error("body larger than max_body of {0} bytes")]
    BodyTooLarge(u64),
    #[error("sent nothing of its body for {0:?}")]
    BodyTimeout(Duration),
    #[error("sent its body slower than body_rate of {0} bytes a second")]
    BodyTooSlow(u32),
    #[error("took nothing of the response for {0:?}")]
    SendTimeout(Duration),
}

/// Failure of a plugin at its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginFault {
    /// The hook failed or trapped. The log has the reason, once.
    #[error("its hook failed")]
    Failed,
    /// The hook failed with an error of this kind, which is another than the plugin's own.
    #[error("its hook failed: {}", .0.name())]
    Told(ErrorKind),
    /// The hook failed when it had changed a part of the response, which `on_error = "skip"` cannot pass over: the rest
    /// would not fit it.
    #[error("its hook failed when it had changed a part of the response")]
    HalfDone,
    /// The plugin has no instance free, or is out of service.
    #[error("it is not available now")]
    Exhausted,
}

/// Failure of one try of a peer, or of all tries.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// All peers are down, by the checks or the operator's order.
    #[error("no peer is available")]
    NoPeer,
    /// Each peer has as many requests as it may (`max_active`), for all the time that the request may wait.
    #[error("no peer has room for the request{}", waited(*after))]
    NoRoom { after: Option<Duration> },
    #[error("connect to {peer}: {cause}")]
    Connect { peer: String, cause: io::Error },
    #[error("connect to {peer}: no answer in {after:?}")]
    ConnectTimeout { peer: String, after: Duration },
    #[error("TLS with {peer}: {cause}")]
    Handshake { peer: String, cause: io::Error },
    #[error("TLS with {peer}: the handshake is not over {after:?} after the connection was begun")]
    HandshakeTimeout { peer: String, after: Duration },
    /// By HTTP/2: the stream was refused, or the peer was about to end the connection.
    #[error("{peer} has not taken the request: {cause}")]
    NotProcessed { peer: String, cause: io::Error },
    #[error("HTTP/2 with {peer}: {cause}")]
    Preface { peer: String, cause: io::Error },
    #[error("{peer} closed the connection before its response")]
    Closed { peer: String },
    #[error("{peer}: {cause}")]
    Io { peer: String, cause: io::Error },
    #[error("{peer} sent no response in {after:?}")]
    ResponseTimeout { peer: String, after: Duration },
    #[error("{peer} sent no response in the {after:?} that the client gives its call")]
    DeadlinePassed { peer: String, after: Duration },
    /// The deadline of a try, of which its connection may be a part.
    #[error("{peer} sent no response in the {after:?} of a try")]
    TryTimeout { peer: String, after: Duration },
    #[error("no response came in the {after:?} of all tries, of which {peer} has had the last")]
    TriesTimeout { peer: String, after: Duration },
    #[error("{peer} took nothing of the request for {after:?}")]
    SendTimeout { peer: String, after: Duration },
    #[error("{peer} sent a bad response: {cause}")]
    BadHead { peer: String, cause: HeadError },
    #[error("{peer} sent more than {most} interim responses")]
    TooManyInterims { peer: String, most: usize },
    #[error("{peer} switched protocols without having been asked to")]
    UnexpectedUpgrade { peer: String },
    #[error("{peer} sent a bad body: {cause}")]
    BadBody { peer: String, cause: BodyError },
    #[error("{peer} sent a body longer than max_response of {most} bytes")]
    BodyTooLarge { peer: String, most: u64 },
    #[error("{peer} sent nothing of its body for {after:?}")]
    BodyTimeout { peer: String, after: Duration },
}

fn waited(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!(" after {after:?}"),
        None => " and the queue is full".to_owned(),
    }
}

impl UpstreamError {
    /// A time-out, for 504 instead of 502.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout { .. }
                | Self::HandshakeTimeout { .. }
                | Self::ResponseTimeout { .. }
                | Self::TryTimeout { .. }
                | Self::TriesTimeout { .. }
                | Self::DeadlinePassed { .. }
                | Self::SendTimeout { .. }
                | Self::BodyTimeout { .. }
        )
    }

    /// Whether the peer has worked on nothing of the request for sure: another one may be tried whatever the method.
    pub fn not_processed(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Handshake { .. }
                | Self::HandshakeTimeout { .. }
                | Self::NotProcessed { .. }
                | Self::Preface { .. }
        )
    }
}

impl Error {
    /// Party to blame, for the access log: `client`, `upstream`, `plugin` or `gateway`.
    pub fn culprit(&self) -> &'static str {
        match self {
            Self::Client(_)
            | Self::Misdirected
            | Self::NoClientCertificate
            | Self::BadPath(_)
            | Self::NoTunnel
            | Self::NoTarget
            | Self::Trace => "client",
            Self::Upstream { .. } => "upstream",
            Self::Plugin { .. } => "plugin",
            Self::NoRoute
            | Self::Loop
            | Self::TooManyReroutes(_)
            | Self::Shortage { .. }
            | Self::BodyLost { .. }
            | Self::Overloaded { .. } => "gateway",
        }
    }

    /// Whether the client's own deadline has ended the exchange.
    pub fn is_past_deadline(&self) -> bool {
        matches!(
            self,
            Self::Upstream {
                cause: UpstreamError::DeadlinePassed { .. },
                ..
            }
        )
    }

    /// The client hung up (nginx's 499): nobody is left to answer.
    pub fn client_is_gone(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::Gone | ClientError::Io(_) | ClientError::SendTimeout(_))
        )
    }
}

/// The process or the system has run out of descriptors or memory: it is nothing about the connection.
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// nginx's code for a client that left before its response; only ever seen in logs.
pub fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is a status code")
}
