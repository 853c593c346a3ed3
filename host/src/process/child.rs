//! A worker process, as the master sees it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};

use crate::gateway::GatewayStatus;

use super::channel::{
    FrameReader, FromWorker, ORDER_LIMIT_BYTES, ToWorker, WORKER_FRAME_LIMIT_BYTES, WorkerSpec,
    write_frame,
};
use super::granted_files::{FileSender, WatchedFile};
use super::role::Role;
use super::rows::RowLease;
use super::sys;

/// Handle of a started worker. Dropping the last handle of one that runs ends it at once.
pub struct WorkerChild {
    pub pid: u32,
    pub slot: usize,
    pub started: Instant,
    orders: mpsc::UnboundedSender<ToWorker>,
    state: watch::Receiver<WorkerState>,
    status_waiters: StatusWaiters,
    /// Number of the last news that the worker has taken in.
    taken_in: watch::Receiver<u64>,
    heard: Rc<Heard>,
    /// `None` where no files are granted.
    files: Option<FileSender>,
}

/// State of a worker, as the master knows it.
#[derive(Clone, Debug)]
pub enum WorkerState {
    Starting,
    /// The worker can be put to work.
    Ready,
    /// The worker accepts connections.
    Serving,
    /// The worker accepts no more connections.
    Draining,
    Ended(Ending),
}

/// End of a worker.
#[derive(Clone, Debug)]
pub struct Ending {
    pub status: ExitStatus,
    /// Reasons that the worker gave, lines for a person. Empty when it crashed or was told to end.
    pub errors: Vec<String>,
    /// Time without an answer after which the worker was killed; None when that is not how it ended.
    pub silence: Option<Duration>,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.silence, self.errors.first()) {
            (Some(silence), _) => write!(f, "killed: no answer for {:.1} s", silence.as_secs_f64()),
            (None, Some(error)) => f.write_str(error),
            (None, None) => self.status.fmt(f),
        }
    }
}

type StatusWaiters = Rc<RefCell<Vec<oneshot::Sender<GatewayStatus>>>>;

/// Time of the worker's last message, whatever it said.
struct Heard {
    at: Cell<Instant>,
    /// Questions since then that the worker has not answered.
    unanswered: Cell<u32>,
}

impl WorkerChild {
    /// Starts a process that gets the spec and the descriptors that the spec names. Must be called in a `LocalSet`.
    pub fn spawn(
        spec: WorkerSpec,
        descriptors: Vec<OwnedFd>,
        row: Option<RowLease>,
        files: Option<FileSender>,
    ) -> io::Result<Rc<Self>> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = UnixStream::from_std(ours)?;
        let channel_fd = theirs.as_raw_fd();
        let slot = spec.slot;

        let mut inherited = descriptors;
        inherited.push(theirs.into());
        let title = format!("worker {slot} of generation {}", spec.generation);
        let user = spec.config.workers.user.as_ref();
        let mut command = Role::Worker.start(&title, user, inherited);
        command
            .args(["--channel", &channel_fd.to_string()])
            .stdin(Stdio::null());
        let child = command.spawn()?;
        // Closes our copy of the worker's end: when the worker dies, the channel ends.
        drop(command);

