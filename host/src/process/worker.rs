//! The worker's side: takes over what the master hands it, builds its gateway, serves, ends.

use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::acme::News;
use crate::config::Accept;
use crate::gateway::{Gateway, SharedMemory};
use crate::log;
use crate::metrics::Recorder;
use crate::transport::write_batch;
use crate::upstream::{PeerList, PeerStates};
use crate::wasm::{GrantedFile, GrantedFiles, Module};
use crate::zone::{Bell, MetricsZone, PeersZone};

use super::channel::{
    FileFd, FrameReader, FromWorker, ModuleFd, ORDER_LIMIT_BYTES, ToWorker,
    WORKER_FRAME_LIMIT_BYTES, WorkerSpec, write_frame,
};
use super::confine::{self, Seal};
use super::flights;
use super::granted_files::{FileReceiver, Notice};
use super::role::Role;
use super::{sys, zones};

/// Runs a worker whose channel to the master is this inherited descriptor, until the master or a signal ends it.
pub fn run(channel_fd: RawFd) -> anyhow::Result<()> {
    sys::set_process_name(Role::Worker.needs().process_name);
    let channel = StdUnixStream::from(sys::inherited(channel_fd)?);
    channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let result = runtime.block_on(live(channel));
    runtime.shutdown_background();
    result
}

async fn live(channel: StdUnixStream) -> anyhow::Result<()> {
    tokio::task::spawn_local(write_batch::keep_flushing());
    let signals = Signals::listen()?;
    let (source, outbox) = UnixStream::from_std(channel)?.into_split();
    let mut inbox = FrameReader::new(source, ORDER_LIMIT_BYTES);
    let spec = match tokio::time::timeout(SPEC_TIMEOUT, inbox.next()).await?? {
        Some(ToWorker::Start(spec)) => *spec,
        Some(_) => anyhow::bail!("the master's first message is not what to run"),
        None => return Ok(()),
    };
    let mut link = MasterLink {
        inbox: Some(inbox),
        outbox,
        signals,
        early_news: VecDeque::new(),
        files: None,
    };
    let (slot, drain_timeout) = (spec.slot, spec.config.workers.drain_timeout);
    let (gateway, sockets, files) = tokio::select! {
        built = build(spec) => match built {
            Ok(built) => built,
            Err(errors) => return link.tell(&FromWorker::Failed(errors)).await,
        },
        () = link.ends_early() => return Ok(()),
    };
    link.files = files;
    link.tell(&FromWorker::Ready).await?;
    if slot == FIRST_SLOT {
        gateway.sweep_zones();
    }
    serve(gateway, slot, sockets, link, drain_timeout).await
}

/// The worker of a generation that does what one of them must: removes what has expired in kv zones, checks peers, runs timers
/// of plugins that run on one worker. There is a worker in the first slot as long as there is any.
const FIRST_SLOT: usize = 0;

/// Time for the spec, which the master sends at once.
const SPEC_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest fast stop, after which the rest is left to the system.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Sockets that wait for the master's word to be accepted on, by their listeners' names.
type Sockets = Vec<(String, OwnedFd, Accept)>;

