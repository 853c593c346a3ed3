//! The master: it holds what outlives a generation, swaps generations and ends.

mod room;

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::config::{self, Config};
use crate::log;

use super::compile;
use super::control;
use super::generation::{Generation, Stage};
use super::instance_lock::InstanceLock;
use super::merge::Merge;
use super::metrics::Ledger;
use super::module_store::ModuleStore;
use super::report::{self, MasterStatus, Reloaded};
use super::sockets::SocketTable;
use super::sys;
use super::zone_store::ZoneStore;
use super::zones::{Zones, zones};

/// Runs the gateway until it is told to stop. Fails with lines for a person when it cannot start.
pub fn run(config_path: &Path) -> Result<(), Vec<String>> {
    let config = load(config_path)?;
    log::init(&config.log).map_err(|error| vec![format!("log: {error}")])?;
    if let Err(error) = sys::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| vec![format!("the event loop cannot be started: {error}")])?;
    let result = LocalSet::new().block_on(&runtime, govern(config_path, config));
    runtime.shutdown_background();
    result
}

/// One gateway.
pub struct Master {
    config_path: PathBuf,
    started: Instant,
    started_at: SystemTime,
    sockets: RefCell<SocketTable>,
    /// Opened for the first config with a kv zone, and kept from then on.
    zone_store: RefCell<Option<Rc<ZoneStore>>>,
    /// None before the first generation serves, after WINCH and after a stop.
    serving: RefCell<Option<Rc<Generation>>>,
    /// The zones of the generation that was serving, from WINCH until the next one serves.
    parked_zones: RefCell<Option<(Config, Zones)>>,
    /// Those that still end.
    retired: RefCell<Vec<Rc<Generation>>>,
    last_generation: Cell<u64>,
    reloads: RefCell<Merge<Option<ReloadWaiter>>>,
    reload_task: RefCell<Option<JoinHandle<()>>>,
    /// Why the running reload waits, for those who ask meanwhile.
    reload_waits: RefCell<Option<String>>,
    /// None before the first generation serves.
    metrics: RefCell<Option<Rc<Ledger>>>,
    stopping: watch::Sender<bool>,
}

/// Who asked for a reload and waits for its result. A signal does not wait.
pub struct ReloadWaiter(pub mpsc::UnboundedSender<News>);

/// How a reload goes.
pub enum News {
    /// Why it waits, in a line for a person.
    Waits(String),
    Ended(Result<Reloaded, Vec<String>>),
}

impl ReloadWaiter {
    fn tell(&self, news: News) {
        // Who asked may have left.
        let _ = self.0.send(news);
    }
}

async fn govern(config_path: &Path, config: Config) -> Result<(), Vec<String>> {
    let mut signals = Signals::listen().map_err(|e| vec![format!("signals: {e}")])?;
    let (lock, listener) = claim(&config).map_err(|error| vec![error])?;
    let listener = tokio::net::UnixListener::from_std(listener)
        .map_err(|e| vec![format!("control socket: {e}")])?;
    clean_module_store(&config);

    let master = Rc::new(Master::new(config_path));
    let zone_store = config.master.zone_store.clone();
    tokio::select! {
        started = master.swap(config) => { started?; }
        signal = signals.ends() => {
            tracing::info!(signal, "stopped before it served");
            return Ok(());
        }
    }
    master.clean_zone_store(&zone_store);
    spawn_local(control::serve(listener, Rc::clone(&master)));
    loop {
        tokio::select! {
            verb = signals.next() => master.obey(verb),
            () = master.stopped() => break,
        }
    }
    // Before the lock: the next gateway has the same place for its zones.
    drop(master.zone_store.take());
    tracing::info!("gateway stopped");
    drop(lock);
    Ok(())
}

