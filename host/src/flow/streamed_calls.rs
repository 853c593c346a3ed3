//! Calls of plugins whose bodies stream. Each has a task of its own, which speaks with the peer: it waits while the plugin does not read, and the
//! plugin waits while it does not take what is written. They end with the request.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::{ErrorKind, MOST_STREAMED_CALLS};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::call_failure::failure;
use super::call_head;
use super::calls_made::count_more;
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::exchange::{Exchange, PluginKey, Stage};
use crate::message::{BodySize, Piece, ReplyHead, RequestHead};
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::upstream::{self, Proxied, UploadSource, Upstream};
use crate::wasm::{Call, CallFailure, Destination, IoResult, StreamedDone, StreamedWork};
use crate::worker_context::WorkerContext;

/// Calls by number, each with its plugin.
#[derive(Default)]
pub(super) struct StreamedCalls(Vec<(PluginKey, Option<StreamedCall>)>);

/// A call under way. Dropped, it is given up, and its connection with it.
struct StreamedCall {
    /// Way of the request's body; an empty piece is its end. `None`: it has ended, or is not wanted any more.
    pieces: Option<mpsc::Sender<Bytes>>,
    /// Bytes that are to be written yet, where the length is known.
    left: Option<u64>,
    /// `None`: the plugin has it.
    head: Option<oneshot::Receiver<ReplyHead>>,
    body: mpsc::Receiver<Bytes>,
    /// Pieces of the response that came while the request's body was written.
    early: VecDeque<Bytes>,
    /// Most bytes of them.
    early_limit_bytes: usize,
    /// For each wait.
    limit: Duration,
    task: Task,
}

/// The task of a call, and what it has come to. It ends when this is dropped.
enum Task {
    Running(JoinHandle<Result<(), CallFailure>>),
    /// The response was read to its end.
    Over,
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Self::Running(task) = self {
            task.abort();
        }
    }
}

/// The plugin's side of a call, as its task has it.
struct Ends {
    pieces: mpsc::Receiver<Bytes>,
    head: oneshot::Sender<ReplyHead>,
    body: mpsc::Sender<Bytes>,
}

impl StreamedCalls {
    /// Does what a plugin has asked for; `made`: calls out of the request so far.
    pub(super) async fn perform(
        &mut self,
        worker: &WorkerContext,
        made: &std::cell::Cell<usize>,
        key: PluginKey,
        work: StreamedWork,
    ) -> IoResult {
        let (idx, done) = match work {
            StreamedWork::Open { call, length } => {
                return self.open(worker, made, key, *call, length);
            }
            StreamedWork::Write { call, bytes } => match self.find(key, call) {
                Some(open) => (call, open.write(bytes).await),
                None => return IoResult::Streamed(StreamedDone::NoSuch),
            },
            StreamedWork::Finish { call } => match self.find(key, call) {
                Some(open) => (call, open.finish().await),
                None => return IoResult::Streamed(StreamedDone::NoSuch),
            },
            StreamedWork::Read { call, most } => match self.find(key, call) {
                Some(open) => (call, open.read(most).await),
                None => return IoResult::Streamed(StreamedDone::NoSuch),
            },
            StreamedWork::Close { call } => match self.find(key, call) {
                Some(_) => {
                    self.0[call].1 = None;
                    return IoResult::Streamed(StreamedDone::Taken);
                }
                None => return IoResult::Streamed(StreamedDone::NoSuch),
            },
        };
        if let StreamedDone::Failed(_) = done {
            self.0[idx].1 = None;
        }
        IoResult::Streamed(done)
    }

    fn open(
        &mut self,
        worker: &WorkerContext,
        made: &std::cell::Cell<usize>,
        key: PluginKey,
        call: Call,
        length: Option<u64>,
    ) -> IoResult {
        let is_open = |slot: &&(PluginKey, Option<StreamedCall>)| slot.1.is_some();
        if self.0.iter().filter(is_open).count() >= MOST_STREAMED_CALLS {
            return IoResult::Streamed(StreamedDone::TooMany);
        }
        if !count_more(made, 1, call.calls_limit) {
            return IoResult::TooManyCalls;
        }
        let opened = match StreamedCall::begin(worker, call, length) {
            Ok(opened) => opened,
            Err(failure) => return IoResult::Streamed(StreamedDone::Failed(failure)),
        };
        let free = self.0.iter().position(|(_, open)| open.is_none());
        let slot = (key, Some(opened));
        let idx = match free {
            Some(idx) => {
                self.0[idx] = slot;
                idx
            }
            None => {
                self.0.push(slot);
                self.0.len() - 1
            }
        };
        IoResult::Streamed(StreamedDone::Opened(idx))
    }

