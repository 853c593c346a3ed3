//! The master: it holds what outlives a generation, swaps generations and ends.

mod room;
mod start;
mod upgrade;

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};

use crate::config::{self, Config};
use crate::log;

use super::compile;
use super::generation::{Generation, GenerationStage};
use super::instance_lock::InstanceLock;
use super::merge::Merge;
use super::metrics::Ledger;
use super::notify;
use super::ownership;
use super::report::{self, MasterStatus, Reloaded};
use super::signals::Verb;
use super::sockets::SocketTable;
use super::upgrade::{Paths, Predecessor};
use super::zone_store::ZoneStore;
use super::zones::{Zones, lend_again, zones};

pub use start::{run, take_over};
pub use upgrade::UpgradeOrder;

/// One gateway.
pub struct Master {
    config_path: PathBuf,
    /// What an upgrade starts when it is not told another.
    binary: PathBuf,
    started: Instant,
    started_at: SystemTime,
    places: Paths,
    /// None once it is another master's.
    lock: RefCell<Option<InstanceLock>>,
    control_task: RefCell<Option<AbortHandle>>,
    sockets: RefCell<SocketTable>,
    /// Opened for the first config with a kv zone, and kept from then on.
    zone_store: RefCell<Option<Rc<ZoneStore>>>,
    /// None before the first generation serves, after WINCH and after a stop.
    serving: RefCell<Option<Rc<Generation>>>,
    /// Zones that no generation has but the next one will: from WINCH until that serves, and those that another master has
    /// handed over.
    parked_zones: RefCell<Option<Zones>>,
    /// Those that still end.
    retired: RefCell<Vec<Rc<Generation>>>,
    last_generation: Cell<u64>,
    /// Held by a reload and by an upgrade: one at a time.
    changes: Mutex<()>,
    reloads: RefCell<Merge<Option<ReloadWaiter>>>,
    reload_task: RefCell<Option<JoinHandle<()>>>,
    /// Why the running reload waits, for those who ask meanwhile.
    reload_waits: RefCell<Option<String>>,
    /// A reload that waits is to look again.
    room_news: Notify,
    /// An upgrade that runs, until there is no way back.
    upgrade_task: RefCell<Option<AbortHandle>>,
    /// The master that has taken over, by its pid.
    successor: Cell<Option<u32>>,
    /// The master that this one has taken over from, until it has ended.
    predecessor: RefCell<Option<Rc<Predecessor>>>,
    /// None before the first generation serves.
    metrics: RefCell<Option<Rc<Ledger>>>,
    stopping: watch::Sender<bool>,
    /// How many [`PendingCommand`]s there are.
    pending_commands: watch::Sender<usize>,
    /// Of a master that has handed over, once its last worker has ended: whether those before it ended in order, too.
    handover_done: watch::Sender<Option<bool>>,
}

/// A question that is not answered yet. A master that has handed over does not end before it is.
pub struct PendingCommand(Rc<Master>);

impl Drop for PendingCommand {
    fn drop(&mut self) {
        self.0
            .pending_commands
            .send_modify(|pending_commands| *pending_commands -= 1);
    }
}

/// Who asked for a reload and waits for its result. A signal does not wait.
pub struct ReloadWaiter(pub mpsc::UnboundedSender<ReloadProgress>);

/// How a reload goes.
pub enum ReloadProgress {
    /// Why it waits, in a line for a person.
    Waits(String),
    Ended(Result<Reloaded, Vec<String>>),
}

impl ReloadWaiter {
    fn tell(&self, news: ReloadProgress) {
        // Who asked may have left.
        let _ = self.0.send(news);
    }
}

/// All of a generation is ready; it does not serve yet.
struct Built {
    generation: Rc<Generation>,
    metrics: Rc<Ledger>,
    /// When this is the first that has kv zones.
    zone_store: Option<Rc<ZoneStore>>,
    begun: Instant,
}

