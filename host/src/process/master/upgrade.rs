//! A master hands over to another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::process::control::{self, Reply, Request};
use crate::process::generation::Generation;
use crate::process::notify;
use crate::process::report::{Reloaded, Upgraded};
use crate::process::upgrade::{Described, FORMAT, FromNew, Offer, Successor, hand_over};
use crate::process::zones::SharedZone;

use super::Master;

/// How a master is to be replaced.
#[derive(Clone, Debug, Default)]
pub struct UpgradeOrder {
    /// Default: what this master was started from.
    pub binary: Option<PathBuf>,
    /// The new master must serve by then. Default [`UPGRADE_TIMEOUT`].
    pub timeout: Option<Duration>,
}

/// Who asked for an upgrade and waits for its result. A signal does not wait.
pub type UpgradeWaiter = oneshot::Sender<Result<Upgraded, Vec<String>>>;

/// What a worker takes to notice and to end, beyond the time for its requests.
const ORPHANS_GRACE: Duration = Duration::from_secs(5);

/// All plugins may have to be compiled again, for another version.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(120);

impl Master {
    /// Starts a new master and hands everything to it. A reload that runs comes first; a second upgrade at the same time
    /// is refused.
    pub fn upgrade(self: &Rc<Self>, order: UpgradeOrder, waiter: Option<UpgradeWaiter>) {
        let refusal = match self.successor.get() {
            Some(pid) => Some(format!("another master has taken over already (pid {pid})")),
            None if self.upgrade_task.borrow().is_some() => {
                Some("another upgrade is under way".to_owned())
            }
            None if *self.stopping.borrow() => Some("the gateway is stopping".to_owned()),
            // The system ends all processes of a pid namespace with its first.
            None if std::process::id() == 1 => Some(
                "the master is process 1: all that it has started, a new master too, would end with it; \
                 run it under an init process, such as `docker run --init`"
                    .to_owned(),
            ),
            None => None,
        };
        if let Some(refusal) = refusal {
            tracing::warn!("upgrade refused: {refusal}");
            tell(waiter, Err(vec![refusal]));
            return;
        }
        let master = Rc::clone(self);
        let task = spawn_local(async move {
            let result = master.run_upgrade(order).await;
            master.upgrade_task.take();
            if let Err(errors) = &result {
                for error in errors {
                    tracing::error!("upgrade refused: {error}");
                }
            }
            tell(waiter, result);
        });
        self.upgrade_task.replace(Some(task.abort_handle()));
    }

    /// The control socket of the master that has taken over.
    pub fn successors_control(&self) -> Option<PathBuf> {
        self.successor.get().map(|_| self.places.control.clone())
    }

    /// A reload that was asked for while an upgrade ran.
    pub(super) async fn reload_successor(&self) -> Result<Reloaded, Vec<String>> {
        match control::ask(&self.places.control, Request::Reload, |_| {}).await {
            Ok(Reply::Reloaded(reloaded)) => Ok(reloaded),
            Ok(Reply::Refused(errors)) => Err(errors),
            Ok(_) => Err(vec!["the new master answers another question".to_owned()]),
            Err(error) => Err(vec![error]),
        }
    }

