//! The part that the requests of one worker share: upstreams, time-outs, access log, counts, and whether it drains.

mod flights;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flights::FlightWaits;
use tokio::sync::Notify;

use crate::downstream::SpillFile;
use crate::exchange::Exchange;
use crate::log::AccessLog;
use crate::metrics::{Gauge, Recorder};
use crate::phase::UpstreamIdx;
use crate::runtime::alarm::{self, Alarms};
use crate::runtime::clock;
use crate::runtime::heap_trim::HeapTrim;
use crate::service::Service;
use crate::upstream::{HostCalls, Upstream};
use crate::zone::Flights;

pub struct WorkerContext {
    upstreams: Vec<Rc<Upstream>>,
    alarms: Alarms,
    idle_alarms: Alarms,
    access_log: Option<Rc<AccessLog>>,
    traffic: Traffic,
    metrics: Recorder,
    spill_file: Option<Rc<SpillFile>>,
    flights: FlightWaits,
    host_calls: BTreeMap<String, HostCalls>,
    own_routes: OnceCell<BTreeMap<String, Rc<Service>>>,
    /// Bytes of bodies that are held on their way into caches.
    pub filling_bytes: Cell<usize>,
    /// Estimate of the heap that connections and requests use; tells when to trim it.
    pub heap_trim: HeapTrim,
    draining: Cell<bool>,
    drain_began: Notify,
    date: RefCell<Date>,
    this: Weak<Self>,
}

/// Memory of an idle connection (`docs/MEMORY.md`).
const CONNECTION_BYTES: usize = 2 * 1024;

#[derive(Default)]
struct Traffic {
    connections: Cell<usize>,
    requests_active: Cell<usize>,
    /// Requests under way, in the metrics.
    requests_active_level: Gauge,
    requests_total: Cell<u64>,
    /// Tasks of `after_response` hooks.
    after_responses: Cell<usize>,
    /// The last connection has ended, or the last of these tasks.
    quiet: Notify,
}

