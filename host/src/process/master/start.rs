//! How a master begins, by itself or in the place of another, and how it ends.

use std::os::fd::RawFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};

use crate::config::{Config, PlacedPath};
use crate::log;
use crate::process::activation::{self, Activated};
use crate::process::control;
use crate::process::instance_lock::InstanceLock;
use crate::process::metrics::Ledger;
use crate::process::module_store::ModuleStore;
use crate::process::notify;
use crate::process::orphans;
use crate::process::signals::Signals;
use crate::process::sockets::SocketTable;
use crate::process::sys;
use crate::process::upgrade::{Inheritance, Paths, Serving, TakeOver};
use crate::process::zone_store::ZoneStore;
use crate::process::zones;

use super::{Master, STORE_FILES_AT_MOST, load};

/// Runs the gateway until it is told to stop. Fails with lines for a person when it cannot start.
pub fn run(config_path: &Path) -> Result<(), Vec<String>> {
    // Before this process opens anything of its own.
    let activated = activation::descriptors().map_err(|error| vec![error])?;
    let config = load(config_path)?;
    log::init(&config.log, config.workers.user.as_ref()).map_err(|error| vec![error])?;
    raise_open_files();
    in_event_loop(start(config_path, config, activated))
}

/// Runs the gateway in the place of the master behind this channel, once that has handed over. Fails like [`run`], but
/// with no lines when the other master has been told them.
pub fn take_over(channel: RawFd, config_path: &Path) -> Result<(), Vec<String>> {
    in_event_loop(inherit(channel, config_path))
}

fn in_event_loop(life: impl Future<Output = Result<(), Vec<String>>>) -> Result<(), Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| vec![format!("the event loop cannot be started: {error}")])?;
    let result = LocalSet::new().block_on(&runtime, life);
    runtime.shutdown_background();
    result
}

async fn start(
    config_path: &Path,
    config: Config,
    activated: Vec<Activated>,
) -> Result<(), Vec<String>> {
    let mut signals = Signals::listen().map_err(signal_error)?;
    let places = Paths {
        control: config.master.control.path.clone(),
        pid_file: config
            .master
            .pid_file
            .as_ref()
            .map(|pid_file| pid_file.path.clone()),
        zone_store: config.master.zone_store.path.clone(),
    };
    let lock = InstanceLock::take(&config.master.control, config.master.pid_file.as_ref());
    let lock = lock.map_err(|error| vec![error])?;
    let listener = lock.put_up_files().map_err(|error| vec![error])?;
    clean_module_store(&config);
    let activated = activation::sockets_for(&config, activated);
    let sockets = SocketTable::adopt(activated);
    if let Some(pid) = lock.killed_before() {
        orphans::listen_no_more(&config, &sockets, pid).await;
    }

    let master = Rc::new(Master::new(config_path, own_binary(), places, lock));
    master.sockets.replace(sockets);
    tokio::select! {
        started = master.swap(config) => { started?; }
        signal = signals.ends() => {
            tracing::info!(signal, "stopped before it served");
            return Ok(());
        }
    }
    master.clean_zone_store();
    master
        .answer_commands(listener)
        .map_err(|error| vec![error])?;
    notify::ready(&master.state());
    master.govern(signals).await;
    Ok(())
}

