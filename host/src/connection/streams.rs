//! Tasks of streams: each serves one stream after the other, of whichever connection.
//!
//! What a request needs beyond its stream (an exchange, alarms, the future that serves it) is the task's own and is used again,
//! so that a stream costs one wake-up, and no task and no allocation of these once there are enough.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Serving;
use crate::flow::{self, StreamClient, Tools};
use crate::http2::ServerStream;
use crate::message::HeadRoom;
use crate::runtime::alarm::Alarms;
use crate::runtime::clock;

/// Stream that is to be served, and by what.
pub struct StreamJob {
    pub stream: Box<ServerStream>,
    pub client: Rc<StreamClient>,
    pub serving: Rc<Serving>,
}

/// The tasks of a worker's streams.
pub struct StreamPool(Rc<Seats>);

struct Seats {
    free: RefCell<Vec<Rc<Seat>>>,
    taken: Cell<usize>,
    alarms: Alarms,
}

/// Where a task waits for its next stream.
#[derive(Default)]
struct Seat {
    job: Cell<Option<StreamJob>>,
    waker: Cell<Option<Waker>>,
}

/// Streams that a worker serves at a time; more are refused (REFUSED_STREAM), and their clients may try again.
const MAX_STREAMS: usize = 16_384;

/// Tasks that wait beyond this many end, so that a burst is forgotten.
const MAX_FREE: usize = 128;

impl StreamPool {
    pub fn new(alarms: &Alarms) -> Self {
        Self(Rc::new(Seats {
            free: RefCell::default(),
            taken: Cell::new(0),
            alarms: alarms.clone(),
        }))
    }

    /// Has a task serve the stream.
    pub(super) fn dispatch(&self, mut job: StreamJob) {
        let seats = &self.0;
        let taken = seats.taken.get();
        if taken >= MAX_STREAMS {
            job.stream.refuse();
            return;
        }
        seats.taken.set(taken + 1);
        let Some(seat) = seats.free.borrow_mut().pop() else {
            let seat = Rc::new(Seat::default());
            seat.job.set(Some(job));
            let work = Box::pin(work(Rc::clone(&seat), Rc::clone(seats)));
            tokio::task::spawn_local(CachedTime(work));
            return;
        };
        seat.job.set(Some(job));
        if let Some(waker) = seat.waker.take() {
            waker.wake();
        }
    }
}

/// Reads the clock once for all that a task does between two waits.
struct CachedTime<F>(Pin<Box<F>>);

impl<F: Future> Future for CachedTime<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        clock::with_cached_now(|| self.0.as_mut().poll(cx))
    }
}

/// A stream that is served; counted until this is dropped, also by a panic.
struct Taken<'a>(&'a Seats);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
    }
}

async fn work(seat: Rc<Seat>, seats: Rc<Seats>) {
    let mut tools = Tools::new(&seats.alarms);
    let mut room = HeadRoom::default();
    loop {
        let job = poll_fn(|cx| match seat.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                seat.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
        {
            let _taken = Taken(&seats);
            serve(job, &mut tools, &mut room).await;
        }
        let mut free = seats.free.borrow_mut();
        if free.len() >= MAX_FREE {
            return;
        }
        free.push(Rc::clone(&seat));
    }
}

async fn serve(job: StreamJob, tools: &mut Tools, room: &mut HeadRoom) {
    let StreamJob {
        stream,
        client,
        serving,
    } = job;
    let Serving {
        service, worker, ..
    } = &*serving;
    let _in_use = worker.heap_trim.count_workspace();
    let _under_way = worker.count_request();
    flow::run_stream(stream, &client, tools, room, service, worker).await;
    *room = tools.exchange.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::alarm;

    /// Most bytes of the future: see the one of HTTP/1's workspaces.
    const MOST_BYTES: usize = 5 * 1024;

    #[test]
    fn the_future_of_a_stream_stays_small() {
        let seats = Rc::clone(&StreamPool::new(&Alarms::new(alarm::FINE)).0);
        let bytes = size_of_val(&work(Rc::default(), seats));
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    }
}
