//! The old master's side: starts the new one and hands over.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use command_fds::CommandFdExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use crate::process::channel::{FrameReader, write_frame};
use crate::process::notify;

use super::descriptors;
use super::message::{FRAME_LIMIT_BYTES, FromNew, FromOld, Offer, Serving};

/// A new master that serves, as the old one sees it.
pub struct Successor {
    pub serving: Serving,
    newcomer: Newcomer,
    inbox: FrameReader<OwnedReadHalf, FromNew>,
    outbox: OwnedWriteHalf,
}

/// Failed hand-over: the old master is still the one.
pub struct Failed {
    /// Lines for a person.
    pub reasons: Vec<String>,
    /// Whether the new master may have taken the control socket's and the pid file's place.
    pub committed: bool,
}

/// Starts a binary as the new master, and returns when that serves. Fails when it does not within `limit`; it has ended
/// then. When this is cancelled, it is ended.
pub async fn hand_over(
    binary: &Path,
    config: &Path,
    offer: &Offer,
    lent: &[BorrowedFd<'_>],
    limit: Duration,
) -> Result<Successor, Failed> {
    let mut committed = false;
    let (mut newcomer, stream) = Newcomer::start(binary, config).map_err(|error| Failed {
        reasons: vec![format!("{} cannot be started: {error}", binary.display())],
        committed,
    })?;
    let talked = async {
        let talk = Talk::begin(&mut newcomer, stream, offer, lent);
        let mut stage = "it was ready";
        let over = async {
            let mut talk = talk.await?;
            match talk.next(stage).await? {
                FromNew::Ready => {}
                other => return Err(out_of_turn(&other)),
            }
            stage = "it served";
            committed = true;
            talk.say(&FromOld::Commit).await?;
            match talk.next(stage).await? {
                FromNew::Serving(serving) => Ok((serving, talk.inbox, talk.outbox)),
                other => Err(out_of_turn(&other)),
            }
        };
        match tokio::time::timeout(limit, over).await {
            Ok(ended) => ended,
            Err(_) => Err(vec![format!(
                "{} was given {} s and has not said that it serves: ended",
                binary.display(),
                limit.as_secs_f64()
            )]),
        }
    }
    .await;
    match talked {
        Ok((serving, inbox, outbox)) => Ok(Successor {
            serving,
            newcomer,
            inbox,
            outbox,
        }),
        Err(reasons) => {
            newcomer.end().await;
            Err(Failed { reasons, committed })
        }
    }
}

impl Successor {
    /// Tells the new master that everything is its own. From here on it outlives this process.
    pub async fn take_all(&mut self) -> io::Result<()> {
        self.newcomer.ours_to_end = false;
        write_frame(&mut self.outbox, &FromOld::Yours, FRAME_LIMIT_BYTES).await
    }

    /// The next thing that it wants; `None` when it has ended.
    pub async fn next(&mut self) -> Option<FromNew> {
        match self.inbox.next().await {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "the channel to the new master broke");
                None
            }
        }
    }

    /// Answers a `StatusRequest`.
    pub async fn tell_status(&mut self, status: serde_json::Value) -> io::Result<()> {
        write_frame(
            &mut self.outbox,
            &FromOld::Status(status),
            FRAME_LIMIT_BYTES,
        )
        .await
    }

    /// Tells the new master that this one ends, in order.
    pub async fn tell_ended(&mut self) -> io::Result<()> {
        write_frame(&mut self.outbox, &FromOld::Ended, FRAME_LIMIT_BYTES).await
    }

    /// Waits for the new master's end, so that it leaves no zombie.
    pub async fn ended(mut self) {
        if let Some(child) = &mut self.newcomer.child {
            // A wait fails only when another has waited for the process.
            let _ = child.wait().await;
        }
    }
}

/// The process that is to be the new master.
struct Newcomer {
    /// The process; None once it was waited for.
    child: Option<Child>,
    ours_to_end: bool,
}

impl Newcomer {
    fn start(binary: &Path, config: &Path) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let mut command = Command::new(binary);
        command
            .arg("take-over")
            .arg("--channel")
            .arg(theirs.as_raw_fd().to_string())
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .preserved_fds(vec![theirs.into()]);
        for name in notify::ONE_PROCESS_ONLY {
            command.env_remove(name);
        }
        let child = Some(command.spawn()?);
        // Closes our copy of its end: when it dies, the channel ends.
        drop(command);
        let newcomer = Self {
            child,
            ours_to_end: true,
        };
        Ok((newcomer, stream))
    }

    /// Ends the process, and waits for that.
    async fn end(&mut self) {
        if let Some(child) = &mut self.child {
            // A kill fails when the process has ended.
            let _ = child.start_kill();
            let _ = tokio::time::timeout(ENDING, child.wait()).await;
        }
    }

    /// End of the process, in words for a person, when it has ended or is about to.
    async fn ending(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "ended".to_owned();
        };
        match tokio::time::timeout(ENDING, child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it has closed its channel".to_owned(),
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && self.ours_to_end
        {
            // A kill fails when the process has ended. The runtime waits for it.
            let _ = child.start_kill();
        }
    }
}

/// Time that a process has to end after it has closed its channel.
const ENDING: Duration = Duration::from_secs(2);

/// Conversation until the new master serves.
struct Talk<'a> {
    newcomer: &'a mut Newcomer,
    inbox: FrameReader<OwnedReadHalf, FromNew>,
    outbox: OwnedWriteHalf,
}

impl<'a> Talk<'a> {
    async fn begin(
        newcomer: &'a mut Newcomer,
        stream: UnixStream,
        offer: &Offer,
        lent: &[BorrowedFd<'_>],
    ) -> Result<Self, Vec<String>> {
        let sent = descriptors::send(&stream, lent).await;
        let (source, outbox) = stream.into_split();
        let mut talk = Self {
            newcomer,
            inbox: FrameReader::new(source, FRAME_LIMIT_BYTES),
            outbox,
        };
        if let Err(error) = sent {
            // A binary that has ended may have said why.
            tracing::debug!(%error, "the new binary did not take the descriptors");
            return Ok(talk);
        }
        let offer = serde_json::to_value(offer)
            .map_err(|error| vec![format!("the hand-over cannot be written: {error}")])?;
        talk.say(&FromOld::Offer(offer)).await?;
        Ok(talk)
    }

    /// Sends a message. A new master that has ended does not hear it, which [`Self::next`] tells.
    async fn say(&mut self, message: &FromOld) -> Result<(), Vec<String>> {
        match write_frame(&mut self.outbox, message, FRAME_LIMIT_BYTES).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(vec![format!("the hand-over cannot be written: {error}")])
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn next(&mut self, stage: &str) -> Result<FromNew, Vec<String>> {
        match self.inbox.next().await {
            Ok(Some(FromNew::Refused(reasons))) => Err(reasons),
            Ok(Some(message)) => Ok(message),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(vec![format!(
                "the new binary does not speak as this one: {error}"
            )]),
            Ok(None) | Err(_) => Err(vec![format!(
                "the new binary ended before {stage}: {}",
                self.newcomer.ending().await
            )]),
        }
    }
}

fn out_of_turn(message: &FromNew) -> Vec<String> {
    vec![format!(
        "the new binary does not speak as this one: {message:?} out of turn"
    )]
}
