//! The master: it holds what outlives a generation, swaps generations and ends.

mod commands;
mod reload;
mod room;
mod start;
mod state;
mod take_over;
mod upgrade;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_local;

use crate::config::{self, Config, PlacedPath};
use crate::gateway::Identity;
use crate::log;
use crate::transport::tls::TicketChain;

use super::acme::Acme;
use super::generation::{Generation, GenerationStage};
use super::granted_files::GrantedFiles;
use super::merge::Merge;
use super::notify;
use super::orders::{PendingCommand, PendingCommands, ReloadWaiter, UpgradeOrder};
use super::ownership;
use super::report::{self, MasterStatus};
use super::rows::Rows;
use super::signals::{Signals, Verb};
use super::upgrade::{Paths, Predecessor};
use super::upstreams::{PeerOrder, UpstreamReport, Upstreams};
use super::zone_store::ZoneStore;
use state::{Active, Current, MasterState, SharedMemory, Tasks};

pub use start::run;
pub use take_over::take_over;

/// A gateway's first process: one for each gateway, but while one master hands over to another.
pub struct Master {
    config_path: PathBuf,
    /// Binary that an upgrade starts when it is not told another.
    binary: PathBuf,
    /// Start of the gateway, by the clock that no one sets: with the first of the masters that handed over.
    started: Instant,
    /// Start of the gateway, by the wall clock.
    started_at: SystemTime,
    paths: Paths,
    state: RefCell<MasterState>,
    /// Rings when `Active` was left.
    active_ended: Notify,
    /// Generations that served and still end.
    retired: RefCell<Vec<Rc<Generation>>>,
    last_generation: Cell<u64>,
    memory: RefCell<SharedMemory>,
    /// Secrets of session tickets, of the last epoch and so of those after it.
    ticket_chain: RefCell<TicketChain>,
    tasks: RefCell<Tasks>,
    /// Held by a reload and by an upgrade: one at a time.
    changes: Mutex<()>,
    reloads: RefCell<Merge<Option<ReloadWaiter>>>,
    /// Rings when a reload that waits for room is to look again.
    room_news: Notify,
    /// The master that this one has taken over from, until it has ended. Outlives `Active`: a master that stops or hands over
    /// ends after those before it.
    predecessor: RefCell<Option<Rc<Predecessor>>>,
    pending_commands: Rc<PendingCommands>,
    /// Certificates that the gateway orders itself.
    acme: Rc<Acme>,
    upstreams: Rc<Upstreams>,
    /// Rows of the memory that workers share.
    rows: Rc<Rows>,
    /// Files that plugins are granted.
    files: GrantedFiles,
}

impl Master {
    fn new(
        config_path: &Path,
        binary: PathBuf,
        paths: Paths,
        active: Active,
        ticket_chain: TicketChain,
        upstreams: Rc<Upstreams>,
        rows: Rc<Rows>,
    ) -> Self {
        Self {
            config_path: config_path.to_owned(),
            binary,
            started: Instant::now(),
            started_at: SystemTime::now(),
            paths,
            state: RefCell::new(MasterState::Active(active)),
            active_ended: Notify::new(),
            retired: RefCell::default(),
            last_generation: Cell::new(0),
            memory: RefCell::default(),
            ticket_chain: RefCell::new(ticket_chain),
            tasks: RefCell::default(),
            changes: Mutex::default(),
            reloads: RefCell::default(),
            room_news: Notify::new(),
            predecessor: RefCell::default(),
            pending_commands: Rc::default(),
            acme: Rc::default(),
            upstreams,
            rows,
            files: GrantedFiles::default(),
        }
    }

    /// Identity for the workers of a generation that begins.
    fn identity(&self) -> Identity {
        Identity {
            id: super::gateway_id(),
            ticket_chain: self.ticket_chain(),
        }
    }

    /// Secrets of session tickets, from the last epoch on.
    fn ticket_chain(&self) -> TicketChain {
        let mut chain = self.ticket_chain.borrow_mut();
        chain.advance(SystemTime::now());
        chain.clone()
    }

    /// Begins an order, which lasts until the result is dropped.
    pub fn pending_command(&self) -> PendingCommand {
        self.pending_commands.begin()
    }