impl Master {
    fn new(config_path: &Path, binary: PathBuf, places: Paths, lock: InstanceLock) -> Self {
        Self {
            config_path: config_path.to_owned(),
            binary,
            started: Instant::now(),
            started_at: SystemTime::now(),
            places,
            lock: RefCell::new(Some(lock)),
            control_task: RefCell::default(),
            sockets: RefCell::default(),
            zone_store: RefCell::default(),
            serving: RefCell::default(),
            parked_zones: RefCell::default(),
            retired: RefCell::default(),
            last_generation: Cell::new(0),
            changes: Mutex::default(),
            reloads: RefCell::default(),
            reload_task: RefCell::default(),
            reload_waits: RefCell::default(),
            room_news: Notify::new(),
            upgrade_task: RefCell::default(),
            successor: Cell::default(),
            predecessor: RefCell::default(),
            metrics: RefCell::default(),
            stopping: watch::Sender::new(false),
            pending_commands: watch::Sender::default(),
            handover_done: watch::Sender::default(),
        }
    }

    /// Loads the config again and swaps generations. While a reload or an upgrade runs, the next one is queued, once for
    /// all who ask; after an upgrade it is the new master's.
    pub fn reload(self: &Rc<Self>, waiter: Option<ReloadWaiter>) {
        if *self.stopping.borrow() {
            if let Some(pid) = self.successor.get() {
                tracing::warn!(pid, "no reload: another master has taken over");
            }
            // A waiter that is dropped tells the peer that the gateway is stopping.
            return;
        }
        if let (Some(waiter), Some(why)) = (&waiter, &*self.reload_waits.borrow()) {
            waiter.tell(ReloadProgress::Waits(why.clone()));
        }
        if self.reloads.borrow_mut().request(waiter) {
            let task = spawn_local(Rc::clone(self).run_reloads());
            self.reload_task.replace(Some(task));
        } else {
            // With another config a reload that waits may have nothing to wait for.
            self.room_news.notify_one();
        }
    }

    /// Begins an errand, which lasts until this is dropped.
    pub fn pending_command(self: &Rc<Self>) -> PendingCommand {
        self.pending_commands
            .send_modify(|pending_commands| *pending_commands += 1);
        PendingCommand(Rc::clone(self))
    }