impl Master {
    fn new(config_path: &Path) -> Self {
        Self {
            config_path: config_path.to_owned(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            sockets: RefCell::default(),
            zone_store: RefCell::default(),
            serving: RefCell::default(),
            parked_zones: RefCell::default(),
            retired: RefCell::default(),
            last_generation: Cell::new(0),
            reloads: RefCell::default(),
            reload_task: RefCell::default(),
            reload_waits: RefCell::default(),
            metrics: RefCell::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Loads the config again and swaps generations. While a reload runs, the next one is queued, once for all who ask.
    pub fn reload(self: &Rc<Self>, waiter: Option<ReloadWaiter>) {
        if *self.stopping.borrow() {
            // A waiter that is dropped tells the peer that the gateway is stopping.
            return;
        }
        if let (Some(waiter), Some(why)) = (&waiter, &*self.reload_waits.borrow()) {
            waiter.tell(News::Waits(why.clone()));
        }
        if self.reloads.borrow_mut().request(waiter) {
            let task = spawn_local(Rc::clone(self).run_reloads());
            self.reload_task.replace(Some(task));
        }
    }

    /// Ends the gateway: `fast` does not wait for requests under way. A fast stop overtakes a graceful one.
    pub fn stop(&self, fast: bool) {
        tracing::info!(fast, "gateway stops");
        self.stopping.send_replace(true);
        // Its workers go with it, and those who wait for it learn why.
        if let Some(reload) = self.reload_task.take() {
            reload.abort();
        }
        while self.reloads.borrow_mut().finished().1 {}
        self.reload_waits.take();
        self.drain_workers();
        self.parked_zones.take();
        if fast {
            for generation in self.retired.borrow().iter() {
                generation.stop();
            }
        }
        self.sockets.take();
    }

    /// Tells every process to open its log files by name again.
    pub fn reopen_logs(&self) {
        log::reopen();
        for generation in self.generations() {
            generation.reopen_logs();
        }
        tracing::info!("logs reopened");
    }

    /// Asks all workers; takes a second at most.
    pub async fn status(&self) -> MasterStatus {
        report::status(self.config_path.clone(), self.started, self.generations()).await
    }

    /// All metrics, in Prometheus' text format.
    pub fn metrics(&self) -> Option<String> {
        self.metrics.borrow().as_ref().map(|ledger| ledger.text())
    }

    async fn run_reloads(self: Rc<Self>) {
        loop {
            let result = self.load_and_swap().await;
            if let Err(errors) = &result {
                for error in errors {
                    tracing::error!("reload refused: {error}");
                }
            }
            if let Some(ledger) = &*self.metrics.borrow() {
                ledger.metrics().reloaded(result.is_ok());
            }
            let (waiters, again) = self.reloads.borrow_mut().finished();
            for waiter in waiters.into_iter().flatten() {
                waiter.tell(News::Ended(result.clone()));
            }
            if !again {
                return;
            }
        }
    }

    async fn load_and_swap(&self) -> Result<Reloaded, Vec<String>> {
        let mut config = load(&self.config_path)?;
        while self.wait_for_room(&config).await {
            // Who has asked meanwhile has another config in mind.
            config = load(&self.config_path)?;
        }
        self.swap(config).await
    }

    /// Builds a generation, and only when all of it is ready puts it in the place of the one that serves. Any failure
    /// before that leaves the one that serves as it was.
    async fn swap(&self, config: Config) -> Result<Reloaded, Vec<String>> {
        let begun = Instant::now();
        self.retired
            .borrow_mut()
            .retain(|generation| generation.stage() != Stage::Ended);
        let modules = compile::modules(&config).await?;
        let sockets = self.sockets.borrow().prepare(&config)?;
        let opened = OnceCell::new();
        let store = || self.zone_store(&config.master.zone_store, &opened);
        let zones = match &*self.serving.borrow() {
            Some(old) => old.with_zones(|zones_of_old| {
                zones(&config, store, Some((&old.config, zones_of_old)))
            }),
            None => {
                let parked = self.parked_zones.borrow();
                let parked = parked.as_ref().map(|(config, zones)| (config, zones));
                zones(&config, store, parked)
            }
        }?;
        let max_series = config.metrics.max_series;
        let metrics = Ledger::of(max_series, self.metrics.borrow().as_ref(), self.started_at)?;
        let number = self.last_generation.get() + 1;
        let workers = config.workers.count;
        let started =
            Generation::start(number, config, modules, zones, Rc::clone(&metrics), sockets);
        let generation = started.await?;
        self.make_room(&generation.config).await;

        if let Some(committed) =
            generation.with_sockets(|set| self.sockets.borrow_mut().commit(set))
        {
            committed?;
        }
        if let Some(opened) = opened.into_inner() {
            self.zone_store.replace(Some(opened));
        }
        metrics.begins();
        generation.serve();
        metrics.metrics().generation_serves(number);
        self.metrics.replace(Some(metrics));
        self.last_generation.set(number);
        self.parked_zones.take();
        let old = self.serving.replace(Some(Rc::clone(&generation)));
        if let Some(old) = &old {
            self.retired.borrow_mut().push(Rc::clone(old));
        }
        generation.accepts().await;
        if let Some(old) = old {
            self.warn_of_fixed(&old.config, &generation.config);
            old.drain();
            // From here on every new connection meets the new generation, which is what a reload promises.
            old.accepts_no_more().await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let listeners = generation.listeners();
        tracing::info!(generation = number, workers, listeners, took = ?begun.elapsed(), "generation serves");
        Ok(Reloaded {
            generation: number,
            workers,
            seconds,
        })
    }

    /// Kv zones lie where they lay first, as long as this master lives. Before that the place is the config's, and
    /// `opened` by the first that asks: of a config that is refused nothing stays.
    fn zone_store(
        &self,
        folder: &Path,
        opened: &OnceCell<Rc<ZoneStore>>,
    ) -> Result<Rc<ZoneStore>, String> {
        if let Some(store) = &*self.zone_store.borrow() {
            return Ok(Rc::clone(store));
        }
        if opened.get().is_none() {
            // Empty, so it takes it.
            let _ = opened.set(ZoneStore::open(folder)?);
        }
        opened
            .get()
            .cloned()
            .ok_or_else(|| "zone store: not opened".to_owned())
    }

    /// Removes what a master that was killed has left in the place of the kv zones; those that the first generation has
    /// found again are in use by now.
    fn clean_zone_store(&self, folder: &Path) {
        if !folder.exists() {
            return;
        }
        match self.zone_store(folder, &OnceCell::new()) {
            Ok(store) => store.remove_left(STORE_FILES_AT_MOST),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Some things are the master's own and stay as they were at its start.
    fn warn_of_fixed(&self, old: &Config, new: &Config) {
        let (old_master, new_master) = (&old.master, &new.master);
        if old_master.control != new_master.control
            || old_master.pid_file != new_master.pid_file
            || old_master.zone_store != new_master.zone_store
        {
            tracing::warn!(
                "master.control, master.pid_file and master.zone_store take effect with the next start"
            );
        }
        if old.log != new.log {
            tracing::warn!(
                "[log] takes effect with the next start in the master; workers follow it now"
            );
        }
    }

    /// Has the workers finish their requests and end; new connections wait in the sockets until a reload.
    pub fn park(&self) {
        tracing::info!("workers drain; connections wait until a reload");
        if let Some(generation) = &*self.serving.borrow() {
            let zones = generation.with_zones(Clone::clone);
            self.parked_zones
                .replace(Some((generation.config.clone(), zones)));
        }
        self.drain_workers();
    }

    /// Has every generation finish its requests; nothing takes its place.
    fn drain_workers(&self) {
        if let Some(generation) = self.serving.take() {
            self.retired.borrow_mut().push(generation);
        }
        // One that was to be replaced just now may not know yet.
        for generation in self.retired.borrow().iter() {
            generation.drain();
        }
    }

    fn generations(&self) -> Vec<Rc<Generation>> {
        let retired = self.retired.borrow();
        let living = retired.iter().filter(|g| g.stage() != Stage::Ended);
        living
            .chain(self.serving.borrow().iter())
            .cloned()
            .collect()
    }

    fn obey(self: &Rc<Self>, verb: Verb) {
        match verb {
            Verb::Reload => self.reload(None),
            Verb::GracefulStop => self.stop(false),
            Verb::FastStop => self.stop(true),
            Verb::ReopenLogs => self.reopen_logs(),
            Verb::DrainWorkers => self.park(),
            Verb::BinaryUpgrade => tracing::warn!("binary upgrade is not supported yet"),
        }
    }

    /// Waits for a stop and then for the last worker.
    async fn stopped(&self) {
        // The sender is ours, so the wait ends by the value only.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
        for generation in self.generations() {
            generation.ended().await;
        }
    }
}

fn load(config_path: &Path) -> Result<Config, Vec<String>> {
    config::load(config_path)
        .map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

/// Makes this process the one master of its control socket.
fn claim(config: &Config) -> Result<(InstanceLock, std::os::unix::net::UnixListener), String> {
    let mut lock = InstanceLock::take(&config.master.control)?;
    let listener = lock.bind_control()?;
    if let Some(pid_file) = &config.master.pid_file {
        lock.write_pid_file(pid_file)?;
    }
    Ok((lock, listener))
}

/// A compiled module that no gateway has used for so long is removed at a start.
const MODULE_UNUSED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Files of the store that one start looks at.
const STORE_FILES_AT_MOST: usize = 10_000;

fn clean_module_store(config: &Config) {
    // A store that cannot be opened is an error of the generation that needs it.
    if let Ok(store) = ModuleStore::open(&config.master.module_store) {
        let removed = store.remove_unused(MODULE_UNUSED_FOR, STORE_FILES_AT_MOST);
        if removed > 0 {
            tracing::info!(removed, "module store: unused files removed");
        }
    }
}

/// What the signals ask for, as nginx has it.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Reload,
    GracefulStop,
    FastStop,
    ReopenLogs,
    DrainWorkers,
    BinaryUpgrade,
}

struct Signals {
    hangup: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    user2: Signal,
    window_change: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            window_change: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Verb {
        tokio::select! {
            _ = self.hangup.recv() => Verb::Reload,
            _ = self.quit.recv() => Verb::GracefulStop,
            _ = self.terminate.recv() => Verb::FastStop,
            _ = self.interrupt.recv() => Verb::FastStop,
            _ = self.user1.recv() => Verb::ReopenLogs,
            _ = self.user2.recv() => Verb::BinaryUpgrade,
            _ = self.window_change.recv() => Verb::DrainWorkers,
        }
    }

    /// The next one that ends a gateway; its name.
    async fn ends(&mut self) -> &'static str {
        tokio::select! {
            _ = self.quit.recv() => "QUIT",
            _ = self.terminate.recv() => "TERM",
            _ = self.interrupt.recv() => "INT",
        }
    }
}
