//! Orders to the master, by whatever way they come: the control socket, a signal, another master.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::report::{Reloaded, Upgraded};

/// Replacement of the master by another process.
#[derive(Clone, Debug, Default)]
pub struct UpgradeOrder {
    /// Binary of the new master. Default: the file that this master was started from.
    pub binary: Option<PathBuf>,
    /// Time within which the new master must serve. Default 2 minutes.
    pub timeout: Option<Duration>,
}

/// Sender to the peer that asked for an upgrade and waits for its result. The error is lines for a person.
pub type UpgradeWaiter = oneshot::Sender<Result<Upgraded, Vec<String>>>;

/// Sender to the peer that asked for a reload and waits for its result. A signal does not wait.
pub struct ReloadWaiter(pub mpsc::UnboundedSender<ReloadProgress>);

/// News of a reload.
pub enum ReloadProgress {
    /// The reload waits, for the reason in this line for a person. Other news follow.
    Waits(String),
    /// The reload is over. The error is lines for a person.
    Ended(Result<Reloaded, Vec<String>>),
}

impl ReloadWaiter {
    /// Sends the news. A waiter that has left does not get them.
    pub fn tell(&self, news: ReloadProgress) {
        // Only a waiter that has left closes its receiver.
        let _ = self.0.send(news);
    }
}

/// Count of the orders that are not answered yet.
#[derive(Default)]
pub struct PendingCommands(watch::Sender<usize>);

impl PendingCommands {
    /// Counts one more, until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> PendingCommand {
        self.0.send_modify(|count| *count += 1);
        PendingCommand(Rc::clone(self))
    }

    /// Waits until all are answered.
    pub async fn answered(&self) {
        // The sender is this struct's, so the wait ends by the count only.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Order that is not answered yet. A master that has handed over does not end before it is dropped, within a limit.
pub struct PendingCommand(Rc<PendingCommands>);

impl Drop for PendingCommand {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
