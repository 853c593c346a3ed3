//! Upgrade: a master hands over to another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::process::control::{self, Reply, Request};
use crate::process::generation::Generation;
use crate::process::notify;
use crate::process::orders::{UpgradeOrder, UpgradeWaiter};
use crate::process::report::{Reloaded, Upgraded};
use crate::process::sockets::SocketTable;
use crate::process::upgrade::{Described, FORMAT, FromNew, Offer, Successor, hand_over};
use crate::process::zones::SharedZone;

use super::Master;
use super::state::{Active, Current, HandedOver, MasterState};

/// Time that a worker takes to notice its master's death and to end, beyond the time for its requests.
const ORPHANS_GRACE: Duration = Duration::from_secs(5);

/// Time within which a new master must serve, by default: all plugins may have to be compiled again, for another version.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(120);

impl Master {
    /// Starts a new master and hands everything to it. A reload that runs comes first; a second upgrade at the same time
    /// is refused.
    pub fn upgrade(self: &Rc<Self>, order: UpgradeOrder, waiter: Option<UpgradeWaiter>) {
        if let Some(refusal) = self.no_upgrade() {
            tracing::warn!("upgrade refused: {refusal}");
            tell(waiter, Err(vec![refusal]));
            return;
        }
        let master = Rc::clone(self);
        let task = spawn_local(async move {
            let result = master.run_upgrade(order).await;
            master.tasks.borrow_mut().upgrade = None;
            if let Err(errors) = &result {
                for error in errors {
                    tracing::error!("upgrade refused: {error}");
                }
            }
            tell(waiter, result);
        });
        self.tasks.borrow_mut().upgrade = Some(task.abort_handle());
    }

    /// The reason why no upgrade can begin now, in a line for a person.
    fn no_upgrade(&self) -> Option<String> {
        let reason = match &*self.state.borrow() {
            MasterState::HandedOver(HandedOver { successor, .. }) => {
                return Some(format!(
                    "another master has taken over already (pid {successor})"
                ));
            }
            MasterState::Stopping { .. } | MasterState::Ended => "the gateway is stopping",
            MasterState::Active(_) if self.tasks.borrow().upgrade.is_some() => {
                "another upgrade is under way"
            }
            // The system ends all processes of a pid namespace with its first.
            MasterState::Active(_) if std::process::id() == 1 => {
                "the master is process 1: all that it has started, a new master too, would end with it; \
                 run it under an init process, such as `docker run --init`"
            }
            MasterState::Active(_) => return None,
        };
        Some(reason.to_owned())
    }

    /// Path of the control socket, which is the other master's once that has taken over; None before.
    pub fn successors_control(&self) -> Option<PathBuf> {
        self.successor().map(|_| self.paths.control.clone())
    }

