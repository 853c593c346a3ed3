//! Desks: the large part of what a request needs, lent to connections while they have one.
//!
//! The future of a request takes some KiB, its buffers and its exchange as much again. An idle connection that kept them
//! would cost five times what it does (`docs/MEMORY.md`). So they are at a desk, which serves one connection after the other,
//! is taken by one that has a request, and stays with it until it is idle again. The desk left last is taken first: it is
//! still in the processor's cache, and no request allocates one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::alarm::Alarms;
use crate::flow::{Client, Tools};
use crate::http1::HeadRoom;
use crate::socket::{HEAD_ROOM_BYTES, Spare};
use crate::turn;
use crate::worker::Worker;

use super::{After, Connection};

/// The desks of a listener's connections in this worker.
#[derive(Default)]
pub struct Desks(RefCell<Vec<Desk>>);

/// Free desks beyond this many are given back, so that a burst is forgotten.
const FREE_AT_MOST: usize = 128;

struct Desk {
    tray: Rc<Cell<Tray>>,
    /// Takes connections from the tray and lays them back, for ever.
    work: Pin<Box<dyn Future<Output = Infallible>>>,
    spare: Spare,
}

#[derive(Default)]
enum Tray {
    #[default]
    Empty,
    ToDo(Box<Connection>),
    Done(Box<Connection>, After),
}

impl Desks {
    /// Serves the requests of a connection on which something has come, if it has. Cancelled, it drops the connection.
    pub(super) async fn serve(&self, mut connection: Box<Connection>) -> (Box<Connection>, After) {
        let free = self.0.borrow_mut().pop();
        let mut desk = free.unwrap_or_else(|| Desk::new(&connection.worker));
        let Client { reader, writer, .. } = &mut connection.client;
        desk.spare.lend(reader, writer);
        let (mut connection, after) = match reader.fill_now(HEAD_ROOM_BYTES) {
            Some(Ok(1..)) => {
                desk.tray.set(Tray::ToDo(connection));
                poll_fn(|cx| desk.poll_done(cx)).await
            }
            Some(Ok(0) | Err(_)) => (connection, After::Closed),
            None => (connection, After::Nothing),
        };
        let Client { reader, writer, .. } = &mut connection.client;
        desk.spare.take_back(reader, writer);
        let mut free = self.0.borrow_mut();
        if free.len() < FREE_AT_MOST {
            free.push(desk);
        }
        (connection, after)
    }
}

impl Desk {
    fn new(worker: &Worker) -> Self {
        let tray = Rc::default();
        Self {
            work: Box::pin(work(Rc::clone(&tray), worker.alarms().clone())),
            tray,
            spare: Spare::default(),
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Connection>, After)> {
        let Poll::Pending = turn::take(|| self.work.as_mut().poll(cx));
        match self.tray.take() {
            Tray::Done(connection, after) => Poll::Ready((connection, after)),
            Tray::Empty => Poll::Pending,
            Tray::ToDo(_) => unreachable!("the work takes what it is polled with"),
        }
    }
}

async fn work(tray: Rc<Cell<Tray>>, alarms: Alarms) -> Infallible {
    let mut tools = Tools::new(&alarms);
    let mut room = HeadRoom::default();
    loop {
        let mut connection = poll_fn(|_| match tray.take() {
            Tray::ToDo(connection) => Poll::Ready(connection),
            // Who has polled looks into the tray next.
            other => {
                tray.set(other);
                Poll::Pending
            }
        })
        .await;
        let after = connection.requests(&mut tools, &mut room).await;
        tray.set(Tray::Done(connection, after));
    }
}