    async fn run_upgrade(self: &Rc<Self>, order: UpgradeOrder) -> Result<Upgraded, Vec<String>> {
        let _turn = self.changes.lock().await;
        let begun = Instant::now();
        let binary = order.binary.unwrap_or_else(|| self.binary.clone());
        let limit = order.timeout.unwrap_or(UPGRADE_TIMEOUT);
        tracing::info!(binary = %binary.display(), "upgrade begins");
        let (offer, owned) = self
            .offer()
            .map_err(|error| vec![format!("the hand-over cannot be made: {error}")])?;
        let lent: Vec<_> = owned.iter().map(AsFd::as_fd).collect();
        let handed_over = hand_over(&binary, &self.config_path, &offer, &lent, limit).await;
        drop(lent);
        drop(owned);
        let mut successor = match handed_over {
            Ok(successor) => successor,
            Err(failed) => {
                self.stay(failed.committed);
                return Err(failed.reasons);
            }
        };
        let serving = successor.serving.clone();
        let was_serving = self.serving.borrow().clone();
        self.let_go(serving.pid);
        if let Err(error) = successor.take_all().await {
            // It was killed just now. There is no going back: its workers accept, and ours do not any more.
            tracing::error!(%error, "the new master ended as it took over");
        }
        spawn_local(Rc::clone(self).attend(successor));
        if let Some(was_serving) = was_serving {
            was_serving.accepts_no_more().await;
        }
        tracing::info!(
            pid = serving.pid,
            version = serving.version,
            generation = serving.generation,
            took = ?begun.elapsed(),
            "another master has taken over; this one drains"
        );
        Ok(Upgraded {
            pid: serving.pid,
            version: serving.version,
            generation: serving.generation,
            workers: serving.workers,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Everything that a new master gets, and what it is.
    fn offer(&self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let mut described = Vec::new();
        let mut descriptors = Vec::new();
        let mut hand = |what: Described, descriptor: OwnedFd| {
            described.push(what);
            descriptors.push(descriptor);
        };
        if let Some(lock) = &*self.lock.borrow() {
            hand(
                Described::InstanceLock,
                lock.descriptor().try_clone_to_owned()?,
            );
        }
        if let Some(store) = &*self.zone_store.borrow() {
            hand(Described::ZoneStore, store.descriptor()?);
        }
        let zones = match &*self.serving.borrow() {
            Some(generation) => generation.with_zones(Clone::clone),
            None => self.parked_zones.borrow().clone().unwrap_or_default(),
        };
        for (name, zone) in zones {
            if let SharedZone::Counter(zone) = zone {
                let size_bytes = zone.size_bytes();
                hand(
                    Described::CounterZone { name, size_bytes },
                    zone.descriptor().try_clone_to_owned()?,
                );
            }
        }
        let mut metrics_rows = Vec::new();
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics_rows = metrics.offer();
            hand(
                Described::Metrics {
                    max_series: metrics.max_series(),
                },
                metrics.descriptor().try_clone_to_owned()?,
            );
        }
        for (bind, held) in self.sockets.borrow().held() {
            let what = Described::Listener {
                bind: bind.clone(),
                owns_file: held.owns_file(),
            };
            hand(what, held.try_clone()?);
        }
        let offer = Offer {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            descriptors: described,
            places: self.places.clone(),
            last_generation: self.last_generation.get(),
            started_at: self.started_at,
            metrics_rows,
        };
        Ok((offer, descriptors))
    }

    /// Nothing came of the hand-over: all is this master's, as it was.
    fn stay(self: &Rc<Self>, committed: bool) {
        let metrics = self.metrics.borrow().clone();
        let rows = metrics
            .as_ref()
            .map(|metrics| metrics.keep(self.last_generation.get()));
        let forget = move || {
            if let (Some(metrics), Some(rows)) = (metrics, rows) {
                metrics.forget(&rows);
            }
        };
        self.lend_zones_again();
        if !committed {
            forget();
            self.clean_zone_store();
            return;
        }
        // Its workers may have accepted connections, and finish what they have.
        let master = Rc::clone(self);
        let longest = self.orphans_end_within();
        spawn_local(async move {
            tokio::time::sleep(longest).await;
            forget();
            // Not while another new master opens zones, and not once they are its own.
            let _turn = master.changes.lock().await;
            if master.successor.get().is_none() {
                master.clean_zone_store();
            }
        });
        // The other one may have put itself there.
        let (control, pid_file) = match &*self.lock.borrow() {
            Some(lock) if lock.has_control() => (Ok(None), lock.put_up_pid_file()),
            Some(lock) => (lock.put_up_control().map(Some), lock.put_up_pid_file()),
            None => return,
        };
        let control = control.and_then(|taken_back| match taken_back {
            Some(listener) => self.answer_commands(listener),
            None => Ok(()),
        });
        for error in [control, pid_file].into_iter().filter_map(Result::err) {
            tracing::error!("not taken back from the new binary: {error}");
        }
    }

    /// How long workers go on whose master was killed: as long as its config said, which was this one's or much like it.
    pub(super) fn orphans_end_within(&self) -> Duration {
        let timeout = |generation: Rc<Generation>| generation.config.workers.drain_timeout;
        let longest = self.generations().into_iter().map(timeout).max();
        longest.unwrap_or_default() + ORPHANS_GRACE
    }

    /// All is the other master's.
    fn let_go(&self, pid: u32) {
        self.successor.set(Some(pid));
        // There is no way back any more: a stop ends what drains, not the upgrade.
        self.upgrade_task.take();
        notify::main_pid(pid);
        if let Some(mut lock) = self.lock.take() {
            lock.set_owner(false);
        }
        if let Some(store) = &*self.zone_store.borrow() {
            store.let_go();
        }
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.let_go();
        }
        self.stopping.send_replace(true);
        let sockets = self.sockets.take();
        sockets.held().for_each(|(_, held)| held.disown());
        self.drain_workers();
        self.parked_zones.take();
    }

    /// Resolves when this master is about to end, to whether all went in order.
    async fn handover_done(&self) -> bool {
        let mut handover_done = self.handover_done.subscribe();
        // The sender is ours.
        let said = handover_done.wait_for(Option::is_some).await;
        said.is_ok_and(|said| *said == Some(true))
    }

    /// Answers the new master while this one drains.
    async fn attend(self: Rc<Self>, mut successor: Successor) {
        let pending_command = self.pending_command();
        loop {
            let message = tokio::select! {
                message = successor.next() => message,
                in_order = self.handover_done() => {
                    if in_order {
                        // One that is gone does not hear it.
                        let _ = successor.tell_ended().await;
                    }
                    break;
                }
            };
            let Some(message) = message else {
                break;
            };
            match message {
                FromNew::StatusRequest => {
                    let status = match serde_json::to_value(self.status().await) {
                        Ok(status) => status,
                        Err(error) => {
                            tracing::warn!(%error, "the status cannot be written");
                            continue;
                        }
                    };
                    // One that is gone does not hear it.
                    let _ = successor.tell_status(status).await;
                }
                FromNew::Stop { fast } => self.stop(fast),
                FromNew::ReopenLogs => self.reopen_logs(),
                FromNew::Refused(_) | FromNew::Ready | FromNew::Serving(_) => {}
            }
        }
        drop(pending_command);
        successor.ended().await;
    }
}

fn tell(waiter: Option<UpgradeWaiter>, result: Result<Upgraded, Vec<String>>) {
    if let Some(waiter) = waiter {
        // Who asked may have left.
        let _ = waiter.send(result);
    }
}
