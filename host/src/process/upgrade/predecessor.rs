//! The new master's tie to the old one, which drains.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use crate::process::channel::{FrameReader, write_frame};
use crate::process::report::MasterStatus;

use super::message::{FRAME_LIMIT_BYTES, FromNew, FromOld};

/// An old master, and through it those before it, until all have ended.
pub struct Predecessor {
    pub pid: u32,
    orders: mpsc::UnboundedSender<FromNew>,
    waiters: Waiters,
    ended: watch::Receiver<bool>,
    in_order: Rc<Cell<bool>>,
}

type Waiters = Rc<RefCell<Vec<oneshot::Sender<MasterStatus>>>>;

impl Predecessor {
    /// Must be called in a `LocalSet`.
    pub(super) fn new(
        pid: u32,
        inbox: FrameReader<OwnedReadHalf, FromOld>,
        outbox: OwnedWriteHalf,
    ) -> Rc<Self> {
        let (orders, pending_orders) = mpsc::unbounded_channel();
        let (ended_sender, ended) = watch::channel(false);
        let waiters = Waiters::default();
        spawn_local(write_orders(outbox, pending_orders));
        let in_order = Rc::<Cell<bool>>::default();
        let heard_end = Rc::clone(&in_order);
        spawn_local(listen(inbox, Rc::clone(&waiters), heard_end, ended_sender));
        Rc::new(Self {
            pid,
            orders,
            waiters,
            ended,
            in_order,
        })
    }

    /// Status of the old master, with that of those before it; `None` when it does not answer in time, or not as this version
    /// does.
    pub async fn status(&self) -> Option<MasterStatus> {
        if self.has_ended() {
            return None;
        }
        let (waiter, answer) = oneshot::channel();
        self.waiters.borrow_mut().push(waiter);
        self.tell(FromNew::StatusRequest);
        tokio::time::timeout(STATUS_TIMEOUT, answer)
            .await
            .ok()?
            .ok()
    }

    /// Has the old master end; not `fast` changes nothing, since it drains already.
    pub fn stop(&self, fast: bool) {
        self.tell(FromNew::Stop { fast });
    }

    /// Has the old master's workers open their log files again.
    pub fn reopen_logs(&self) {
        self.tell(FromNew::ReopenLogs);
    }

    /// Whether the old master has ended, and those before it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Whether its workers ended before it did, once it has ended: the workers of a master that was killed finish what they have.
    pub fn ended_in_order(&self) -> bool {
        self.in_order.get()
    }

    /// Waits until the old master has ended, and those before it.
    pub async fn ended(&self) {
        // A sender that is gone has sent it.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    fn tell(&self, message: FromNew) {
        // The writer is gone only when the old master is.
        let _ = self.orders.send(message);
    }
}

/// Time for a status. The old master's workers have a second, and so has its own predecessor.
const STATUS_TIMEOUT: Duration = Duration::from_millis(2500);

async fn write_orders(mut outbox: OwnedWriteHalf, mut orders: mpsc::UnboundedReceiver<FromNew>) {
    while let Some(order) = orders.recv().await {
        if let Err(error) = write_frame(&mut outbox, &order, FRAME_LIMIT_BYTES).await {
            tracing::debug!(%error, "the old master does not listen");
            return;
        }
    }
}

async fn listen(
    mut inbox: FrameReader<OwnedReadHalf, FromOld>,
    waiters: Waiters,
    in_order: Rc<Cell<bool>>,
    ended: watch::Sender<bool>,
) {
    loop {
        match inbox.next().await {
            Ok(Some(FromOld::Status(status))) => {
                let waiters = waiters.take();
                match serde_json::from_value::<MasterStatus>(status) {
                    Ok(status) => {
                        for waiter in waiters {
                            // A waiter may have given up.
                            let _ = waiter.send(status.clone());
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the old master's status is of another version");
                    }
                }
            }
            Ok(Some(FromOld::Ended)) => in_order.set(true),
            Ok(Some(FromOld::Offer(_) | FromOld::Commit | FromOld::Yours)) => {}
            // The channel closes with the old master's process.
            Ok(None) | Err(_) => break,
        }
    }
    waiters.borrow_mut().clear();
    ended.send_replace(true);
}