impl WorkerContext {
    /// Upstreams in the order that plans number them in.
    pub fn new(
        upstreams: Vec<Rc<Upstream>>,
        alarms: Alarms,
        access_log: Option<Rc<AccessLog>>,
        metrics: Recorder,
        spill_file: Option<SpillFile>,
        flights: Arc<Flights>,
        host_calls: BTreeMap<String, HostCalls>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            upstreams,
            alarms,
            idle_alarms: Alarms::new(alarm::COARSE),
            access_log,
            traffic: Traffic {
                requests_active_level: metrics.requests_active(),
                ..Traffic::default()
            },
            metrics,
            spill_file: spill_file.map(Rc::new),
            flights: FlightWaits::new(flights),
            host_calls,
            own_routes: OnceCell::new(),
            filling_bytes: Cell::new(0),
            heap_trim: HeapTrim::default(),
            draining: Cell::new(false),
            drain_began: Notify::new(),
            date: RefCell::default(),
            this: Weak::clone(this),
        })
    }

    /// From here on nothing is accepted and every response ends its connection.
    pub fn begin_drain(&self) {
        self.draining.set(true);
        self.drain_began.notify_waiters();
        self.idle_alarms.wake_all();
    }

    /// Stops accepting and lets connections finish. Returns when none is left, or after the time-out; what is left
    /// then ends with the process. A time-out of zero is a stop at once.
    pub async fn drain(&self, timeout: Duration) {
        self.begin_drain();
        let quiet = async {
            while self.connections() > 0 || self.after_responses() > 0 {
                self.traffic.quiet.notified().await;
            }
        };
        if tokio::time::timeout(timeout, quiet).await.is_err() && !timeout.is_zero() {
            let (connections, requests) = (self.connections(), self.requests_active());
            let after_responses = self.after_responses();
            tracing::warn!(
                connections,
                requests,
                after_responses,
                "drain time-out: what is left is closed"
            );
        }
        if let Some(access_log) = &self.access_log {
            access_log.flush();
        }
    }

    /// Hosts that a plugin is granted; `None`: it is granted none.
    pub fn host_calls(&self, plugin: &str) -> Option<&HostCalls> {
        self.host_calls.get(plugin)
    }

    /// Says whose routes are asked by hooks of no request, by plugin. Once, before anything is served.
    pub fn set_own_routes(&self, services: BTreeMap<String, Rc<Service>>) {
        // A second time is no time: services are made once.
        let _ = self.own_routes.set(services);
    }

    /// Service whose routes a plugin's hook of no request asks; `None`: the config does not say which.
    pub fn own_routes(&self, plugin: &str) -> Option<&Rc<Service>> {
        self.own_routes.get()?.get(plugin)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Resolves when [`Self::drain`] is called.
    pub async fn drain_begins(&self) {
        if !self.draining.get() {
            self.drain_began.notified().await;
        }
    }

    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Alarms of idle client connections, which are woken when the worker begins to drain.
    pub fn idle_alarms(&self) -> &Alarms {
        &self.idle_alarms
    }

    /// The upstream that a plan names.
    pub fn upstream(&self, idx: UpstreamIdx) -> &Rc<Upstream> {
        &self.upstreams[idx.0]
    }

    /// By its name in the config.
    pub fn upstream_named(&self, name: &str) -> Option<&Rc<Upstream>> {
        self.upstreams
            .iter()
            .find(|upstream| &*upstream.name == name)
    }

    pub fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    pub fn add_to_access_log(&self, exchange: &Exchange) {
        if let Some(access_log) = &self.access_log {
            access_log.add(exchange);
        }
    }

    pub fn reopen_access_log(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.reopen();
        }
    }

    pub fn connections(&self) -> usize {
        self.traffic.connections.get()
    }

    pub fn requests_active(&self) -> usize {
        self.traffic.requests_active.get()
    }

    /// Requests whose `after_response` hooks run or wait.
    pub fn after_responses(&self) -> usize {
        self.traffic.after_responses.get()
    }

    /// Counts one more until what it returns is dropped: a drain waits for it.
    pub fn count_after_response(self: &Rc<Self>) -> AfterResponseUnderWay {
        let count = self.after_responses() + 1;
        self.traffic.after_responses.set(count);
        AfterResponseUnderWay(Rc::clone(self))
    }

    /// Share of it, for a task that outlives what it was begun by.
    pub fn handle(&self) -> Option<Rc<Self>> {
        self.this.upgrade()
    }

    pub fn requests_total(&self) -> u64 {
        self.traffic.requests_total.get()
    }

    pub fn connection_opened(&self) {
        self.traffic.connections.set(self.connections() + 1);
        self.heap_trim.add(CONNECTION_BYTES);
    }

    pub fn connection_closed(&self) {
        self.traffic.connections.set(self.connections() - 1);
        self.heap_trim.sub(CONNECTION_BYTES);
        if self.connections() == 0 {
            self.traffic.quiet.notify_one();
        }
    }

    /// Counts a request as under way until what it returns is dropped.
    pub fn count_request(&self) -> UnderWay<'_> {
        self.traffic.requests_total.set(self.requests_total() + 1);
        self.set_requests_active(self.requests_active() + 1);
        UnderWay(self)
    }

    fn set_requests_active(&self, count: usize) {
        self.traffic.requests_active.set(count);
        self.traffic.requests_active_level.set(count as f64);
    }

    /// File for bodies that are kept on disk to be sent again; `None`: no route or upstream has any kept there, or the file could
    /// not be opened.
    pub fn spill_file(&self) -> Option<&Rc<SpillFile>> {
        self.spill_file.as_ref()
    }

    /// Waits for values that one request fetches for all.
    pub fn flights(&self) -> &FlightWaits {
        &self.flights
    }

    /// The metrics of all workers.
    pub fn metrics(&self) -> &Recorder {
        &self.metrics
    }

    /// Now, for the `Date` field (RFC 9110 §5.6.7); made once a second.
    pub fn date(&self) -> [u8; 29] {
        self.date.borrow_mut().at(clock::now())
    }
}

/// A request under way.
pub struct UnderWay<'a>(&'a WorkerContext);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set_requests_active(self.0.requests_active() - 1);
    }
}

/// Hooks of a request that run after its response.
pub struct AfterResponseUnderWay(Rc<WorkerContext>);

impl Drop for AfterResponseUnderWay {
    fn drop(&mut self) {
        let traffic = &self.0.traffic;
        let left = traffic.after_responses.get() - 1;
        traffic.after_responses.set(left);
        if left == 0 {
            traffic.quiet.notify_one();
        }
    }
}

/// The date as text.
#[derive(Default)]
struct Date {
    text: [u8; 29],
    /// The end of the second that it is of. `None`: there is no text yet.
    until: Option<Instant>,
}

impl Date {
    fn at(&mut self, now: Instant) -> [u8; 29] {
        if self.until.is_none_or(|until| until <= now) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let since = since.unwrap_or_default();
            let text = httpdate::fmt_http_date(UNIX_EPOCH + since);
            if let Ok(text) = text.as_bytes().try_into() {
                self.text = text;
            }
            let of_second = Duration::from_nanos(since.subsec_nanos().into());
            self.until = Some(now + Duration::from_secs(1) - of_second);
        }
        self.text
    }
}