async fn inherit(channel: RawFd, config_path: &Path) -> Result<(), Vec<String>> {
    let mut signals = Signals::listen().map_err(signal_error)?;
    raise_open_files();
    // The other master has been told why.
    let (mut link, inheritance) = TakeOver::begin(channel).await.map_err(|_| Vec::new())?;
    let version = inheritance.version.clone();
    let prepared = load(config_path).and_then(|config| {
        log::init(&config.log, config.workers.user.as_ref()).map_err(|error| vec![error])?;
        let master = Master::in_place_of(inheritance, config_path, &config)?;
        let left_files = master.sockets.borrow().leave_files();
        Ok((master, config, left_files))
    });
    let (master, config, left_files) = match prepared {
        Ok(prepared) => prepared,
        Err(errors) => return refuse(link, errors).await,
    };
    let built = tokio::select! {
        built = master.build(config) => built,
        reason = link.given_up() => return Err(vec![reason]),
        signal = signals.ends() => Err(vec![format!("stopped by {signal} before it served")]),
    };
    let built = match built {
        Ok(built) => built,
        Err(errors) => return refuse(link, errors).await,
    };
    tokio::select! {
        committed = link.ready() => committed.map_err(|error| vec![error])?,
        signal = signals.ends() => {
            return refuse(link, vec![format!("stopped by {signal} before it served")]).await;
        }
    }

    let put_up = match master.put_to_work(built).await {
        Ok(serves) => master.put_up_files().map(|listener| (serves, listener)),
        Err(errors) => Err(errors),
    };
    let (serves, listener) = match put_up {
        Ok(put_up) => put_up,
        Err(errors) => {
            // Its workers may have accepted connections by now.
            master.drain_workers();
            let refused = refuse(link, errors).await;
            master.workers_ended().await;
            return refused;
        }
    };
    let serving = Serving {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        generation: serves.generation,
        workers: serves.workers,
    };
    let predecessor = match link.serving(serving).await {
        Ok(predecessor) => predecessor,
        Err(error) => {
            master.drain_workers();
            master.workers_ended().await;
            return Err(vec![error]);
        }
    };
    if let Some(lock) = &mut *master.lock.borrow_mut() {
        lock.set_owner(true);
    }
    // Those that the config has no listener for go with the last of this.
    left_files.into_iter().for_each(|held| held.own());
    tracing::info!(from = predecessor.pid, version, "gateway taken over");
    master.predecessor.replace(Some(Rc::clone(&predecessor)));
    spawn_local({
        let master = Rc::clone(&master);
        async move {
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
        }
    });
    master
        .answer_commands(listener)
        .map_err(|error| vec![error])?;
    notify::ready(&master.state());
    master.govern(signals).await;
    Ok(())
}

/// The other master tells who asked.
async fn refuse(mut link: TakeOver, errors: Vec<String>) -> Result<(), Vec<String>> {
    link.refuse(errors).await;
    Err(Vec::new())
}

impl Master {
    /// A master that has everything that another hands over, and owns none of it before that one lets go.
    fn in_place_of(
        inheritance: Inheritance,
        config_path: &Path,
        config: &Config,
    ) -> Result<Rc<Self>, Vec<String>> {
        let places = inheritance.places;
        places.warn_of_others(config);
        let lock = InstanceLock::inherit(
            inheritance.instance_lock,
            placed(&places.control, Some(&config.master.control)),
            places
                .pid_file
                .as_ref()
                .map(|path| placed(path, config.master.pid_file.as_ref())),
        );
        let lock = lock.map_err(|error| vec![error])?;
        let sockets = SocketTable::adopt(inheritance.sockets);
        let store = inheritance
            .zone_store
            .map(|store| ZoneStore::inherit(&places.zone_store, store));
        let store = store.transpose().map_err(|error| vec![error])?;
        let mut master = Self::new(config_path, own_binary(), places, lock);
        master.started_at = inheritance.started_at;
        let up = inheritance.started_at.elapsed().unwrap_or_default();
        master.started = master.started.checked_sub(up).unwrap_or(master.started);
        master.sockets.replace(sockets);
        master.zone_store.replace(store);
        master
            .parked_zones
            .replace(Some(zones::inherit(inheritance.counter_zones)));
        master.last_generation.set(inheritance.last_generation);
        let metrics = inheritance
            .metrics
            .and_then(|metrics| Ledger::inherit(metrics, inheritance.started_at));
        master.metrics.replace(metrics);
        Ok(Rc::new(master))
    }

    /// See [`InstanceLock::put_up_files`].
    fn put_up_files(&self) -> Result<StdUnixListener, Vec<String>> {
        match &*self.lock.borrow() {
            Some(lock) => lock.put_up_files().map_err(|error| vec![error]),
            None => Err(vec!["another master has taken over".to_owned()]),
        }
    }

