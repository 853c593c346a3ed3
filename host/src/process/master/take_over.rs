//! Start of a master in the place of another, which hands everything over to it.

use std::os::fd::RawFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::rc::Rc;

use tokio::task::spawn_local;

use crate::config::Config;
use crate::log;
use crate::process::flights::SharedFlights;
use crate::process::instance_lock::InstanceLock;
use crate::process::metrics::Ledger;
use crate::process::notify;
use crate::process::report::Reloaded;
use crate::process::rows::Rows;
use crate::process::signals::Signals;
use crate::process::sockets::{HeldSocket, SocketTable};
use crate::process::upgrade::{Inheritance, Predecessor, Serving, TakeOver};
use crate::process::upstreams::Upstreams;
use crate::process::zone_store::ZoneStore;
use crate::process::zones;

use super::reload::Built;
use super::start::{in_event_loop, listen_for_signals, own_binary, raise_open_files};
use super::state::Active;
use super::{Master, load, placed};
use crate::transport::tls::TicketChain;
use std::time::SystemTime;

/// Runs the gateway in the place of the master behind this channel, once that has handed over. Fails with lines for a
/// person when it cannot, and with no lines when the other master has been told them.
pub fn take_over(channel: RawFd, config_path: &Path) -> Result<(), Vec<String>> {
    in_event_loop(inherit(channel, config_path))
}

async fn inherit(channel: RawFd, config_path: &Path) -> Result<(), Vec<String>> {
    let mut signals = listen_for_signals()?;
    raise_open_files();
    // The other master has been told why.
    let (mut link, inheritance) = TakeOver::begin(channel).await.map_err(|_| Vec::new())?;
    let version = inheritance.version.clone();
    let Newcomer {
        master,
        config,
        left_files,
    } = match Newcomer::prepare(inheritance, config_path) {
        Ok(newcomer) => newcomer,
        Err(errors) => return refuse(link, errors).await,
    };
    let built = match master.build_for(config, &mut link, &mut signals).await {
        Ok(built) => built,
        Err(Failure::Own(errors)) => return refuse(link, errors).await,
        Err(Failure::Link(error)) => return Err(vec![error]),
    };
    let (predecessor, listener) = master.serve_in_place(built, link).await?;
    if let Some(active) = master.state.borrow_mut().active_mut() {
        active.lock.set_owner(true);
    }
    // Files that the config has no listener for go with the last of these sockets.
    left_files.into_iter().for_each(|held| held.own());
    tracing::info!(from = predecessor.pid, version, "gateway taken over");
    master.follow(predecessor);
    master
        .answer_commands(listener)
        .map_err(|error| vec![error])?;
    notify::ready(&master.summary());
    master.govern(signals).await;
    Ok(())
}

/// Leaves the gateway to the other master, which tells who asked.
async fn refuse(mut link: TakeOver, errors: Vec<String>) -> Result<(), Vec<String>> {
    link.refuse(errors).await;
    Err(Vec::new())
}

/// A master that has everything that another hands over, and owns none of it before that one lets go.
struct Newcomer {
    master: Rc<Master>,
    config: Config,
    /// Sockets whose files are the other master's until it lets go.
    left_files: Vec<Rc<HeldSocket>>,
}

/// Reason why a take-over ends before it serves.
enum Failure {
    /// Reason for the other master, in lines for a person.
    Own(Vec<String>),
    /// The other master has given this one up or has ended.
    Link(String),
}