    /// Ends the gateway: `fast` does not wait for requests under way. A fast stop overtakes a graceful one.
    pub fn stop(&self, fast: bool) {
        tracing::info!(fast, "gateway stops");
        if self.successor().is_none() {
            notify::stopping("finishes what is under way");
        }
        self.tasks.borrow_mut().abort_changes();
        if let Some(predecessor) = &*self.predecessor.borrow() {
            predecessor.stop(fast);
        }
        self.reloads.borrow_mut().clear();
        self.leave_active();
        if fast {
            for generation in self.retired.borrow().iter() {
                generation.stop();
            }
        }
    }

    /// Goes from `Active` to `Stopping`: the generation that serves drains, and the sockets close with its workers.
    fn leave_active(&self) {
        self.acme.end();
        self.upstreams.end();
        let left = self
            .state
            .borrow_mut()
            .leave_active(|lock| MasterState::Stopping { _lock: lock });
        let (sockets, current) = left.unzip();
        self.active_ended.notify_one();
        self.retire(current.and_then(Current::into_generation));
        // Connections that wait in the sockets were the workers' until just now.
        drop(sockets);
    }

    /// Process id of the master that has taken over.
    fn successor(&self) -> Option<u32> {
        self.state.borrow().successor()
    }

    /// The generation that serves.
    fn serving(&self) -> Option<Rc<Generation>> {
        self.state.borrow().serving().cloned()
    }

    /// Process id of the master that this one has taken over from, while that one is there.
    pub fn before(&self) -> Option<u32> {
        let predecessor = self.predecessor.borrow();
        let predecessor = predecessor.as_ref()?;
        (!predecessor.has_ended()).then_some(predecessor.pid)
    }

    /// Tells every process to open its log files by name again.
    pub fn reopen_logs(&self) {
        let serving = self.serving();
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
        let own = report::status(
            self.config_path.clone(),
            self.started,
            self.generations(),
            &self.acme.shared,
        );
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
        status.acme = self.acme.report();
        if let Some(newest) = self.generations().last() {
            status.upstreams = self.upstreams.report(&newest.peers);
        }
        status.sources = self.upstreams.sources();
        status
    }

    /// Peers of an upstream, after an order of the operator's. The error is a line for a person.
    pub fn order_peers(
        &self,
        upstream: &str,
        order: Option<PeerOrder>,
    ) -> Result<UpstreamReport, String> {
        let generations = self.generations();
        let newest = generations.last().ok_or("no generation serves yet")?;
        if let Some(order) = order {
            self.upstreams.order(upstream, order, &newest.peers)?;
        }
        let all = self.upstreams.report(&newest.peers);
        let known = newest.config.upstreams.keys().cloned().collect::<Vec<_>>();
        let found = all.into_iter().find(|report| report.name == upstream);
        found.ok_or_else(|| no_upstream(upstream, &known))
    }

    /// All metrics, in Prometheus' text format; None before the first generation serves.
    pub fn metrics(&self) -> Option<String> {
        let memory = self.memory.borrow();
        memory.metrics.as_ref().map(|ledger| ledger.text())
    }

    /// State of the gateway in one line, for systemd.
    fn summary(&self) -> String {
        match self.serving() {
            Some(generation) => {
                let (number, workers) = (generation.number, generation.config.workers.count);
                format!("generation {number} serves, workers: {workers}")
            }
            None => "no generation serves".to_owned(),
        }
    }