async fn build(
    spec: WorkerSpec,
) -> Result<(Rc<Gateway>, Sockets, Option<FileReceiver>), Vec<String>> {
    let WorkerSpec {
        generation,
        slot,
        identity,
        config,
        listeners,
        modules,
        zones: handles,
        row,
        metrics,
        peers,
        flights,
        topics,
        spill_file,
        files,
        file_channel,
        upstreams,
        news,
    } = spec;
    let said = |error| vec![error];
    confine::settle_worker(&config.workers, slot).map_err(said)?;
    let inherited = |fd| sys::inherited(fd).map_err(|e| vec![format!("worker {slot}: {e}")]);
    let mut sockets = Sockets::new();
    for listener in listeners {
        let socket = inherited(listener.fd)?;
        sockets.push((listener.listener, socket, listener.accept));
    }
    let mut opened = Vec::new();
    for ModuleFd {
        plugin,
        manifest,
        fd,
    } in modules
    {
        let artefact = inherited(fd)?.into();
        opened.push(Module {
            plugin,
            manifest,
            artefact,
        });
    }
    let (granted, files) = granted_files(files, file_channel, inherited)?;
    let bell = Arc::new(Bell::open(inherited(topics)?));
    let zones = zones::open(&config, handles, row, &bell)?;
    let zone = MetricsZone::open(inherited(metrics)?, config.metrics.max_series);
    let zone = zone.map_err(|e| vec![e.to_string()])?;
    let peers = PeersZone::open(inherited(peers)?).map_err(|e| vec![e.to_string()])?;
    let (flights, bell) = (inherited(flights.0)?, inherited(flights.1)?);
    let memory = SharedMemory {
        zones,
        flights: flights::open(flights, bell, row).map_err(|e| vec![e.to_string()])?,
        metrics: Recorder::new(zone, row, generation),
        peers: PeerStates::new(Rc::new(peers), row),
        spill_file: spill_file.map(inherited).transpose()?,
        files: granted,
    };
    log::init(&config.log, None).map_err(said)?;
    tracing::debug!(generation, slot, "worker starts");
    let engine = Gateway::engine(&config)?;
    // The worker is sealed before it meets what others have written: plugins, names' addresses, clients.
    let seal = Seal {
        core_dumps: config.workers.core_dumps,
        seccomp: config.workers.seccomp,
    };
    confine::seal(Role::Worker, &seal).map_err(said)?;
    let config = Rc::new(config);
    let gateway = Gateway::build(config, engine, opened, memory, &upstreams, &identity).await?;
    news.iter().for_each(|news| gateway.learn(news));
    Ok((gateway, sockets, files))
}

/// Files that plugins are granted, and the socket through which later versions come.
fn granted_files(
    files: Vec<FileFd>,
    channel: Option<RawFd>,
    inherited: impl Fn(RawFd) -> Result<OwnedFd, Vec<String>>,
) -> Result<(GrantedFiles, Option<FileReceiver>), Vec<String>> {
    let mut granted = GrantedFiles::new();
    for FileFd { notice, fd } in files {
        let version = notice.version(inherited(fd)?);
        granted.insert(notice.path, GrantedFile::new(version));
    }
    let channel = channel.map(&inherited).transpose()?;
    let receiver = channel.map(FileReceiver::new).transpose();
    let receiver = receiver.map_err(|error| vec![error.to_string()])?;
    Ok((granted, receiver))
}

/// Serves from ready to the end.
async fn serve(
    gateway: Rc<Gateway>,
    slot: usize,
    mut waiting: Sockets,
    mut link: MasterLink,
    drain_timeout: Duration,
) -> anyhow::Result<()> {
    let mut draining: Draining = None;
    loop {
        let event = tokio::select! {
            event = link.next() => event,
            () = gateway.memory_ebbs() => {
                sys::trim_heap();
                continue;
            }
            () = drained(&mut draining) => {
                // A master that is gone does not hear it.
                let _ = link.tell(&FromWorker::Drained).await;
                return Ok(());
            }
        };
        match event {
            Event::Serve => {
                gateway.begin_to_serve();
                for (listener, socket, accept) in waiting.drain(..) {
                    gateway.accept(&listener, socket, accept)?;
                }
                gateway.start_background(slot == FIRST_SLOT);
                if slot == FIRST_SLOT {
                    gateway.look_after_peers();
                }
                // A master that is gone does not hear it; the end of the channel comes next.
                let _ = link.tell(&FromWorker::Serving).await;
            }
            Event::Drain(timeout) => {
                waiting.clear();
                gateway.stop_accepting();
                let _ = link.tell(&FromWorker::Draining).await;
                let timeout = timeout.unwrap_or(drain_timeout);
                if draining.is_none() {
                    let gateway = Rc::clone(&gateway);
                    draining = Some(Box::pin(async move { gateway.drain(timeout).await }));
                }
            }
            Event::Stop => {
                // Connections that are not closed by then close with the process.
                let _ = tokio::time::timeout(STOP_TIMEOUT, gateway.drain(Duration::ZERO)).await;
                return Ok(());
            }
            Event::ReopenLogs => gateway.reopen_logs(),
            Event::StatusRequest => {
                let _ = link.tell(&FromWorker::Status(gateway.status())).await;
            }
            Event::News(number, news) => {
                gateway.learn(&news);
                let _ = link.tell(&FromWorker::TakenIn(number)).await;
            }
            Event::Peers(upstream, list) => gateway.set_peers(&upstream, &list),
            Event::File(notice, memory) => {
                gateway.set_file(&notice.path, notice.version(memory));
            }
            Event::Heartbeat => {
                let _ = link.tell(&FromWorker::Alive).await;
            }
        }
    }
}

