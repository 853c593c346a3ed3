//! Control socket: the master's verbs for `castling reload`, `upgrade`, `status`, `upstream`, `stop` and `reopen`, and how they are asked.
//!
//! A connection has one request and one reply, in the frames of `channel.rs`. The socket's mode lets only the master's user
//! (and root) in. The master's side is `master/commands.rs`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::channel::{FrameReader, write_frame};
use super::report::{MasterStatus, Reloaded, Upgraded};
use super::upstreams::{PeerOrder, UpstreamReport};

/// Command to a running gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Loads the config again; the reply comes when the new generation serves or was refused.
    Reload,
    Status,
    /// End of the gateway; `fast` does not wait for requests under way. The connection closes when the master has ended.
    Stop {
        fast: bool,
    },
    ReopenLogs,
    /// The workers finish and end; connections wait until a reload.
    Drain,
    Metrics,
    /// Peers of an upstream, after this order.
    Upstream {
        name: String,
        order: Option<PeerOrder>,
    },
    /// Hands over to a new master; the reply comes when that serves or nothing came of it.
    Upgrade {
        /// Absolute path. Default: the file that the master was started from.
        binary: Option<PathBuf>,
        /// Time within which the new master must serve. Default 2 minutes.
        timeout: Option<Duration>,
    },
}

/// Answer of a running gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The reload waits, and why, in a line for a person. Another reply follows.
    Waits(String),
    Reloaded(Reloaded),
    Status(Box<MasterStatus>),
    Stopping,
    LogsReopened,
    Draining,
    /// All metrics, in Prometheus' text format.
    Metrics(String),
    /// Peers of an upstream, after what was ordered.
    Upstream(UpstreamReport),
    Upgraded(Upgraded),
    /// Reasons why nothing came of it, in lines for a person.
    Refused(Vec<String>),
}

/// Largest request, bytes.
pub const REQUEST_LIMIT_BYTES: usize = 64 * 1024;
/// Largest reply, bytes: the metrics of 262144 series.
pub const REPLY_LIMIT_BYTES: usize = 128 * 1024 * 1024;

/// Sends a request to the gateway behind a control socket. For [`Request::Stop`] it returns when the gateway has ended.
/// `meanwhile` gets the lines that come before the reply. The error is one line for a person.
pub async fn ask(
    control: &Path,
    request: Request,
    meanwhile: impl Fn(String),
) -> Result<Reply, String> {
    let stream = UnixStream::connect(control)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!(
                    "no gateway is running: nothing listens on {}",
                    shown(control)
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    "{}: {error}; expected the user who runs the gateway",
                    shown(control)
                )
            }
            _ => format!("{}: {error}", shown(control)),
        })?;
    let broke = |error: io::Error| format!("the gateway does not answer: {error}");
    let (source, mut sink) = stream.into_split();
    write_frame(&mut sink, &request, REQUEST_LIMIT_BYTES)
        .await
        .map_err(broke)?;
    let mut replies = FrameReader::<_, Reply>::new(source, REPLY_LIMIT_BYTES);
    let reply = loop {
        match replies.next().await.map_err(broke)? {
            Some(Reply::Waits(why)) => meanwhile(why),
            Some(reply) => break reply,
            None => return Err("the gateway ended before it answered".to_owned()),
        }
    };
    if matches!(reply, Reply::Stopping) {
        // The connection's end is the gateway's, in order or not.
        let _ = replies.next().await;
    }
    Ok(reply)
}

/// The path as a person in this folder would write it.
fn shown(path: &Path) -> std::path::Display<'_> {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display()
}
