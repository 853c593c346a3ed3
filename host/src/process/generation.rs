//! Generation: a load of the config and the workers that run it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;

use crate::config::Config;
use crate::gateway::Identity;

use super::acme::AcmeShared;
use super::backoff::Backoff;
use super::channel::{FileFd, ListenerFd, ModuleFd, ToWorker, WorkerSpec};
use super::child::{Ending, WorkerChild};
use super::granted_files::{self, FileSender, WatchedFile};
use super::metrics::Ledger;
use super::module_store::StoredModule;
use super::rows::Rows;
use super::sockets::SocketSet;
use super::spill;
use super::upstreams::{GenerationPeers, Lists, Upstreams};
use super::zones::Zones;

/// A generation in the master. Dropping one that does not serve yet ends its workers.
pub struct Generation {
    /// Number in the gateway's life, from 1 on; a reload that is refused uses none up.
    pub number: u64,
    pub config: Config,
    /// Modules by plugin, a descriptor each. Let go of when the last worker has ended, as the zones are.
    modules: RefCell<BTreeMap<String, StoredModule>>,
    /// A zone that no generation has is removed.
    zones: RefCell<Zones>,
    /// Files that its plugins are granted. Let go of as the modules are.
    files: RefCell<Vec<Rc<WatchedFile>>>,
    /// Peers by upstream, as they are now.
    pub peers: Rc<GenerationPeers>,
    shared: Shared,
    identity: Identity,
    /// Taken out when it stops serving: a removed listener's sockets close with the last worker that holds them.
    sockets: RefCell<Option<SocketSet>>,
    /// Workers by slot; None while one that died is not replaced yet.
    workers: RefCell<Vec<Option<Rc<WorkerChild>>>>,
    /// Deaths by slot.
    deaths: RefCell<Vec<Deaths>>,
    stage: watch::Sender<GenerationStage>,
    stage_since: RefCell<jiff::Timestamp>,
}

/// Possessions of the master that the workers of all generations have a part in.
pub struct Shared {
    pub metrics: Rc<Ledger>,
    pub rows: Rc<Rows>,
    pub upstreams: Rc<Upstreams>,
    pub acme: Rc<AcmeShared>,
}

/// Stage in a generation's life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GenerationStage {
    Starting,
    Serving,
    /// The workers finish what they have.
    Draining,
    /// The workers have been told to end now.
    Stopping,
    Ended,
}

impl GenerationStage {
    /// The word that `status` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

/// The workers of one slot that have died though nobody had told them to end.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    pub count: u64,
    /// End of the last of them, in words for a person.
    pub last: Option<String>,
    pub last_at: Option<jiff::Timestamp>,
}

/// A generation whose workers are not all ready by then is given up.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a swap waits for workers to say that they have begun or ceased to accept.
const SAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time beyond what a worker was given to drain, after which it is told to stop.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Time that a worker has to stop, after which it is killed.
const STOP_GRACE: Duration = Duration::from_secs(3);

impl Generation {
    /// Starts its workers and waits until all are ready. Fails with what the first to fail says; the others are ended.
    pub async fn start(
        number: u64,
        config: Config,
        modules: BTreeMap<String, StoredModule>,
        (zones, lists, files): (Zones, Lists, Vec<Rc<WatchedFile>>),
        shared: Shared,
        identity: Identity,
        sockets: SocketSet,
    ) -> Result<Rc<Self>, Vec<String>> {
        let slots = config.workers.count;
        let generation = Rc::new(Self {
            number,
            config,
            modules: RefCell::new(modules),
            zones: RefCell::new(zones),
            files: RefCell::new(files),
            peers: Rc::new(GenerationPeers::new(lists)),
            shared,
            identity,
            sockets: RefCell::new(Some(sockets)),
            workers: RefCell::new(vec![None; slots]),
            deaths: RefCell::new(vec![Deaths::default(); slots]),
            stage: watch::Sender::new(GenerationStage::Starting),
            stage_since: RefCell::new(jiff::Timestamp::now()),
        });
        generation.follow_peers();
        if !generation.files.borrow().is_empty() {
            tokio::task::spawn_local(follow_files(Rc::downgrade(&generation)));
        }
        for slot in 0..slots {
            let worker = generation.spawn(slot);
            worker.map_err(|e| vec![format!("worker {slot} cannot be started: {e}")])?;
        }
        let workers = generation.workers();
        let all_ready = try_join_all(workers.iter().map(|worker| worker.ready()));
        match tokio::time::timeout(START_TIMEOUT, all_ready).await {
            Ok(Ok(_)) => Ok(generation),
            Ok(Err(errors)) => Err(errors),
            Err(_) => Err(vec![format!(
                "workers were not ready within {} s",
                START_TIMEOUT.as_secs()
            )]),
        }
    }

