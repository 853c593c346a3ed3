//! The fetch helper, from both sides: one process for the whole gateway, started with the first question and again when it has
//! ended. What it reads comes from outside; it has no files, and the workers' user.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, timeout};

use crate::config::Workers;
use crate::fetch::{Ask, Learnt, Question, Reply, dns, list};
use crate::process::backoff::Backoff;
use crate::process::channel::{FrameReader, write_frame};
use crate::process::confine;
use crate::process::role::Role;

/// Largest message, bytes: a list with as many peers as may be, or the question of a URL, with all authorities that a system
/// trusts.
const FRAME_LIMIT_BYTES: usize = 16 << 20;

/// Longest time for one question, whatever its servers and names are.
const LONGEST_QUESTION: Duration = Duration::from_secs(15);

/// Time that the master gives the helper beyond that.
const GRACE: Duration = Duration::from_secs(2);

/// Questions that are worked on at a time; others wait.
const QUESTIONS_AT_A_TIME: usize = 64;

/// The master's side.
#[derive(Default)]
pub struct Fetcher {
    /// Settings of the config that was loaded last: which user the helper is, and whether it is sealed.
    workers: RefCell<Option<Workers>>,
    running: RefCell<Option<Running>>,
    last_id: Cell<u64>,
    backoff: RefCell<Backoff>,
    /// Time before which no helper is started again.
    not_before: Cell<Option<Instant>>,
}

/// A helper that runs. Dropping it ends the process.
struct Running {
    questions: mpsc::UnboundedSender<Question>,
    waiting: Waiting,
    started: Instant,
}

type Waiting = Rc<RefCell<BTreeMap<u64, oneshot::Sender<Result<Learnt, String>>>>>;

impl Fetcher {
    /// Starts helpers as this config says from now on; one that runs otherwise is ended.
    pub fn follow(&self, workers: &Workers) {
        let is_same =
            |before: &Workers| (&before.user, before.seccomp) == (&workers.user, workers.seccomp);
        if !self.workers.borrow().as_ref().is_some_and(is_same) {
            self.running.take();
        }
        self.workers.replace(Some(workers.clone()));
    }

    /// Ends the helper.
    pub fn end(&self) {
        self.running.take();
    }

    /// Asks the helper. The error is a line for a person.
    pub async fn ask(self: &Rc<Self>, ask: Ask) -> Result<Learnt, String> {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let (waiter, answer) = oneshot::channel();
        self.send(Question { id, ask }, waiter)?;
        match timeout(LONGEST_QUESTION + GRACE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the helper that asks has ended".to_owned()),
            Err(_) => {
                // One that hangs would hold up all others.
                self.running.take();
                Err("the helper that asks does not answer".to_owned())
            }
        }
    }

    fn send(
        self: &Rc<Self>,
        question: Question,
        waiter: oneshot::Sender<Result<Learnt, String>>,
    ) -> Result<(), String> {
        let mut running = self.running.borrow_mut();
        let running = match &mut *running {
            Some(running) => running,
            none => none.insert(self.start()?),
        };
        running.waiting.borrow_mut().insert(question.id, waiter);
        // One that has just ended drops the waiters, too.
        let _ = running.questions.send(question);
        Ok(())
    }

    fn start(self: &Rc<Self>) -> Result<Running, String> {
        let cannot = |error: &dyn std::fmt::Display| {
            format!("the helper that asks cannot be started: {error}")
        };
        if self.not_before.get().is_some_and(|it| Instant::now() < it) {
            return Err(cannot(&"it has ended too often"));
        }
        let workers = self.workers.borrow();
        let workers = workers.as_ref().ok_or_else(|| cannot(&"no config"))?;
        let (child, stream) = spawn(workers).map_err(|error| cannot(&error))?;
        let (source, sink) = stream.into_split();
        let (questions, asked) = mpsc::unbounded_channel();
        let running = Running {
            questions,
            waiting: Waiting::default(),
            started: Instant::now(),
        };
        let replies = FrameReader::new(source, FRAME_LIMIT_BYTES);
        let waiting = Rc::clone(&running.waiting);
        spawn_local(Rc::clone(self).attend(child, replies, (asked, sink), waiting));
        Ok(running)
    }