        Self::attended(child, channel, spec, (row, files))
    }

    /// The handle of a process that has just been started, its tasks and its first order.
    fn attended(
        child: Child,
        channel: UnixStream,
        spec: WorkerSpec,
        (row, files): (Option<RowLease>, Option<FileSender>),
    ) -> io::Result<Rc<Self>> {
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the worker ended at once"))?;
        let (orders, pending_orders) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(WorkerState::Starting);
        let (taken_in_sender, taken_in) = watch::channel(0);
        let process = Self {
            pid,
            slot: spec.slot,
            started: Instant::now(),
            orders,
            state,
            status_waiters: StatusWaiters::default(),
            taken_in,
            heard: Rc::new(Heard {
                at: Cell::new(Instant::now()),
                unanswered: Cell::new(0),
            }),
            files,
        };
        process.tell(ToWorker::Start(Box::new(spec)));
        let (from_worker, to_worker) = channel.into_split();
        let (written_orders, writer_orders) = mpsc::unbounded_channel();
        tokio::task::spawn_local(write_orders(to_worker, writer_orders));
        let attendant = Attendant {
            child,
            inbox: Some(FrameReader::new(from_worker, WORKER_FRAME_LIMIT_BYTES)),
            errors: Vec::new(),
            state: state_sender,
            taken_in: taken_in_sender,
            status_waiters: Rc::clone(&process.status_waiters),
            heard: Rc::clone(&process.heard),
            _row: row,
        };
        tokio::task::spawn_local(attendant.attend(pending_orders, written_orders));
        Ok(Rc::new(process))
    }

    /// Queues an order. A worker that has ended does not hear it.
    pub fn tell(&self, order: ToWorker) {
        // The attendant is gone only when the process is.
        let _ = self.orders.send(order);
    }

    /// Sends the versions of granted files that the worker does not have yet.
    pub fn tell_files(&self, files: &[Rc<WatchedFile>]) {
        if let Some(sender) = self.files.as_ref().filter(|_| self.is_alive()) {
            sender.tell(files);
        }
    }

    /// State that the worker is in by its last message, or by its end.
    pub fn state(&self) -> WorkerState {
        self.state.borrow().clone()
    }

    /// Waits until the worker is ready; fails with what it says, or how it ended.
    pub async fn ready(&self) -> Result<(), Vec<String>> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, WorkerState::Starting))
            .await;
        match settled.as_deref() {
            Ok(
                WorkerState::Starting
                | WorkerState::Ready
                | WorkerState::Serving
                | WorkerState::Draining,
            ) => Ok(()),
            Ok(WorkerState::Ended(ending)) if ending.errors.is_empty() => Err(vec![format!(
                "worker {} (pid {}) ended before it was ready: {}",
                self.slot, self.pid, ending.status
            )]),
            Ok(WorkerState::Ended(ending)) => Err(ending.errors.clone()),
            Err(_) => Err(vec![format!(
                "worker {} (pid {}) was given up",
                self.slot, self.pid
            )]),
        }
    }

    /// Waits until the worker has said that it accepts connections, or has ended.
    pub async fn serves(&self) {
        let past =
            |state: &WorkerState| !matches!(state, WorkerState::Starting | WorkerState::Ready);
        // An attendant that is gone leaves nobody to wait for.
        let _ = self.state.clone().wait_for(past).await;
    }

    /// Waits until the worker has said that it accepts no more, or has ended.
    pub async fn accepts_no_more(&self) {
        let past =
            |state: &WorkerState| matches!(state, WorkerState::Draining | WorkerState::Ended(_));
        // An attendant that is gone leaves nobody to wait for.
        let _ = self.state.clone().wait_for(past).await;
    }

    /// Waits until the worker has taken in the news of this number. One that is not ready yet does so before it serves, since orders
    /// come in their order; one that has ended has nobody to answer.
    pub async fn has_taken_in(&self, number: u64) {
        let (mut taken_in, mut state) = (self.taken_in.clone(), self.state.clone());
        let takes_in = taken_in.wait_for(|last| *last >= number);
        let need_not = |state: &WorkerState| match state {
            WorkerState::Starting | WorkerState::Ended(_) => true,
            WorkerState::Ready | WorkerState::Serving | WorkerState::Draining => false,
        };
        let need_not = state.wait_for(need_not);
        // An attendant that is gone leaves nobody to wait for.
        tokio::select! {
            _ = takes_in => {}
            _ = need_not => {}
        }
    }

    /// Waits for the process to end; `None` when nobody could tell how.
    pub async fn ended(&self) -> Option<Ending> {
        let mut state = self.state.clone();
        let ended = state
            .wait_for(|state| matches!(state, WorkerState::Ended(_)))
            .await;
        match ended.as_deref() {
            Ok(WorkerState::Ended(ending)) => Some(ending.clone()),
            Ok(
                WorkerState::Starting
                | WorkerState::Ready
                | WorkerState::Serving
                | WorkerState::Draining,
            )
            | Err(_) => None,
        }
    }

    /// Status of the worker by its own word; `None` when it does not answer within a second.
    pub async fn status(&self) -> Option<GatewayStatus> {
        let (waiter, answer) = oneshot::channel();
        self.status_waiters.borrow_mut().push(waiter);
        self.tell(ToWorker::StatusRequest);
        tokio::time::timeout(STATUS_TIMEOUT, answer)
            .await
            .ok()?
            .ok()
    }

    /// Asks the worker again and again whether it still answers. Returns when it has left [`MISSED_HEARTBEATS`] questions
    /// in a row unanswered, which takes `timeout`, with the time since it was last heard; never, when it has ended.
    ///
    /// Questions are counted, not time: a master that was stopped itself, and then finds its workers silent for long,
    /// has not asked them meanwhile.
    pub async fn falls_silent(&self, timeout: Duration) -> Duration {
        self.heard.unanswered.set(0);
        while self.is_alive() {
            let asked = self.heard.unanswered.get();
            if asked >= MISSED_HEARTBEATS {
                return self.heard.at.get().elapsed();
            }
            self.heard.unanswered.set(asked + 1);
            self.tell(ToWorker::Heartbeat);
            tokio::time::sleep(timeout / MISSED_HEARTBEATS).await;
        }
        std::future::pending().await
    }

    /// Whether the process has not ended, as far as is known.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state(), WorkerState::Ended(_))
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        // A pid that was waited for may be another process by now.
        if self.is_alive() {
            sys::kill(self.pid);
        }
    }
}