    /// Has its workers accept, and replaces those that die, until [`Self::drain`] or [`Self::stop`].
    pub fn serve(self: &Rc<Self>) {
        self.enter(GenerationStage::Serving);
        for worker in self.workers() {
            worker.tell(ToWorker::Serve);
            tokio::task::spawn_local(Rc::clone(self).keep_slot(worker));
        }
        tokio::task::spawn_local(Rc::clone(self).retire());
    }

    /// Waits until all its workers accept connections; not for ever, in case one dies just now.
    pub async fn accepts(&self) {
        let workers = self.workers();
        let all = join_all(workers.iter().map(|worker| worker.serves()));
        // Late ones serve when they can.
        let _ = tokio::time::timeout(SAY_TIMEOUT, all).await;
    }

    /// Waits until none of its workers accepts connections, after [`Self::drain`]; not for ever either.
    pub async fn accepts_no_more(&self) {
        let workers = self.workers();
        let all = join_all(workers.iter().map(|worker| worker.accepts_no_more()));
        let _ = tokio::time::timeout(SAY_TIMEOUT, all).await;
    }

    /// Lets its workers finish their requests and end, within the config's `drain_timeout`.
    pub fn drain(&self) {
        self.enter(GenerationStage::Draining);
    }

    /// Ends its workers now.
    pub fn stop(&self) {
        self.enter(GenerationStage::Stopping);
    }

    /// Waits until its last worker has ended, after [`Self::drain`] or [`Self::stop`].
    pub async fn ended(&self) {
        self.reached(GenerationStage::Ended).await;
    }

    /// Stage that the generation is in now.
    pub fn stage(&self) -> GenerationStage {
        *self.stage.borrow()
    }

    /// Time when it came into that stage.
    pub fn stage_since(&self) -> jiff::Timestamp {
        *self.stage_since.borrow()
    }

    /// Longest time until a generation that drains has ended.
    pub fn time_left(&self) -> Duration {
        let whole = self.config.workers.drain_timeout + DRAIN_GRACE + STOP_GRACE;
        let since = jiff::Timestamp::now().duration_since(self.stage_since());
        whole.saturating_sub(since.unsigned_abs())
    }

    /// Workers that there are now, by slot.
    pub fn workers(&self) -> Vec<Rc<WorkerChild>> {
        self.workers.borrow().iter().flatten().cloned().collect()
    }

    /// Deaths by slot.
    pub fn deaths(&self) -> Vec<Deaths> {
        self.deaths.borrow().clone()
    }