    /// Passes questions and replies on, until the helper or its handle is gone.
    async fn attend(
        self: Rc<Self>,
        mut child: Child,
        mut replies: FrameReader<OwnedReadHalf, Reply>,
        (asked, sink): (mpsc::UnboundedReceiver<Question>, OwnedWriteHalf),
        waiting: Waiting,
    ) {
        let hears = async {
            while let Ok(Some(Reply { id, learnt })) = replies.next().await {
                if let Some(waiter) = waiting.borrow_mut().remove(&id) {
                    // A waiter may have given up.
                    let _ = waiter.send(learnt);
                }
            }
        };
        let was_ended = tokio::select! {
            () = hears => false,
            was_ended = write_questions(asked, sink) => was_ended,
        };
        waiting.borrow_mut().clear();
        // A kill fails when the process has ended, which is what we want.
        let _ = child.start_kill();
        let status = child.wait().await;
        if was_ended {
            return;
        }
        let lived = self.running.take().map(|running| running.started.elapsed());
        let wait = self
            .backoff
            .borrow_mut()
            .wait_after(lived.unwrap_or_default());
        self.not_before.set(Some(Instant::now() + wait));
        match status {
            Ok(status) => {
                tracing::error!(%status, ?wait, "the helper that asks for peers has ended")
            }
            Err(error) => tracing::error!(%error, "the helper that asks for peers is lost"),
        }
    }
}

/// True when there are no more questions, false when the helper does not read them.
async fn write_questions(
    mut asked: mpsc::UnboundedReceiver<Question>,
    mut sink: OwnedWriteHalf,
) -> bool {
    while let Some(question) = asked.recv().await {
        if write_frame(&mut sink, &question, FRAME_LIMIT_BYTES)
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

fn spawn(workers: &Workers) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let channel = theirs.as_raw_fd().to_string();
    let mut command = Role::Fetch.start("fetch", workers.user.as_ref(), vec![theirs.into()]);
    command
        .args(["--channel", &channel])
        .args((!workers.seccomp).then_some("--no-seccomp"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command.spawn()?;
    // Closes our copy of the helper's end.
    drop(command);
    Ok((child, UnixStream::from_std(ours)?))
}

/// The helper's side: limits itself, and answers questions until its master has no more.
pub fn run(channel: RawFd, seccomp: bool) -> anyhow::Result<()> {
    let (runtime, channel) = confine::begin_helper(Role::Fetch, channel, seccomp)?;
    LocalSet::new().block_on(&runtime, converse(channel))
}

async fn converse(channel: StdUnixStream) -> anyhow::Result<()> {
    let (source, mut sink) = UnixStream::from_std(channel)?.into_split();
    let mut questions = FrameReader::<_, Question>::new(source, FRAME_LIMIT_BYTES);
    let (replies, mut answered) = mpsc::unbounded_channel();
    let room = Rc::new(Semaphore::new(QUESTIONS_AT_A_TIME));
    let hears = async {
        while let Some(question) = questions.next().await? {
            let (replies, room) = (replies.clone(), Rc::clone(&room));
            spawn_local(async move {
                // The semaphore is never closed.
                let _place = room.acquire().await;
                let id = question.id;
                let learnt = learn(question.ask).await;
                // The end of the process drops the receiver.
                let _ = replies.send(Reply { id, learnt });
            });
        }
        anyhow::Ok(())
    };
    let writes = async {
        while let Some(reply) = answered.recv().await {
            write_frame(&mut sink, &reply, FRAME_LIMIT_BYTES).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = hears => ended,
        ended = writes => ended,
    }
}

/// The answer, in time, and also where a library panics over what has come.
async fn learn(ask: Ask) -> Result<Learnt, String> {
    let learnt = async {
        match &ask {
            Ask::Name(question) => dns::resolve(question).await.map(Learnt::Addresses),
            Ask::List(question) => list::ask(question).await.map(Learnt::List),
        }
    };
    match timeout(LONGEST_QUESTION, AssertUnwindSafe(learnt).catch_unwind()).await {
        Ok(Ok(learnt)) => learnt,
        Ok(Err(_)) => Err("the answer cannot be read".to_owned()),
        Err(_) => Err(format!("no answer within {LONGEST_QUESTION:?}")),
    }
}