    /// Passes a reload on that was asked for while an upgrade ran.
    pub(super) async fn reload_successor(&self) -> Result<Reloaded, Vec<String>> {
        match control::ask(&self.paths.control, Request::Reload, |_| {}).await {
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
        let was_serving = self.serving();
        let is_done = self.let_go(serving.pid);
        if let Err(error) = successor.take_all().await {
            // The new master was killed just now. There is no going back: its workers accept, and ours do not any more.
            tracing::error!(%error, "the new master ended as it took over");
        }
        spawn_local(Rc::clone(self).attend(successor, is_done));
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

    /// Collects everything that a new master gets, and says what it is.
    fn offer(&self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let (described, descriptors) = self.descriptors()?.into_iter().unzip();
        let offer = Offer {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            descriptors: described,
            places: self.paths.clone(),
            last_generation: self.last_generation.get(),
            started_at: self.started_at,
            rows: self.rows.offer(),
            peers: Some(self.upstreams.offer()),
            ticket_chain: Some(self.ticket_chain()),
        };
        Ok((offer, descriptors))
    }

    /// Descriptors of what outlives generations, with what each is.
    fn descriptors(&self) -> io::Result<Vec<(Described, OwnedFd)>> {
        let mut descriptors = Vec::new();
        let mut hand = |what: Described, descriptor: OwnedFd| descriptors.push((what, descriptor));
        let state = self.state.borrow();
        let active = state
            .active()
            .ok_or_else(|| io::Error::other("the gateway is stopping"))?;
        let memory = self.memory.borrow();
        hand(
            Described::InstanceLock,
            active.lock.descriptor().try_clone_to_owned()?,
        );
        if let Some(store) = &memory.zone_store {
            hand(Described::ZoneStore, store.descriptor()?);
        }
        let zones = active.current.with_zones(Clone::clone);
        if !zones.is_empty() {
            let flights = self.rows.flights.descriptors()?;
            hand(Described::Flights, flights.zone);
            hand(Described::Bell, flights.bell);
            hand(Described::TopicBell, flights.topics);
        }
        for (name, zone) in zones {
            // A kv zone goes with its store.
            let Some((what, descriptor)) = in_memory(name, &zone) else {
                continue;
            };
            hand(what, descriptor.try_clone_to_owned()?);
        }
        hand(
            Described::Peers,
            self.upstreams.descriptor().try_clone_to_owned()?,
        );
        if let Some(metrics) = &memory.metrics {
            hand(
                Described::Metrics {
                    max_series: metrics.max_series(),
                },
                metrics.descriptor().try_clone_to_owned()?,
            );
        }
        for (bind, held) in active.sockets.held() {
            let what = Described::Listener {
                bind: bind.clone(),
                owns_file: held.owns_file(),
            };
            hand(what, held.try_clone()?);
        }
        Ok(descriptors)
    }

    /// Takes everything back after a hand-over of which nothing came: all is this master's, as it was.
    fn stay(self: &Rc<Self>, committed: bool) {
        let metrics = self.memory.borrow().metrics.clone();
        if let Some(metrics) = &metrics {
            metrics.keep(self.last_generation.get());
        }
        self.upstreams.keep();
        let rows = Rc::clone(&self.rows);
        let of_newcomer = rows.keep(metrics.as_ref());
        let forget = move || rows.forget(&of_newcomer, metrics.as_ref());
        self.lend_zones_again();
        if !committed {
            forget();
            self.clean_zone_store();
            return;
        }
        // Workers of the new master may have accepted connections, and finish what they have.
        let master = Rc::clone(self);
        let longest = self.orphans_end_within();
        spawn_local(async move {
            tokio::time::sleep(longest).await;
            forget();
            // The turn keeps this from a time when another new master opens zones; and they may be its own by now.
            let _turn = master.changes.lock().await;
            if master.successor().is_none() {
                master.clean_zone_store();
            }
        });
        self.take_files_back();
    }

    /// Puts the control socket and the pid file back where the new master may have put its own.
    fn take_files_back(self: &Rc<Self>) {
        let (control, pid_file) = match self.state.borrow().active() {
            Some(Active { lock, .. }) => {
                let control = match lock.has_control() {
                    true => Ok(None),
                    false => lock.put_up_control().map(Some),
                };
                (control, lock.put_up_pid_file())
            }
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

    /// Time that workers go on whose master was killed: as long as its config said, which was this one's or much like it.
    pub(super) fn orphans_end_within(&self) -> Duration {
        let timeout = |generation: Rc<Generation>| generation.config.workers.drain_timeout;
        let longest = self.generations().into_iter().map(timeout).max();
        longest.unwrap_or_default() + ORPHANS_GRACE
    }

    /// Goes from `Active` to `HandedOver`: all is the other master's. Returns what tells when this one is about to end.
    fn let_go(&self, pid: u32) -> watch::Receiver<Option<bool>> {
        self.acme.hand_over();
        self.upstreams.end();
        let (is_done, done) = watch::channel(None);
        let left = self.state.borrow_mut().leave_active(|mut lock| {
            lock.set_owner(false);
            MasterState::HandedOver(HandedOver {
                successor: pid,
                is_done,
            })
        });
        // There is no way back any more: a stop ends what drains, not the upgrade.
        self.tasks.borrow_mut().upgrade = None;
        notify::main_pid(pid);
        // Before the zones: those that are dropped afterwards leave their folders to the other master.
        let memory = self.memory.borrow();
        if let Some(store) = &memory.zone_store {
            store.let_go();
        }
        if let Some(metrics) = &memory.metrics {
            metrics.let_go();
        }
        self.active_ended.notify_one();
        let (sockets, current) = left.unzip();
        for (_, held) in sockets.iter().flat_map(SocketTable::held) {
            held.disown();
        }
        self.retire(current.and_then(Current::into_generation));
        done
    }

    /// Answers the new master while this one drains.
    async fn attend(
        self: Rc<Self>,
        mut successor: Successor,
        mut is_done: watch::Receiver<Option<bool>>,
    ) {
        let pending_command = self.pending_command();
        loop {
            let message = tokio::select! {
                message = successor.next() => message,
                in_order = is_done.wait_for(Option::is_some) => {
                    if in_order.is_ok_and(|in_order| *in_order == Some(true)) {
                        // A successor that is gone does not hear it.
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
                    // A successor that is gone does not hear it.
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

/// Description and memory of a zone; `None`: it is no memory file.
fn in_memory(name: String, zone: &SharedZone) -> Option<(Described, BorrowedFd<'_>)> {
    Some(match zone {
        SharedZone::Counter(zone) => {
            let size_bytes = zone.size_bytes();
            (
                Described::CounterZone { name, size_bytes },
                zone.descriptor(),
            )
        }
        SharedZone::Gauge(zone) => {
            let size_bytes = zone.size_bytes();
            (Described::GaugeZone { name, size_bytes }, zone.descriptor())
        }
        SharedZone::Topic(zone) => {
            let size_bytes = zone.size_bytes();
            (Described::TopicZone { name, size_bytes }, zone.descriptor())
        }
        SharedZone::Kv(_) => return None,
    })
}

fn tell(waiter: Option<UpgradeWaiter>, result: Result<Upgraded, Vec<String>>) {
    if let Some(waiter) = waiter {
        // A waiter may have left.
        let _ = waiter.send(result);
    }
}