/// The drain, whose end is the worker's. None while it serves.
type Draining = Option<Pin<Box<dyn Future<Output = ()>>>>;

async fn drained(draining: &mut Draining) {
    match draining {
        Some(draining) => draining.await,
        None => std::future::pending().await,
    }
}

/// Event that a worker acts on, whichever way it came.
enum Event {
    Serve,
    /// Drain within this time. None: as long as the config says.
    Drain(Option<Duration>),
    Stop,
    ReopenLogs,
    StatusRequest,
    Heartbeat,
    News(u64, Box<News>),
    Peers(String, PeerList),
    File(Notice, OwnedFd),
}

/// The worker's ties to the world outside: the master and signals.
struct MasterLink {
    /// None once the master is gone.
    inbox: Option<FrameReader<OwnedReadHalf, ToWorker>>,
    outbox: OwnedWriteHalf,
    signals: Signals,
    /// News that came before the worker was ready to learn them, in their order.
    early_news: VecDeque<Event>,
    files: Option<FileReceiver>,
}

impl MasterLink {
    async fn next(&mut self) -> Event {
        match self.early_news.pop_front() {
            Some(news) => news,
            None => self.arrived().await,
        }
    }

    async fn arrived(&mut self) -> Event {
        loop {
            tokio::select! {
                message = next_message(&mut self.inbox) => match message {
                    Ok(Some(ToWorker::Start(_))) => {}
                    Ok(Some(ToWorker::Serve)) => return Event::Serve,
                    Ok(Some(ToWorker::Drain(timeout))) => return Event::Drain(Some(timeout)),
                    Ok(Some(ToWorker::Stop)) => return Event::Stop,
                    Ok(Some(ToWorker::ReopenLogs)) => return Event::ReopenLogs,
                    Ok(Some(ToWorker::StatusRequest)) => return Event::StatusRequest,
                    Ok(Some(ToWorker::Heartbeat)) => return Event::Heartbeat,
                    Ok(Some(ToWorker::News(number, news))) => return Event::News(number, news),
                    Ok(Some(ToWorker::Peers(upstream, list))) => return Event::Peers(upstream, list),
                    Ok(None) | Err(_) => {
                        self.inbox = None;
                        return Event::Drain(None);
                    }
                },
                Ok((notice, memory)) = next_file(&self.files) => return Event::File(notice, memory),
                event = self.signals.next() => return event,
            }
        }
    }

    /// Waits for an order that ends the worker before it is ready: a drain or a stop, since there is nothing to drain yet.
    async fn ends_early(&mut self) {
        loop {
            match self.arrived().await {
                Event::Drain(_) | Event::Stop => return,
                news @ (Event::News(..) | Event::Peers(..) | Event::File(..)) => {
                    self.early_news.push_back(news)
                }
                Event::Serve | Event::ReopenLogs | Event::StatusRequest | Event::Heartbeat => {}
            }
        }
    }

    async fn tell(&mut self, message: &FromWorker) -> anyhow::Result<()> {
        Ok(write_frame(&mut self.outbox, message, WORKER_FRAME_LIMIT_BYTES).await?)
    }
}

async fn next_message(
    inbox: &mut Option<FrameReader<OwnedReadHalf, ToWorker>>,
) -> std::io::Result<Option<ToWorker>> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

async fn next_file(files: &Option<FileReceiver>) -> std::io::Result<(Notice, OwnedFd)> {
    match files {
        Some(files) => files.next().await,
        None => std::future::pending().await,
    }
}

/// Signals sent to this worker and not to the master. Those that are the master's business are caught and do nothing.
struct Signals {
    terminate: Signal,
    quit: Signal,
    _ignored: [Signal; 4],
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            _ignored: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.quit.recv() => Event::Drain(None),
        }
    }
}