impl Newcomer {
    fn prepare(inheritance: Inheritance, config_path: &Path) -> Result<Self, Vec<String>> {
        let config = load(config_path)?;
        log::init(&config.log, config.workers.user.as_ref()).map_err(|error| vec![error])?;
        let Inheritance {
            paths, started_at, ..
        } = inheritance;
        paths.warn_of_others(&config);
        let pid_file = paths.pid_file.as_ref();
        let lock = InstanceLock::inherit(
            inheritance.instance_lock,
            placed(&paths.control, Some(&config.master.control)),
            pid_file.map(|path| placed(path, config.master.pid_file.as_ref())),
        );
        let lock = lock.map_err(|error| vec![error])?;
        let sockets = SocketTable::adopt(inheritance.sockets);
        let left_files = sockets.leave_files();
        let store = inheritance
            .zone_store
            .map(|store| ZoneStore::inherit(&paths.zone_store, store));
        let store = store.transpose().map_err(|error| vec![error])?;
        let zones = zones::inherit(inheritance.zones);
        let active = Active::new(lock, sockets, zones);
        // A master of a version without TLS hands none over.
        let chain = inheritance
            .ticket_chain
            .map_or_else(|| TicketChain::new(SystemTime::now()), Ok);
        let chain = chain.map_err(|error| vec![format!("secrets of session tickets: {error}")])?;
        let upstreams = Upstreams::inherit(inheritance.peers).map_err(|error| vec![error])?;
        let flights = SharedFlights::inherit(inheritance.flights).map_err(|error| vec![error])?;
        let rows = Rows::new(Rc::clone(upstreams.zone()), flights, inheritance.rows);
        let binary = own_binary();
        let mut master = Master::new(config_path, binary, paths, active, chain, upstreams, rows);
        master.started_at = started_at;
        let up = started_at.elapsed().unwrap_or_default();
        master.started = master.started.checked_sub(up).unwrap_or(master.started);
        master.last_generation.set(inheritance.last_generation);
        let memory = master.memory.get_mut();
        memory.zone_store = store;
        memory.metrics = inheritance
            .metrics
            .and_then(|metrics| Ledger::inherit(metrics, started_at));
        Ok(Self {
            master: Rc::new(master),
            config,
            left_files,
        })
    }
}

impl Master {
    /// Builds the first generation and waits for the other master's word to serve.
    async fn build_for(
        &self,
        config: Config,
        link: &mut TakeOver,
        signals: &mut Signals,
    ) -> Result<Built, Failure> {
        let stopped = |signal| Failure::Own(vec![format!("stopped by {signal} before it served")]);
        let built = tokio::select! {
            built = self.build(config) => built.map_err(Failure::Own)?,
            reason = link.given_up() => return Err(Failure::Link(reason)),
            signal = signals.ends() => return Err(stopped(signal)),
        };
        tokio::select! {
            committed = link.ready() => committed.map_err(Failure::Link)?,
            signal = signals.ends() => return Err(stopped(signal)),
        }
        Ok(built)
    }

    /// Serves, takes the control socket's and the pid file's place, and returns when the other master has let go of everything.
    /// When one of these fails, the workers finish what they have accepted.
    async fn serve_in_place(
        &self,
        built: Built,
        mut link: TakeOver,
    ) -> Result<(Rc<Predecessor>, StdUnixListener), Vec<String>> {
        let (serves, listener) = match self.put_up(built).await {
            Ok(put_up) => put_up,
            Err(errors) => {
                self.leave_active();
                link.refuse(errors).await;
                self.workers_ended().await;
                return Err(Vec::new());
            }
        };
        let serving = Serving {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            generation: serves.generation,
            workers: serves.workers,
        };
        match link.serving(serving).await {
            Ok(predecessor) => Ok((predecessor, listener)),
            Err(error) => {
                self.leave_active();
                self.workers_ended().await;
                Err(vec![error])
            }
        }
    }

    async fn put_up(&self, built: Built) -> Result<(Reloaded, StdUnixListener), Vec<String>> {
        let serves = self.put_to_work(built).await?;
        let state = self.state.borrow();
        let active = state
            .active()
            .ok_or_else(|| vec!["another master has taken over".to_owned()])?;
        let listener = active.lock.put_up_files().map_err(|error| vec![error])?;
        Ok((serves, listener))
    }

    /// Remembers the master that handed over, until that and those before it have ended, with their workers.
    fn follow(self: &Rc<Self>, predecessor: Rc<Predecessor>) {
        self.predecessor.replace(Some(Rc::clone(&predecessor)));
        let master = Rc::clone(self);
        spawn_local(async move {
            predecessor.ended().await;
            if !predecessor.ended_in_order() {
                let within = master.orphans_end_within();
                tracing::warn!(
                    pid = predecessor.pid,
                    ?within,
                    "the master before this one was killed; its workers finish and end"
                );
                tokio::time::sleep(within).await;
            }
            master.is_alone();
        });
    }
}