    fn find(&mut self, key: PluginKey, call: usize) -> Option<&mut StreamedCall> {
        let (of, open) = self.0.get_mut(call)?;
        (*of == key).then_some(open.as_mut()).flatten()
    }
}

impl StreamedCall {
    fn begin(worker: &WorkerContext, call: Call, length: Option<u64>) -> Result<Self, CallFailure> {
        let (pieces, pieces_end) = mpsc::channel(PIECES);
        let (head, head_end) = oneshot::channel();
        let (body, body_end) = mpsc::channel(PIECES);
        let limit = call.timeout.map_or(LONGEST_WAIT, |it| it.min(LONGEST_WAIT));
        let early_limit_bytes = call.limit_bytes;
        let follows = length != Some(0);
        let ends = Ends {
            pieces: pieces_end,
            head,
            body,
        };
        let task = match &call.to {
            Destination::Upstream(name) => {
                let upstream = worker.upstream_named(name).map(Rc::clone);
                let none = || format!("there is no upstream {name}");
                let upstream =
                    upstream.ok_or_else(|| CallFailure::new(ErrorKind::NotFound, none()))?;
                let head = call_head::head(&call)?;
                let work = pass_upstream(upstream, head, call.body, length, ends);
                tokio::task::spawn_local(work)
            }
            Destination::Host(..) => {
                let gone = || CallFailure::new(ErrorKind::HostFailed, "the worker ends");
                let worker = worker.handle().ok_or_else(gone)?;
                tokio::task::spawn_local(pass_host(worker, call, length, ends))
            }
            Destination::OwnRoutes(_) => {
                let said = "a sub-request's response comes whole: http::subrequest";
                return Err(CallFailure::new(ErrorKind::BadArgument, said));
            }
        };
        Ok(Self {
            pieces: follows.then_some(pieces),
            left: length,
            head: Some(head_end),
            body: body_end,
            early: VecDeque::new(),
            early_limit_bytes,
            limit,
            task: Task::Running(task),
        })
    }

    /// Has the peer sent a piece of the body, once there is room for it.
    async fn write(&mut self, bytes: Bytes) -> StreamedDone {
        let Some(pieces) = &self.pieces else {
            return match self.head {
                // A body that was not to follow, or one that has been broken off.
                Some(_) if self.left != Some(0) => StreamedDone::Unwanted,
                _ => StreamedDone::OutOfOrder,
            };
        };
        if let Some(left) = self.left {
            match left.checked_sub(bytes.len() as u64) {
                Some(after) => self.left = Some(after),
                None => return StreamedDone::OutOfOrder,
            }
        }
        if bytes.is_empty() {
            return StreamedDone::Taken;
        }
        let (body, early, most) = (&mut self.body, &mut self.early, self.early_limit_bytes);
        let sent = async {
            loop {
                let early_bytes: usize = early.iter().map(Bytes::len).sum();
                tokio::select! {
                    biased;
                    room = pieces.reserve() => {
                        return room.map(|room| room.send(bytes)).is_ok();
                    }
                    // A peer that answers meanwhile may take no more until its answer is read.
                    Some(piece) = body.recv() => {
                        early.push_back(piece);
                        if early_bytes > most {
                            return false;
                        }
                    }
                }
            }
        };
        match timeout(self.limit, sent).await {
            Ok(true) => StreamedDone::Taken,
            Ok(false) => {
                self.pieces = None;
                match self.failure_now().await {
                    Some(failure) => StreamedDone::Failed(failure),
                    None => StreamedDone::Unwanted,
                }
            }
            Err(_) => self.late("no room for more of its body"),
        }
    }

    /// Ends the request's body, and waits for the head of the response.
    async fn finish(&mut self) -> StreamedDone {
        let Some(head) = self.head.take() else {
            return StreamedDone::OutOfOrder;
        };
        if let Some(pieces) = self.pieces.take() {
            if self.left.is_some_and(|left| left > 0) {
                let said = "its body has ended before the length that it was opened with";
                return StreamedDone::Failed(CallFailure::new(ErrorKind::BadArgument, said));
            }
            let end = pieces.send(Bytes::new());
            // A peer that takes nothing more may have answered.
            let _ = timeout(self.limit, end).await;
        }
        match timeout(self.limit, head).await {
            Ok(Ok(head)) => StreamedDone::Head(head),
            Ok(Err(_)) => match self.outcome().await {
                Err(failure) => StreamedDone::Failed(failure),
                Ok(()) => StreamedDone::Failed(CallFailure::new(ErrorKind::Broken, "no response")),
            },
            Err(_) => self.late("no response"),
        }
    }

