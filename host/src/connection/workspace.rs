//! Workspaces: the large part of what a request needs, lent to connections while they have one.
//!
//! The future of a request takes some KiB, its buffers and its exchange as much again. An idle connection that kept them
//! would cost five times what it does (`docs/MEMORY.md`). So they are in a workspace, which serves one connection after the other,
//! is taken by one that has a request, and stays with it until it is idle again. The workspace left last is taken first: it is
//! still in the processor's cache, and no request allocates one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::downstream::h1::Client;
use crate::flow::Tools;
use crate::message::HeadRoom;
use crate::runtime::alarm::Alarms;
use crate::runtime::clock;
use crate::transport::halves::{BufferSet, HEAD_ROOM_BYTES};

use super::{AfterRead, Connection};

/// Workspaces of a worker's connections.
#[derive(Default)]
pub struct WorkspacePool(RefCell<Vec<Workspace>>);

/// Free workspaces beyond this many are given back, so that a burst is forgotten.
const MAX_FREE: usize = 128;

struct Workspace {
    job: Rc<Cell<Job>>,
    /// Takes connections from the job slot and lays them back, for ever.
    work: Pin<Box<dyn Future<Output = Infallible>>>,
    buffers: BufferSet,
}

#[derive(Default)]
enum Job {
    #[default]
    Empty,
    Waiting(Box<Connection>),
    Done(Box<Connection>, AfterRead),
}

impl WorkspacePool {
    /// Serves the requests of a connection on which something has come, if it has. Cancelled, it drops the connection.
    pub(super) async fn serve(
        &self,
        mut connection: Box<Connection>,
    ) -> (Box<Connection>, AfterRead) {
        let free = self.0.borrow_mut().pop();
        let mut workspace =
            free.unwrap_or_else(|| Workspace::new(connection.serving.worker.alarms()));
        let Client { reader, writer, .. } = &mut connection.client;
        workspace.buffers.lend(reader, writer);
        let (mut connection, after) = match reader.fill_now(HEAD_ROOM_BYTES) {
            Some(Ok(1..)) => {
                workspace.job.set(Job::Waiting(connection));
                poll_fn(|cx| workspace.poll_done(cx)).await
            }
            Some(Ok(0) | Err(_)) => (connection, AfterRead::Closed),
            None => (connection, AfterRead::Nothing),
        };
        let Client { reader, writer, .. } = &mut connection.client;
        workspace.buffers.take_back(reader, writer);
        let mut free = self.0.borrow_mut();
        if free.len() < MAX_FREE {
            free.push(workspace);
        }
        (connection, after)
    }
}

impl Workspace {
    fn new(alarms: &Alarms) -> Self {
        let job = Rc::default();
        Self {
            work: Box::pin(work(Rc::clone(&job), alarms.clone())),
            job,
            buffers: BufferSet::default(),
        }
    }

    #[inline]
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Connection>, AfterRead)> {
        let Poll::Pending = clock::with_cached_now(|| self.work.as_mut().poll(cx));
        match self.job.take() {
            Job::Done(connection, after) => Poll::Ready((connection, after)),
            Job::Empty => Poll::Pending,
            Job::Waiting(_) => unreachable!("the work takes what it is polled with"),
        }
    }
}

async fn work(job: Rc<Cell<Job>>, alarms: Alarms) -> Infallible {
    let mut tools = Tools::new(&alarms);
    let mut room = HeadRoom::default();
    loop {
        let mut connection = poll_fn(|_| match job.take() {
            Job::Waiting(connection) => Poll::Ready(connection),
            // `poll_done`, which has polled, looks into the job slot next.
            other => {
                job.set(other);
                Poll::Pending
            }
        })
        .await;
        let after = connection.requests(&mut tools, &mut room).await;
        job.set(Job::Done(connection, after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::alarm;

    /// Most bytes of the future: an idle workspace keeps it, and docs/MEMORY.md counts with it.
    const MOST_BYTES: usize = 4 * 1024 + 512;

    #[test]
    fn the_future_of_a_workspace_stays_small() {
        let future = work(Rc::default(), Alarms::new(alarm::FINE));
        let bytes = size_of_val(&future);
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    }
}
