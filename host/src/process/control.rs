//! The control socket: the master's verbs for `castling reload`, `upgrade`, `status`, `stop` and `reopen`.
//!
//! One request and one reply a connection, in the frames of `channel.rs`. The socket's mode lets only the master's user
//! (and root) in.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::channel::{FrameReader, write_frame};
use super::master::{Master, News, ReloadWaiter, UpgradeOrder};
use super::peers;
use super::report::{MasterStatus, Reloaded, Upgraded};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Loads the config again; the reply comes when the new generation serves or was refused.
    Reload,
    Status,
    /// `fast` does not wait for requests under way. The connection closes when the master has ended.
    Stop {
        fast: bool,
    },
    ReopenLogs,
    /// The workers finish and end; connections wait until a reload.
    Drain,
    Metrics,
    /// Hands over to a new master; the reply comes when that serves or nothing came of it.
    Upgrade {
        /// Absolute. Default: what the master was started from.
        binary: Option<PathBuf>,
        timeout: Option<Duration>,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The reload waits, and why, in a line for a person. Another reply follows.
    Waits(String),
    Reloaded(Reloaded),
    Status(MasterStatus),
    Stopping,
    LogsReopened,
    Draining,
    /// In Prometheus' text format.
    Metrics(String),
    Upgraded(Upgraded),
    /// Why not, in lines for a person.
    Refused(Vec<String>),
}

const REQUEST_LIMIT_BYTES: usize = 64 * 1024;
/// The metrics of 262144 series.
const REPLY_LIMIT_BYTES: usize = 128 * 1024 * 1024;

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;

/// A peer that has not sent its request, or not taken its reply, by then is dropped.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers requests until the master ends.
pub async fn serve(listener: UnixListener, master: Rc<Master>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map_err(|error| error.to_string());
                if let Err(error) = peer.and_then(|peer| peers::check(&peer, master.before())) {
                    tracing::warn!(%error, "a control connection is refused");
                    continue;
                }
                let master = Rc::clone(&master);
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &master).await {
                        tracing::debug!(%error, "control connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket does not accept");
                tokio::time::sleep(PEER_TIMEOUT).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, master: &Rc<Master>) -> io::Result<()> {
    let (source, mut sink) = stream.into_split();
    let mut requests = FrameReader::<_, Request>::new(source, REQUEST_LIMIT_BYTES);
    let Some(request) = in_time(requests.next()).await? else {
        return Ok(());
    };
    let errand = master.errand();
    let reply = tokio::select! {
        // First: what was asked for is begun, however soon the peer leaves.
        biased;
        reply = answer(request, master, &mut sink) => reply?,
        // The peer has left, such as one that tired of a reload that waits; another message is out of turn.
        _ = requests.next() => return Ok(()),
    };
    in_time(write_frame(&mut sink, &reply, REPLY_LIMIT_BYTES)).await?;
    drop(errand);
    if matches!(reply, Reply::Stopping) {
        // The peer waits for the end of this connection, which is the end of this process.
        requests.next().await?;
    }
    Ok(())
}

async fn answer(
    request: Request,
    master: &Rc<Master>,
    sink: &mut OwnedWriteHalf,
) -> io::Result<Reply> {
    // Whoever comes this late has found the old socket still.
    if let Some(control) = master.successors_control() {
        let asked = Box::pin(ask(&control, request, |line| tracing::info!("{line}"))).await;
        return Ok(asked.unwrap_or_else(|error| Reply::Refused(vec![error])));
    }
    Ok(match request {
        Request::Reload => reload(master, sink).await?,
        Request::Upgrade { binary, timeout } => {
            let (waiter, result) = oneshot::channel();
            master.upgrade(UpgradeOrder { binary, timeout }, Some(waiter));
            match result.await {
                Ok(Ok(upgraded)) => Reply::Upgraded(upgraded),
                Ok(Err(errors)) => Reply::Refused(errors),
                Err(_) => Reply::Refused(vec!["the gateway is stopping".to_owned()]),
            }
        }
        Request::Status => Reply::Status(master.status().await),
        Request::Stop { fast } => {
            master.stop(fast);
            Reply::Stopping
        }
        Request::ReopenLogs => {
            master.reopen_logs();
            Reply::LogsReopened
        }
        Request::Drain => {
            master.park();
            Reply::Draining
        }
        Request::Metrics => match master.metrics() {
            Some(text) => Reply::Metrics(text),
            None => Reply::Refused(vec!["no generation has served yet".to_owned()]),
        },
    })
}

async fn reload(master: &Rc<Master>, sink: &mut OwnedWriteHalf) -> io::Result<Reply> {
    let (waiter, mut news) = mpsc::unbounded_channel();
    master.reload(Some(ReloadWaiter(waiter)));
    loop {
        match news.recv().await {
            Some(News::Waits(why)) => {
                let reply = Reply::Waits(why);
                in_time(write_frame(sink, &reply, REPLY_LIMIT_BYTES)).await?;
            }
            Some(News::Ended(Ok(reloaded))) => return Ok(Reply::Reloaded(reloaded)),
            Some(News::Ended(Err(errors))) => return Ok(Reply::Refused(errors)),
            None => return Ok(Reply::Refused(vec!["the gateway is stopping".to_owned()])),
        }
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PEER_TIMEOUT, step)
        .await
        .unwrap_or_else(|late| Err(late.into()))
}

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
        // However the connection ends, the gateway has.
        let _ = replies.next().await;
    }
    Ok(reply)
}

/// As a person in this folder would write it.
fn shown(path: &Path) -> std::path::Display<'_> {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display()
}