    /// Ends the gateway: `fast` does not wait for requests under way. A fast stop overtakes a graceful one.
    pub fn stop(&self, fast: bool) {
        tracing::info!(fast, "gateway stops");
        if self.successor.get().is_none() {
            notify::stopping("finishes what is under way");
        }
        self.stopping.send_replace(true);
        // Their workers go with them, and those who wait for them learn why.
        if let Some(reload) = self.reload_task.take() {
            reload.abort();
        }
        if let Some(upgrade) = self.upgrade_task.take() {
            upgrade.abort();
        }
        if let Some(predecessor) = &*self.predecessor.borrow() {
            predecessor.stop(fast);
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

    /// The pid of the master that this one has taken over from, while that one is there.
    pub fn before(&self) -> Option<u32> {
        let predecessor = self.predecessor.borrow();
        let predecessor = predecessor.as_ref()?;
        (!predecessor.has_ended()).then_some(predecessor.pid)
    }

    /// Tells every process to open its log files by name again.
    pub fn reopen_logs(&self) {
        let serving = self.serving.borrow().clone();
        log::reopen(
            serving
                .as_ref()
                .and_then(|serving| serving.config.workers.user.as_ref()),
        );
        for generation in self.generations() {
            ownership::hand_over_logs(&generation.config);
            generation.reopen_logs();
        }
        if let Some(predecessor) = &*self.predecessor.borrow() {
            predecessor.reopen_logs();
        }
        tracing::info!("logs reopened");
    }

    /// Asks all workers, and those of a master that drains; takes some seconds at most.
    pub async fn status(&self) -> MasterStatus {
        let own = report::status(self.config_path.clone(), self.started, self.generations());
        let predecessor = self.predecessor.borrow().clone();
        let before = async {
            match predecessor {
                Some(predecessor) => predecessor.status().await,
                None => None,
            }
        };
        let (mut status, before) = tokio::join!(own, before);
        if let Some(before) = before {
            status.put_before(before);
        }
        status
    }

    /// All metrics, in Prometheus' text format.
    pub fn metrics(&self) -> Option<String> {
        self.metrics.borrow().as_ref().map(|ledger| ledger.text())
    }

    async fn run_reloads(self: Rc<Self>) {
        // A signal has nobody who waits, and its reload is done all the same.
        let _errand = self.pending_command();
        loop {
            let result = self.reload_in_turn().await;
            if let Err(errors) = &result {
                for error in errors {
                    tracing::error!("reload refused: {error}");
                }
            }
            if let Some(ledger) = &*self.metrics.borrow()
                && self.successor.get().is_none()
            {
                ledger.metrics().reloaded(result.is_ok());
            }
            let (waiters, again) = self.reloads.borrow_mut().finished();
            for waiter in waiters.into_iter().flatten() {
                waiter.tell(ReloadProgress::Ended(result.clone()));
            }
            if !again {
                return;
            }
        }
    }

    async fn reload_in_turn(&self) -> Result<Reloaded, Vec<String>> {
        let mut turn = self.changes.lock().await;
        if self.successor.get().is_none() {
            notify::reloading();
        }
        let result = loop {
            if self.successor.get().is_some() {
                self.reload_waits.take();
                return self.reload_successor().await;
            }
            // Who has asked while it waited has the config in mind as it is now.
            self.reloads.borrow_mut().take_in();
            match load_aside(&self.config_path).await {
                Ok(config) if self.has_room(&config) => break self.swap(config).await,
                Ok(_) => {}
                Err(errors) => break Err(errors),
            }
            // An upgrade may come first.
            drop(turn);
            self.room_may_change().await;
            turn = self.changes.lock().await;
        };
        self.reload_waits.take();
        drop(turn);
        match &result {
            Ok(_) => notify::ready(&self.state()),
            Err(_) => notify::ready(&format!("{}; the last reload was refused", self.state())),
        }
        result
    }

    /// One line, for systemd.
    fn state(&self) -> String {
        match &*self.serving.borrow() {
            Some(generation) => {
                let (number, workers) = (generation.number, generation.config.workers.count);
                format!("generation {number} serves, workers: {workers}")
            }
            None => "no generation serves".to_owned(),
        }
    }

    /// Builds a generation, and only when all of it is ready puts it in the place of the one that serves. Any failure
    /// before that leaves the one that serves as it was.
    async fn swap(&self, config: Config) -> Result<Reloaded, Vec<String>> {
        let built = self.build(config).await?;
        self.put_to_work(built).await
    }

    async fn build(&self, config: Config) -> Result<Built, Vec<String>> {
        let built = self.try_build(config).await;
        if built.is_err() {
            self.lend_zones_again();
        }
        built
    }

    /// After a generation of another user that did not come to serve, this master's or a new one's.
    fn lend_zones_again(&self) {
        if let Some(serving) = &*self.serving.borrow()
            && let Some(user) = &serving.config.workers.user
        {
            serving.with_zones(|zones| lend_again(zones, user));
        }
    }

    async fn try_build(&self, config: Config) -> Result<Built, Vec<String>> {
        let begun = Instant::now();
        self.retired
            .borrow_mut()
            .retain(|generation| generation.stage() != GenerationStage::Ended);
        ownership::prepare(&config)?;
        let modules = compile::modules(&config).await?;
        let sockets = self.sockets.borrow().prepare(&config)?;
        let opened = OnceCell::new();
        let store = || self.zone_store(&opened, &config);
        let zones = match &*self.serving.borrow() {
            Some(old) => old.with_zones(|old| zones(&config, store, Some(old))),
            None => zones(&config, store, self.parked_zones.borrow().as_ref()),
        }?;
        let max_series = config.metrics.max_series;
        let metrics = Ledger::of(max_series, self.metrics.borrow().as_ref(), self.started_at)
            .map_err(|error| vec![format!("{}: {error}", config.metrics.place)])?;
        let number = self.last_generation.get() + 1;
        let started =
            Generation::start(number, config, modules, zones, Rc::clone(&metrics), sockets);
        let generation = started.await?;
        self.make_room(&generation.config).await;
        Ok(Built {
            generation,
            metrics,
            zone_store: opened.into_inner(),
            begun,
        })
    }

    async fn put_to_work(&self, built: Built) -> Result<Reloaded, Vec<String>> {
        let Built {
            generation,
            metrics,
            zone_store,
            begun,
        } = built;
        let (number, workers) = (generation.number, generation.config.workers.count);
        if let Some(committed) =
            generation.with_sockets(|set| self.sockets.borrow_mut().commit(set))
        {
            committed?;
        }
        if zone_store.is_some() {
            self.zone_store.replace(zone_store);
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

    /// Kv zones lie where they lay first, as long as this gateway lives. `opened` by the first that asks: of a config
    /// that is refused nothing stays.
    fn zone_store(
        &self,
        opened: &OnceCell<Rc<ZoneStore>>,
        config: &Config,
    ) -> Result<Rc<ZoneStore>, String> {
        if let Some(store) = &*self.zone_store.borrow() {
            return Ok(Rc::clone(store));
        }
        if opened.get().is_none() {
            // Empty, so it takes it.
            let folder = start::placed(&self.places.zone_store, Some(&config.master.zone_store));
            let store = ZoneStore::open(&folder);
            let _ = opened.set(store.map_err(|error| format!("{}: {error}", folder.place))?);
        }
        opened
            .get()
            .cloned()
            .ok_or_else(|| "zone store: not opened".to_owned())
    }

    /// Removes what a master that was killed has left in the place of the kv zones; those that a generation has are in
    /// use by now.
    fn clean_zone_store(&self) {
        if !self.places.zone_store.exists() {
            return;
        }
        let store = match &*self.zone_store.borrow() {
            Some(store) => Ok(Rc::clone(store)),
            None => ZoneStore::open(&self.places.zone_store),
        };
        match store {
            Ok(store) => store.remove_left(STORE_FILES_AT_MOST),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Some things are the master's own and stay as they were at its start.
    fn warn_of_fixed(&self, old: &Config, new: &Config) {
        self.places.warn_of_others(new);
        let of_master = |log: &config::Log| {
            let file = log.file.as_ref().map(|file| file.path.clone());
            (log.level, log.format, file)
        };
        if of_master(&old.log) != of_master(&new.log) {
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
            self.parked_zones.replace(Some(zones));
        }
        self.drain_workers();
    }

    /// Has every generation finish its requests; nothing takes its place.
    fn drain_workers(&self) {
        if let Some(generation) = self.serving.take() {
            self.retired.borrow_mut().push(generation);
        }
        self.room_news.notify_one();
        // One that was to be replaced just now may not know yet.
        for generation in self.retired.borrow().iter() {
            generation.drain();
        }
    }

    /// Waits for the last of those that have been told to end.
    async fn workers_ended(&self) {
        for generation in self.generations() {
            generation.ended().await;
        }
    }

    fn generations(&self) -> Vec<Rc<Generation>> {
        let retired = self.retired.borrow();
        let living = retired
            .iter()
            .filter(|g| g.stage() != GenerationStage::Ended);
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
            Verb::BinaryUpgrade => self.upgrade(UpgradeOrder::default(), None),
        }
    }

    /// Waits for a stop and then for the last worker, also of the masters before this one.
    async fn stopped(&self) {
        // The sender is ours, so the wait ends by the value only.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
        self.workers_ended().await;
        let predecessor = self.predecessor.borrow().clone();
        let mut in_order = true;
        if let Some(predecessor) = predecessor {
            predecessor.ended().await;
            in_order = predecessor.ended_in_order();
            self.is_alone();
        }
        if self.successor.get().is_some() {
            self.handover_done.send_replace(Some(in_order));
            // What was asked for while it handed over is answered by the other one, through this one.
            let mut pending_commands = self.pending_commands.subscribe();
            let answered = pending_commands.wait_for(|pending_commands| *pending_commands == 0);
            let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
        }
    }
}

/// How long a master that has handed over stays for those who have asked it, at most: a reload compiles and starts
/// workers.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

fn load(config_path: &Path) -> Result<Config, Vec<String>> {
    config::load(config_path)
        .map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

/// The same in a thread of its own: reading may take as long as disk and network please, and the master answers meanwhile.
async fn load_aside(config_path: &Path) -> Result<Config, Vec<String>> {
    let config_path = config_path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || load(&config_path));
    loaded
        .await
        .unwrap_or_else(|error| Err(vec![format!("the config could not be read: {error}")]))
}

/// Files of the store that one start looks at.
const STORE_FILES_AT_MOST: usize = 10_000;