    /// `web 127.0.0.1:8080, admin [::1]:9000`.
    pub fn listeners(&self) -> String {
        let of = |(name, listener): (&String, &crate::config::Listener)| {
            format!("{name} {}", listener.bind)
        };
        self.config
            .listeners
            .iter()
            .map(of)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Tells all its workers.
    pub fn reopen_logs(&self) {
        for worker in self.workers() {
            worker.tell(ToWorker::ReopenLogs);
        }
    }

    /// Lends its sockets; `None` once it no longer serves.
    pub fn with_sockets<T>(&self, use_them: impl FnOnce(&SocketSet) -> T) -> Option<T> {
        self.sockets.borrow().as_ref().map(use_them)
    }

    /// Lends its zones; there are none any more when it has ended.
    pub fn with_zones<T>(&self, use_them: impl FnOnce(&Zones) -> T) -> T {
        use_them(&self.zones.borrow())
    }

    /// Has its workers hear of other peers from now on.
    fn follow_peers(self: &Rc<Self>) {
        let generation = Rc::downgrade(self);
        self.peers.tell_by(move |upstream, list| {
            if let Some(generation) = generation.upgrade() {
                generation.tell_all(|| ToWorker::Peers(upstream.to_owned(), list.clone()));
            }
        });
        self.shared.upstreams.follow(&self.peers);
    }

    /// Waits for the order to end, passes it on, and grows impatient.
    async fn retire(self: Rc<Self>) {
        self.reached(GenerationStage::Draining).await;
        drop(self.sockets.take());
        if self.stage() == GenerationStage::Draining {
            let drain_timeout = self.config.workers.drain_timeout;
            tracing::info!(generation = self.number, timeout = ?drain_timeout, "generation drains");
            self.tell_all(|| ToWorker::Drain(drain_timeout));
            tokio::select! {
                () = self.workers_ended() => {}
                () = self.reached(GenerationStage::Stopping) => {}
                () = tokio::time::sleep(drain_timeout + DRAIN_GRACE) => {}
            }
        }
        self.tell_all(|| ToWorker::Stop);
        if tokio::time::timeout(STOP_GRACE, self.workers_ended())
            .await
            .is_err()
        {
            for worker in self.workers().iter().filter(|worker| worker.is_alive()) {
                let (pid, slot) = (worker.pid, worker.slot);
                tracing::warn!(pid, slot, "worker does not end: killed");
                worker.kill();
            }
            self.workers_ended().await;
        }
        drop((self.zones.take(), self.modules.take(), self.files.take()));
        self.peers.end();
        self.enter(GenerationStage::Ended);
        tracing::info!(generation = self.number, "generation ended");
    }

    /// Replaces the worker of a slot whenever it dies, as long as the generation serves.
    async fn keep_slot(self: Rc<Self>, first: Rc<WorkerChild>) {
        let slot = first.slot;
        let mut backoff = Backoff::default();
        let mut worker = Some(first);
        loop {
            let wait = match worker.take() {
                Some(worker) => {
                    let ending = self.watched_end(&worker).await;
                    if self.stage() > GenerationStage::Serving {
                        report_end(&worker, ending.as_ref());
                        return;
                    }
                    let wait = backoff.wait_after(worker.started.elapsed());
                    self.died(&worker, ending, wait);
                    wait
                }
                None => backoff.wait_after(Duration::ZERO),
            };
            tokio::select! {
                // First: a worker that starts now would not hear that it is to end.
                biased;
                () = self.reached(GenerationStage::Draining) => return,
                () = tokio::time::sleep(wait) => {}
            }
            match self.spawn(slot) {
                Ok(replacement) => {
                    self.put_to_work(&replacement).await;
                    worker = Some(replacement);
                }
                Err(error) => tracing::error!(slot, %error, "worker cannot be started"),
            }
        }
    }

    /// Waits for a worker to end. One that no longer answers is ended.
    async fn watched_end(&self, worker: &WorkerChild) -> Option<Ending> {
        let Some(timeout) = self.config.workers.heartbeat_timeout else {
            return worker.ended().await;
        };
        tokio::select! {
            ending = worker.ended() => ending,
            silence = worker.falls_silent(timeout) => {
                let (pid, slot, generation) = (worker.pid, worker.slot, self.number);
                tracing::error!(pid, slot, generation, ?silence, ?timeout, "worker does not answer: killed");
                self.shared.metrics.metrics().worker_silent();
                worker.kill();
                let ending = worker.ended().await;
                ending.map(|ending| Ending {
                    silence: Some(silence),
                    ..ending
                })
            }
        }
    }

    /// Counts and tells a death that nobody had ordered.
    fn died(&self, worker: &WorkerChild, ending: Option<Ending>, wait: Duration) {
        self.workers.borrow_mut()[worker.slot] = None;
        self.shared.metrics.metrics().worker_died();
        let deaths = &mut self.deaths.borrow_mut()[worker.slot];
        deaths.count += 1;
        deaths.last = Some(match &ending {
            Some(ending) => ending.to_string(),
            None => "lost".to_owned(),
        });
        deaths.last_at = Some(jiff::Timestamp::now());
        report_death(worker, ending, self.number, wait);
    }

    /// Has a replacement serve when it is ready. A worker that fails to start has ended when this returns, or is about to.
    async fn put_to_work(&self, worker: &WorkerChild) {
        match tokio::time::timeout(START_TIMEOUT, worker.ready()).await {
            Ok(Ok(())) if self.stage() == GenerationStage::Serving => worker.tell(ToWorker::Serve),
            // The worker has been told to drain, or has ended and said why.
            Ok(_) => {}
            Err(_) => {
                tracing::error!(
                    pid = worker.pid,
                    slot = worker.slot,
                    "worker not ready in time: killed"
                );
                worker.kill();
            }
        }
    }

    fn spawn(&self, slot: usize) -> io::Result<Rc<WorkerChild>> {
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        let mut hand_over = |descriptor: OwnedFd| {
            let fd = descriptor.as_raw_fd();
            descriptors.push(descriptor);
            fd
        };
        let mut listeners = Vec::new();
        if let Some(sockets) = &*self.sockets.borrow() {
            for (listener, socket, accept) in sockets.of_slot(slot) {
                let fd = hand_over(socket.try_clone()?);
                listeners.push(ListenerFd {
                    listener: listener.to_owned(),
                    fd,
                    accept,
                });
            }
        }
        let modules = self.module_fds(&mut hand_over)?;
        let mut zones = BTreeMap::new();
        for (name, zone) in &*self.zones.borrow() {
            zones.insert(name.clone(), zone.handle(&mut hand_over)?);
        }
        let shared = &self.shared;
        let row = shared.rows.lease(&shared.metrics);
        let metrics = hand_over(shared.metrics.descriptor().try_clone_to_owned()?);
        let peers = hand_over(shared.upstreams.descriptor().try_clone_to_owned()?);
        let flights = shared.rows.flights.descriptors()?;
        let topics = hand_over(flights.topics);
        let flights = (hand_over(flights.zone), hand_over(flights.bell));
        let upstreams = self.peers.with_lists(|lists| {
            let lists = lists.iter();
            let lists = lists.map(|(name, it)| (name.clone(), it.leased.list.clone()));
            lists.collect()
        });
        let (files, file_sender, file_channel) = self.granted_files(&mut hand_over)?;
        let spec = WorkerSpec {
            generation: self.number,
            slot,
            identity: self.identity.clone(),
            config: self.config.clone(),
            listeners,
            modules,
            zones,
            row: row.as_ref().map(|lease| lease.row),
            metrics,
            peers,
            flights,
            topics,
            spill_file: spill::open_for_worker(&self.config).map(hand_over),
            files,
            file_channel,
            upstreams,
            news: shared.acme.for_worker(&self.config),
        };
        let worker = WorkerChild::spawn(spec, descriptors, row, file_sender)?;
        shared.acme.joined(&worker);
        self.workers.borrow_mut()[slot] = Some(Rc::clone(&worker));
        Ok(worker)
    }

    /// Descriptors of the granted files for a new worker, and both ends of the socket for later versions, where there are any files.
    fn granted_files(
        &self,
        hand_over: &mut impl FnMut(OwnedFd) -> RawFd,
    ) -> io::Result<(Vec<FileFd>, Option<FileSender>, Option<RawFd>)> {
        let granted = self.files.borrow();
        if granted.is_empty() {
            return Ok((Vec::new(), None, None));
        }
        let mut files = Vec::new();
        for file in &*granted {
            let (notice, memory) = file.version();
            let fd = hand_over(memory.try_clone()?);
            files.push(FileFd { notice, fd });
        }
        let (sender, theirs) = granted_files::channel(&granted)?;
        Ok((files, Some(sender), Some(hand_over(theirs))))
    }

    /// `hand_over` says under which number the worker has a descriptor.
    fn module_fds(&self, mut hand_over: impl FnMut(OwnedFd) -> RawFd) -> io::Result<Vec<ModuleFd>> {
        let mut modules = Vec::new();
        for (plugin, module) in &*self.modules.borrow() {
            let fd = hand_over(module.artefact.try_clone()?.into());
            modules.push(ModuleFd {
                plugin: plugin.clone(),
                manifest: module.manifest.clone(),
                fd,
            });
        }
        Ok(modules)
    }

    fn tell_all(&self, order: impl Fn() -> ToWorker) {
        for worker in self.workers() {
            worker.tell(order());
        }
    }

    async fn workers_ended(&self) {
        let workers = self.workers();
        join_all(workers.iter().map(|worker| worker.ended())).await;
    }

    fn enter(&self, stage: GenerationStage) {
        let moved = self.stage.send_if_modified(|now| {
            let forward = stage > *now;
            if forward {
                *now = stage;
            }
            forward
        });
        if moved {
            self.stage_since.replace(jiff::Timestamp::now());
        }
    }

    /// Waits until the generation is at this stage or beyond.
    async fn reached(&self, stage: GenerationStage) {
        // The sender is ours, so the wait ends by the stage only.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }
}

/// Has a generation's workers hear of other versions of their files, until it has ended.
async fn follow_files(generation: Weak<Generation>) {
    loop {
        tokio::time::sleep(granted_files::LOOK_EACH).await;
        let Some(generation) = generation.upgrade() else {
            return;
        };
        let files = generation.files.borrow().clone();
        if files.is_empty() {
            return;
        }
        for file in &files {
            file.follow(false).await;
        }
        for worker in generation.workers() {
            worker.tell_files(&files);
        }
    }
}

/// Logs the end of a worker that was told to end: only a crash on the way is worth a line.
fn report_end(worker: &WorkerChild, ending: Option<&Ending>) {
    if let Some(Ending { status, .. }) = ending
        && !status.success()
    {
        let (pid, slot) = (worker.pid, worker.slot);
        tracing::error!(pid, slot, %status, "worker died while it ended: its requests are lost");
    }
}

fn report_death(worker: &WorkerChild, ending: Option<Ending>, generation: u64, wait: Duration) {
    let (pid, slot, lived) = (worker.pid, worker.slot, worker.started.elapsed());
    match ending {
        // A signal that the worker knows has ended it.
        Some(Ending { status, errors, .. }) if status.success() && errors.is_empty() => {
            tracing::warn!(
                pid,
                slot,
                generation,
                ?lived,
                ?wait,
                "worker ended: replaced"
            );
        }
        Some(Ending { status, errors, .. }) => {
            for error in &errors {
                tracing::error!(pid, slot, generation, "{error}");
            }
            tracing::error!(pid, slot, generation, %status, ?lived, ?wait, "worker died: replaced");
        }
        None => tracing::error!(pid, slot, generation, ?wait, "worker lost: replaced"),
    }
}