    /// Answers what comes over the control socket, in the place of a listener that did before.
    pub(super) fn answer_commands(
        self: &Rc<Self>,
        listener: StdUnixListener,
    ) -> Result<(), String> {
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|error| format!("control socket: {error}"))?;
        let task = spawn_local(control::serve(listener, Rc::clone(self)));
        if let Some(before) = self.control_task.replace(Some(task.abort_handle())) {
            // What has connected to it is answered.
            spawn_local(async move {
                tokio::time::sleep(LATE_COMMANDS).await;
                before.abort();
            });
        }
        Ok(())
    }

    /// The master that handed over has ended, and so have those before it: what was theirs only is removed.
    pub(super) fn is_alone(&self) {
        if self.predecessor.take().is_none() {
            return;
        }
        tracing::info!("the master before this one has ended");
        if let Some(store) = &*self.zone_store.borrow() {
            store.is_alone(STORE_FILES_AT_MOST);
        }
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.is_alone();
        }
    }

    /// From the first generation that serves to the end.
    async fn govern(self: &Rc<Self>, mut signals: Signals) {
        let is_watched = Rc::clone(self);
        let watchdog = spawn_local(notify::keep_watchdog(move || {
            is_watched.successor.get().is_none()
        }));
        loop {
            tokio::select! {
                verb = signals.next() => self.obey(verb),
                () = self.stopped() => break,
            }
        }
        watchdog.abort();
        // Before the lock: the next gateway has the same place for its zones.
        drop(self.zone_store.take());
        match self.successor.get() {
            Some(pid) => tracing::info!(pid, "master ended; another has taken over"),
            None => tracing::info!("gateway stopped"),
        }
        drop(self.lock.take());
    }
}

/// A path that the gateway has had from its start on, with where the config has it now. One that is no longer in the config
/// has itself as its place.
pub(super) fn placed(path: &Path, now: Option<&PlacedPath>) -> PlacedPath {
    match now {
        Some(now) if **now == *path => now.clone(),
        Some(_) | None => PlacedPath {
            path: path.to_owned(),
            place: "as at the start".to_owned(),
        },
    }
}

impl Paths {
    /// They are the gateway's from its start on.
    pub(super) fn warn_of_others(&self, config: &Config) {
        let wanted = &config.master;
        if wanted.control.path != self.control
            || wanted.pid_file.as_deref() != self.pid_file.as_deref()
            || wanted.zone_store.path != self.zone_store
        {
            tracing::warn!(
                "master.control, master.pid_file and master.zone_store take effect with the next start"
            );
        }
    }
}

/// Where this process was started from, by the name that it was started by where that tells: what lies there may be a
/// link that points to another version later.
fn own_binary() -> PathBuf {
    let running = super::super::executable();
    let by_name = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .filter(|name| name.components().count() > 1)
        .and_then(|name| std::path::absolute(name).ok())
        .filter(|name| sys::same_file(name, &running));
    by_name.unwrap_or_else(|| std::fs::read_link(&running).unwrap_or(running))
}

fn raise_open_files() {
    if let Err(error) = sys::limit_open_files(None) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn signal_error(error: std::io::Error) -> Vec<String> {
    vec![format!("signals: {error}")]
}

/// How long a control socket that was replaced is listened on.
const LATE_COMMANDS: Duration = Duration::from_secs(5);

/// A compiled module that no gateway has used for so long is removed at a start.
const MODULE_UNUSED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

fn clean_module_store(config: &Config) {
    // A store that cannot be opened is an error of the generation that needs it.
    if let Ok(store) = ModuleStore::open(&config.master.module_store) {
        let removed = store.remove_unused(MODULE_UNUSED_FOR, STORE_FILES_AT_MOST);
        if removed > 0 {
            tracing::info!(removed, "module store: unused files removed");
        }
    }
}