    /// Next bytes of the response's body, once there are some; nothing at its end.
    async fn read(&mut self, most: usize) -> StreamedDone {
        if self.head.is_some() {
            return StreamedDone::OutOfOrder;
        }
        if self.early.is_empty() {
            match timeout(self.limit, self.body.recv()).await {
                Ok(Some(piece)) => self.early.push_back(piece),
                Ok(None) => {
                    return match self.outcome().await {
                        Ok(()) => StreamedDone::Read(Bytes::new()),
                        Err(failure) => StreamedDone::Failed(failure),
                    };
                }
                Err(_) => return self.late("no more of its body"),
            }
        }
        let Some(piece) = self.early.front_mut() else {
            return StreamedDone::Read(Bytes::new());
        };
        let part = piece.split_to(piece.len().min(most));
        if piece.is_empty() {
            self.early.pop_front();
        }
        StreamedDone::Read(part)
    }

    fn late(&self, what: &str) -> StreamedDone {
        let said = format!("{what} in {:?}", self.limit);
        StreamedDone::Failed(CallFailure::new(ErrorKind::Timeout, said))
    }

    /// Failure that has ended the task already.
    async fn failure_now(&mut self) -> Option<CallFailure> {
        match &self.task {
            Task::Running(task) if task.is_finished() => self.outcome().await.err(),
            Task::Running(_) | Task::Over => None,
        }
    }

    /// Outcome of the task, which has nothing more to hand out.
    async fn outcome(&mut self) -> Result<(), CallFailure> {
        let Task::Running(task) = &mut self.task else {
            return Ok(());
        };
        let outcome = task.await.unwrap_or_else(|_| {
            let said = "it was given up";
            Err(CallFailure::new(ErrorKind::HostFailed, said))
        });
        self.task = Task::Over;
        outcome
    }
}

/// Speaks with a peer of an upstream until the response is read.
async fn pass_upstream(
    upstream: Rc<Upstream>,
    head: RequestHead,
    whole: Bytes,
    length: Option<u64>,
    ends: Ends,
) -> Result<(), CallFailure> {
    let mut exchange = Exchange::idle();
    let (client, server) = (ClientAddress::NOBODY, ServerAddress::NOBODY);
    let listener = exchange.context().listener.clone();
    let collector = Collector::new(&head.method, 0);
    let (collector, mut body) = match length {
        Some(0) => (collector, RequestBody::held(whole)),
        length => {
            let size = length.map_or(BodySize::Unknown, BodySize::Exact);
            (
                collector.with_body(ends.pieces),
                RequestBody::streamed(size),
            )
        }
    };
    exchange.begin(head, client, server, None, &listener);
    exchange.enter(Stage::Balance);
    let mut downstream = Downstream::Collect(collector);
    let mut source = UploadSource {
        downstream: &mut downstream,
        body: &mut body,
        filter: &mut None,
        pinned: None,
    };
    let now = exchange.stats().started;
    let settings = upstream.settings();
    let proxied = upstream::send(&upstream, settings, &mut exchange, &mut source, now);
    let Proxied::Response(mut response) = proxied.await.map_err(failure)? else {
        let said = "a plugin has answered it";
        return Err(CallFailure::new(ErrorKind::Broken, said));
    };
    // The plugin has given it up where nobody takes it: the task is dropped then.
    let _ = ends.head.send(std::mem::take(exchange.reply_mut()));
    loop {
        match response.try_piece().map_err(failure)? {
            Piece::Data(piece) => {
                let _ = ends.body.send(piece).await;
            }
            Piece::NeedMore => {
                let filled = response.fill(&mut source, &mut exchange);
                filled.await.map_err(failure)?;
            }
            Piece::End => break,
        }
    }
    response.finish();
    Ok(())
}

/// Speaks with a host until the response is read.
async fn pass_host(
    worker: Rc<WorkerContext>,
    call: Call,
    length: Option<u64>,
    ends: Ends,
) -> Result<(), CallFailure> {
    let Destination::Host(plugin, name) = &call.to else {
        return Err(CallFailure::new(ErrorKind::HostFailed, "it is to no host"));
    };
    let none = || CallFailure::new(ErrorKind::NotGranted, "no host is granted");
    let hosts = worker.host_calls(plugin).ok_or_else(none)?;
    let body = (length != Some(0)).then_some((length, ends.pieces));
    hosts
        .stream(name, &call, body, (ends.head, ends.body))
        .await
}

/// Pieces that wait on each way.
const PIECES: usize = 1;

const LONGEST_WAIT: Duration = Duration::from_secs(60);