/// Owns the process: waits for it, listens to it, passes orders on.
struct Attendant {
    child: Child,
    /// None once the worker has closed its end.
    inbox: Option<FrameReader<OwnedReadHalf, FromWorker>>,
    errors: Vec<String>,
    state: watch::Sender<WorkerState>,
    taken_in: watch::Sender<u64>,
    status_waiters: StatusWaiters,
    heard: Rc<Heard>,
    /// Row of shared memory, which another worker may have when this one has ended.
    _row: Option<RowLease>,
}

impl Attendant {
    async fn attend(
        mut self,
        mut orders: mpsc::UnboundedReceiver<ToWorker>,
        written_orders: mpsc::UnboundedSender<ToWorker>,
    ) {
        let mut wanted = true;
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                message = next_message(&mut self.inbox) => self.hear(message),
                order = orders.recv(), if wanted => match order {
                    // The writer ends early only when the worker no longer reads.
                    Some(order) => drop(written_orders.send(order)),
                    None => {
                        wanted = false;
                        // A kill fails when the process has ended, which is what we want.
                        let _ = self.child.start_kill();
                    }
                },
            }
        };
        // The worker's last messages may still be in the channel.
        while self.inbox.is_some() {
            match tokio::time::timeout(LAST_WORDS, next_message(&mut self.inbox)).await {
                Ok(message) => self.hear(message),
                Err(_) => break,
            }
        }
        self.status_waiters.borrow_mut().clear();
        match status {
            Ok(status) => {
                self.state.send_replace(WorkerState::Ended(Ending {
                    status,
                    errors: self.errors,
                    silence: None,
                }));
            }
            Err(error) => tracing::error!(%error, "a worker cannot be waited for"),
        }
    }

    fn hear(&mut self, message: io::Result<Option<FromWorker>>) {
        if let Ok(Some(_)) = message {
            self.heard.at.set(Instant::now());
            self.heard.unanswered.set(0);
        }
        match message {
            Ok(Some(FromWorker::Ready)) => drop(self.state.send_replace(WorkerState::Ready)),
            Ok(Some(FromWorker::Serving)) => drop(self.state.send_replace(WorkerState::Serving)),
            Ok(Some(FromWorker::Draining)) => drop(self.state.send_replace(WorkerState::Draining)),
            Ok(Some(FromWorker::Failed(errors))) => self.errors = errors,
            Ok(Some(FromWorker::Status(status))) => {
                for waiter in self.status_waiters.borrow_mut().drain(..) {
                    // A waiter may have given up.
                    let _ = waiter.send(status.clone());
                }
            }
            Ok(Some(FromWorker::TakenIn(number))) => {
                self.taken_in.send_replace(number);
            }
            // The message's coming is all there is to it; it was noted above.
            Ok(Some(FromWorker::Alive)) => {}
            Ok(Some(FromWorker::Drained)) => {
                tracing::debug!(pid = self.child.id(), "worker has drained");
            }
            Ok(None) => self.inbox = None,
            // A worker that died with orders unread resets the channel.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.inbox = None,
            Err(error) => {
                tracing::warn!(pid = self.child.id(), %error, "worker channel broke");
                self.inbox = None;
            }
        }
    }
}

async fn next_message(
    inbox: &mut Option<FrameReader<OwnedReadHalf, FromWorker>>,
) -> io::Result<Option<FromWorker>> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

/// Writes orders to the worker, in a task of its own, so that a worker that does not read holds up nobody.
async fn write_orders(mut sink: OwnedWriteHalf, mut orders: mpsc::UnboundedReceiver<ToWorker>) {
    while let Some(order) = orders.recv().await {
        if let Err(error) = write_frame(&mut sink, &order, ORDER_LIMIT_BYTES).await {
            let is_too_large = error.kind() == io::ErrorKind::InvalidData;
            match is_too_large {
                true => tracing::error!(%error, "a worker cannot be told: the config is too large"),
                false => tracing::debug!(%error, "a worker did not take an order"),
            }
            return;
        }
    }
}

/// Questions in a row without an answer that count as silence.
const MISSED_HEARTBEATS: u32 = 3;

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for which a dead worker's channel is read for its last messages.
const LAST_WORDS: Duration = Duration::from_millis(200);
