//! Server of the control socket: hears commands, has the master obey, answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::process::channel::{FrameReader, write_frame};
use crate::process::control::{REPLY_LIMIT_BYTES, REQUEST_LIMIT_BYTES, Reply, Request, ask};
use crate::process::orders::{ReloadProgress, ReloadWaiter, UpgradeOrder};
use crate::process::peers;

use super::Master;

/// Connections that have not sent their request yet, at a time. A further one takes the place of the oldest, so that nobody who
/// says nothing keeps out others.
const SILENT: usize = 32;

/// Requests under way at a time; a further one is refused.
const REQUESTS: usize = 128;

/// Time to send a request, after which the peer is dropped. Commands send it at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Time to take a reply, after which the peer is dropped.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers requests until the master ends.
pub(super) async fn serve(listener: UnixListener, master: Rc<Master>) {
    let silent = Rc::new(RefCell::new(Silent::default()));
    let room = Rc::new(Semaphore::new(REQUESTS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map_err(|error| error.to_string());
                if let Err(error) = peer.and_then(|peer| peers::check(&peer, master.before())) {
                    tracing::warn!(%error, "a control connection is refused");
                    continue;
                }
                let task = attend(
                    stream,
                    Rc::clone(&master),
                    Rc::clone(&silent),
                    Rc::clone(&room),
                );
                tokio::task::spawn_local(task);
                // A peer that has sent its request is heard before the next one may take its place.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "control socket does not accept");
                tokio::time::sleep(PEER_TIMEOUT).await;
            }
        }
    }
}

/// The connections that have not sent their request yet, the oldest first.
#[derive(Default)]
struct Silent {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    last_number: u64,
}

impl Silent {
    /// Adds one and drops the oldest where there are too many. What is returned comes when it is this one's turn to be dropped.
    fn add(&mut self) -> (u64, oneshot::Receiver<()>) {
        if self.waiting.len() >= SILENT {
            self.waiting.pop_front();
        }
        self.last_number += 1;
        let (kept, dropped) = oneshot::channel();
        self.waiting.push_back((self.last_number, kept));
        (self.last_number, dropped)
    }

    fn remove(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }
}

async fn attend(
    stream: UnixStream,
    master: Rc<Master>,
    silent: Rc<RefCell<Silent>>,
    room: Rc<Semaphore>,
) {
    let (source, sink) = stream.into_split();
    let mut requests = FrameReader::<_, Request>::new(source, REQUEST_LIMIT_BYTES);
    let (number, dropped) = silent.borrow_mut().add();
    let request = tokio::select! {
        // First: a request that is there is answered.
        biased;
        request = requests.next() => request,
        _ = dropped => Ok(None),
        () = tokio::time::sleep(REQUEST_TIMEOUT) => Ok(None),
    };
    silent.borrow_mut().remove(number);
    let conversed = match request {
        Ok(Some(request)) => converse(request, requests, sink, &master, &room).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = conversed {
        tracing::debug!(%error, "control connection failed");
    }
}

async fn converse(
    request: Request,
    mut requests: FrameReader<OwnedReadHalf, Request>,
    mut sink: OwnedWriteHalf,
    master: &Rc<Master>,
    room: &Semaphore,
) -> io::Result<()> {
    let Ok(_place) = room.try_acquire() else {
        let refused = Reply::Refused(vec![format!("{REQUESTS} commands are under way already")]);
        return in_time(write_frame(&mut sink, &refused, REPLY_LIMIT_BYTES)).await;
    };
    let pending_command = master.pending_command();
    let reply = tokio::select! {
        // First: what was asked for is begun, however soon the peer leaves.
        biased;
        reply = answer(request, master, &mut sink) => reply?,
        // The peer has left, such as one that tired of a reload that waits; another message is out of turn.
        _ = requests.next() => return Ok(()),
    };
    in_time(write_frame(&mut sink, &reply, REPLY_LIMIT_BYTES)).await?;
    drop(pending_command);
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
    // A peer that comes this late has found the old socket still.
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
        Request::Status => Reply::Status(Box::new(master.status().await)),
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
        Request::Upstream { name, order } => match master.order_peers(&name, order) {
            Ok(report) => Reply::Upstream(report),
            Err(error) => Reply::Refused(vec![error]),
        },
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
            Some(ReloadProgress::Waits(why)) => {
                let reply = Reply::Waits(why);
                in_time(write_frame(sink, &reply, REPLY_LIMIT_BYTES)).await?;
            }
            Some(ReloadProgress::Ended(Ok(reloaded))) => return Ok(Reply::Reloaded(reloaded)),
            Some(ReloadProgress::Ended(Err(errors))) => return Ok(Reply::Refused(errors)),
            None => return Ok(Reply::Refused(vec!["the gateway is stopping".to_owned()])),
        }
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PEER_TIMEOUT, step)
        .await
        .unwrap_or_else(|late| Err(late.into()))
}
