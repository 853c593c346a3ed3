//! Start of a gateway, and what starts have in common with take-overs.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::task::LocalSet;

use crate::config::Config;
use crate::log;
use crate::process::activation::{self, Activated};
use crate::process::flights::SharedFlights;
use crate::process::instance_lock::InstanceLock;
use crate::process::module_store::ModuleStore;
use crate::process::notify;
use crate::process::orphans;
use crate::process::rows::Rows;
use crate::process::signals::Signals;
use crate::process::sockets::SocketTable;
use crate::process::sys;
use crate::process::upgrade::Paths;
use crate::process::upstreams::Upstreams;
use crate::process::zones::Zones;

use super::state::Active;
use super::{Master, STORE_FILES_AT_MOST, load};
use crate::transport::tls::TicketChain;

/// Runs the gateway until it is told to stop. Fails with lines for a person when it cannot start.
pub fn run(config_path: &Path) -> Result<(), Vec<String>> {
    // Before this process opens anything of its own.
    let activated = activation::descriptors().map_err(|error| vec![error])?;
    let config = load(config_path)?;
    log::init(&config.log, config.workers.user.as_ref()).map_err(|error| vec![error])?;
    raise_open_files();
    in_event_loop(start(config_path, config, activated))
}

pub(super) fn in_event_loop(
    life: impl Future<Output = Result<(), Vec<String>>>,
) -> Result<(), Vec<String>> {
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
    let mut signals = listen_for_signals()?;
    let paths = Paths {
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

    let active = Active::new(lock, sockets, Zones::new());
    let chain = TicketChain::new(SystemTime::now())
        .map_err(|error| vec![format!("secrets of session tickets: {error}")])?;
    let upstreams = Upstreams::new().map_err(|error| vec![error])?;
    let flights = SharedFlights::create().map_err(|error| vec![error])?;
    let rows = Rows::new(Rc::clone(upstreams.zone()), flights, Vec::new());
    let binary = own_binary();
    let master = Master::new(config_path, binary, paths, active, chain, upstreams, rows);
    let master = Rc::new(master);
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
    notify::ready(&master.summary());
    master.govern(signals).await;
    Ok(())
}

/// Path that this process was started from, by the name that it was started by where that tells: what lies there may be a
/// link that points to another version later.
pub(super) fn own_binary() -> PathBuf {
    let running = super::super::executable();
    let by_name = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .filter(|name| name.components().count() > 1)
        .and_then(|name| std::path::absolute(name).ok())
        .filter(|name| sys::same_file(name, &running));
    by_name.unwrap_or_else(|| std::fs::read_link(&running).unwrap_or(running))
}

pub(super) fn raise_open_files() {
    if let Err(error) = sys::limit_open_files(None) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

pub(super) fn listen_for_signals() -> Result<Signals, Vec<String>> {
    Signals::listen().map_err(|error| vec![format!("signals: {error}")])
}

/// Time without use after which a compiled module is removed at a start, whichever gateway it was of.
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
