//! The helper that talks to an authority, from both sides. Each task has a process of its own, which ends with it: between orders
//! there is none.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;

use crate::acme::{Failure, FromHelper, Task, ToHelper, printable, work};
use crate::config::Workers;
use crate::process::channel::{FrameReader, write_frame};
use crate::process::confine;
use crate::process::role::Role;

/// Largest message, bytes: roots of a system are some 200 KiB.
const FRAME_LIMIT_BYTES: usize = 16 << 20;

/// Longest task. An authority that takes longer is asked again later; other orders wait meanwhile.
const TASK_TIMEOUT: Duration = Duration::from_secs(300);

/// Time for the task, which the master sends at once.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A helper at work. Dropping it ends the process.
pub struct Helper {
    inbox: FrameReader<OwnedReadHalf, FromHelper>,
    outbox: OwnedWriteHalf,
    child: Child,
    until: tokio::time::Instant,
}

impl Helper {
    /// Starts a helper as the workers' user, and gives it its task.
    pub async fn start(task: Task, workers: &Workers) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = theirs.as_raw_fd().to_string();
        let mut command = Role::Acme.start("acme", workers.user.as_ref(), vec![theirs.into()]);
        command
            .args(["--channel", &channel])
            .args((!workers.seccomp).then_some("--no-seccomp"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn()?;
        // Closes our copy of the helper's end.
        drop(command);
        let (source, outbox) = UnixStream::from_std(ours)?.into_split();
        let mut helper = Self {
            inbox: FrameReader::new(source, FRAME_LIMIT_BYTES),
            outbox,
            child,
            until: tokio::time::Instant::now() + TASK_TIMEOUT,
        };
        helper.tell(&ToHelper::Task(Box::new(task))).await?;
        Ok(helper)
    }

    /// The next message. A helper that ends before its last one, or takes too long, has failed.
    pub async fn next(&mut self) -> FromHelper {
        let failed = |error| {
            FromHelper::Failed(Failure {
                error,
                retry_after: None,
            })
        };
        match tokio::time::timeout_at(self.until, self.inbox.next()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => match self.child.wait().await {
                Ok(status) => failed(format!("its helper crashed: {status}")),
                Err(error) => failed(format!("its helper is lost: {error}")),
            },
            Ok(Err(error)) => failed(format!("its helper makes no sense: {error}")),
            Err(_) => failed(format!("it takes more than {} s", TASK_TIMEOUT.as_secs())),
        }
    }

    pub async fn tell(&mut self, message: &ToHelper) -> io::Result<()> {
        write_frame(&mut self.outbox, message, FRAME_LIMIT_BYTES).await
    }
}

/// The helper's side: limits itself, does the task that comes over the inherited channel, and says what came of it.
pub fn run(channel: RawFd, seccomp: bool) -> anyhow::Result<()> {
    let (runtime, channel) = confine::begin_helper(Role::Acme, channel, seccomp)?;
    runtime.block_on(converse(channel))
}

async fn converse(channel: StdUnixStream) -> anyhow::Result<()> {
    let (source, mut outbox) = UnixStream::from_std(channel)?.into_split();
    let mut inbox = FrameReader::new(source, FRAME_LIMIT_BYTES);
    let task = match tokio::time::timeout(START_TIMEOUT, inbox.next()).await?? {
        Some(ToHelper::Task(task)) => *task,
        Some(ToHelper::Deployed) => anyhow::bail!("the master's first message is not what to do"),
        None => return Ok(()),
    };
    let mut tell = async |message: FromHelper| {
        write_frame(&mut outbox, &message, FRAME_LIMIT_BYTES).await?;
        match message {
            FromHelper::Challenges(_) => match inbox.next().await? {
                Some(ToHelper::Deployed) => Ok(()),
                Some(ToHelper::Task(_)) | None => Err(io::ErrorKind::UnexpectedEof.into()),
            },
            FromHelper::Account(_)
            | FromHelper::Issued { .. }
            | FromHelper::RenewalInfo(_)
            | FromHelper::Failed(_) => Ok(()),
        }
    };
    let last = guarded(work(task, &mut tell)).await;
    Ok(tell(last).await?)
}

/// The last message of a task, also where its library panics over what an authority has sent.
async fn guarded(task: impl Future<Output = FromHelper>) -> FromHelper {
    AssertUnwindSafe(task)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text,
                (None, Some(text)) => *text,
                (None, None) => "without a word",
            };
            FromHelper::Failed(Failure {
                error: format!("its helper has panicked: {}", printable(text)),
                retry_after: None,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_that_says_why() {
        let told = |message: FromHelper| match message {
            FromHelper::Failed(failure) => failure.error,
            other => panic!("{other:?}"),
        };
        let number = 7;
        let panics = guarded(async move { panic!("no\n{number}") }).await;
        assert_eq!(told(panics), "its helper has panicked: no 7");
        let panics = guarded(async { panic!("overflow") }).await;
        assert_eq!(told(panics), "its helper has panicked: overflow");
    }
}