    /// Removes what a master that was killed has left in the place of the kv zones; those that a generation has are in
    /// use by now.
    fn clean_zone_store(&self) {
        if !self.paths.zone_store.exists() {
            return;
        }
        let store = match &self.memory.borrow().zone_store {
            Some(store) => Ok(Rc::clone(store)),
            None => ZoneStore::open(&self.paths.zone_store),
        };
        match store {
            Ok(store) => store.remove_left(STORE_FILES_AT_MOST),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Has the workers finish their requests and end; new connections wait in the sockets until a reload.
    pub fn park(&self) {
        tracing::info!("workers drain; connections wait until a reload");
        let mut state = self.state.borrow_mut();
        let generation = state.active_mut().and_then(Active::park);
        drop(state);
        self.retire(generation);
    }

    /// Has every generation finish its requests: this one, which has served until now, and those before it.
    fn retire(&self, generation: Option<Rc<Generation>>) {
        self.retired.borrow_mut().extend(generation);
        self.room_news.notify_one();
        // A generation that was to be replaced just now may not know yet.
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

    /// Generations that have workers, the one that serves last.
    fn generations(&self) -> Vec<Rc<Generation>> {
        let retired = self.retired.borrow();
        let living = retired
            .iter()
            .filter(|g| g.stage() != GenerationStage::Ended);
        let state = self.state.borrow();
        living.chain(state.serving()).cloned().collect()
    }

    /// Answers what comes over the control socket, in the place of a listener that did before.
    fn answer_commands(
        self: &Rc<Self>,
        listener: std::os::unix::net::UnixListener,
    ) -> Result<(), String> {
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|error| format!("control socket: {error}"))?;
        let task = spawn_local(commands::serve(listener, Rc::clone(self)));
        let before = self.tasks.borrow_mut().control.replace(task.abort_handle());
        if let Some(before) = before {
            // Commands that have connected to it are answered.
            spawn_local(async move {
                tokio::time::sleep(LATE_COMMANDS).await;
                before.abort();
            });
        }
        Ok(())
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

    /// Runs the gateway from the first generation that serves to the end.
    async fn govern(self: &Rc<Self>, mut signals: Signals) {
        let is_watched = Rc::clone(self);
        let watchdog = spawn_local(notify::keep_watchdog(move || {
            is_watched.successor().is_none()
        }));
        self.acme.begin();
        loop {
            tokio::select! {
                verb = signals.next() => self.obey(verb),
                () = self.stopped() => break,
            }
        }
        watchdog.abort();
        // Before the lock: the next gateway has the same place for its zones.
        drop(self.memory.borrow_mut().zone_store.take());
        match self.successor() {
            Some(pid) => tracing::info!(pid, "master ended; another has taken over"),
            None => tracing::info!("gateway stopped"),
        }
        self.state.replace(MasterState::Ended);
    }

    /// Waits for a stop and then for the last worker, also of the masters before this one.
    async fn stopped(&self) {
        while self.state.borrow().active().is_some() {
            self.active_ended.notified().await;
        }
        self.workers_ended().await;
        let predecessor = self.predecessor.borrow().clone();
        let mut in_order = true;
        if let Some(predecessor) = predecessor {
            predecessor.ended().await;
            in_order = predecessor.ended_in_order();
            self.is_alone();
        }
        if let MasterState::HandedOver(handed_over) = &*self.state.borrow() {
            handed_over.is_done.send_replace(Some(in_order));
        }
        if self.successor().is_some() {
            // Orders that came while it handed over are answered by the other master, through this one.
            let _ = tokio::time::timeout(LAST_ANSWERS, self.pending_commands.answered()).await;
        }
    }

    /// Notes that the master which handed over has ended, and so have those before it: what was theirs only is removed.
    fn is_alone(&self) {
        if self.predecessor.take().is_none() {
            return;
        }
        tracing::info!("the master before this one has ended");
        let memory = self.memory.borrow();
        if let Some(store) = &memory.zone_store {
            store.is_alone(STORE_FILES_AT_MOST);
        }
        self.rows.is_alone(memory.metrics.as_ref());
        self.upstreams.is_alone();
    }
}

fn no_upstream(name: &str, known: &[String]) -> String {
    format!(
        "there is no upstream {name}; expected one of {}",
        known.join(", ")
    )
}

/// Longest stay of a master that has handed over for those who have asked it: a reload compiles and starts workers.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// Time for which a control socket that was replaced is still listened on.
const LATE_COMMANDS: Duration = Duration::from_secs(5);

/// Files of a store that one start looks at.
const STORE_FILES_AT_MOST: usize = 10_000;

fn load(config_path: &Path) -> Result<Config, Vec<String>> {
    config::load(config_path)
        .map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

/// A path that the gateway has had from its start on, with where the config has it now. A path that is no longer in the
/// config has itself as its place.
fn placed(path: &Path, now: Option<&PlacedPath>) -> PlacedPath {
    match now {
        Some(now) if **now == *path => now.clone(),
        Some(_) | None => PlacedPath {
            path: path.to_owned(),
            place: "as at the start".to_owned(),
        },
    }
}

impl Paths {
    /// Warns of a config that has others: they are the gateway's from its start on.
    fn warn_of_others(&self, config: &Config) {
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
