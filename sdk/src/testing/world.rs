//! Memory of the fake host: a world for each thread, facts for each exchange.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use castling_abi::rules::limits;
use castling_abi::rules::usage::{Size, Usage};
use castling_abi::{ErrorKind, Grant, Hook, LogLevel, Number, Property, Status, TlsFact};

use super::calls::Calls;
use super::computed::Computed;
use super::files::Granted;
use super::flight::Flight;
use super::gauge::Permits;
use super::kv::KvZone;
use super::metrics::Metrics;
use super::stream::StreamedBody;
use super::streamed::StreamedCalls;
use super::tcp::Connections;
use super::zones::Zones;
use super::{FakePeer, ZoneFault};

/// Facts without an exchange.
pub(crate) struct World {
    pub(crate) config: String,
    pub(super) monotonic: Duration,
    pub(super) wall: Duration,
    random_script: VecDeque<u64>,
    random_state: u64,
    pub(super) log_lines: Vec<(LogLevel, String)>,
    pub(crate) failure: Option<String>,
    /// Kind of it.
    pub(crate) failure_kind: ErrorKind,
    pub(super) zones: Zones,
    /// Kv zones by name.
    pub(super) kv: BTreeMap<Vec<u8>, KvZone>,
    /// Permits of all gauge zones.
    pub(super) permits: Permits,
    /// Fetches of other requests.
    pub(super) flights: Vec<Flight>,
    /// Patterns of hosts that are granted; `None`: nothing was said of any.
    pub(super) hosts: Option<Vec<String>>,
    /// Messages by topic.
    pub(super) published: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// By zone.
    pub(super) zone_faults: BTreeMap<Vec<u8>, ZoneFault>,
    pub(super) metrics: Metrics,
    pub(super) files: Vec<Granted>,
    /// Variables that the plugin that was configured last computes, beside those of its manifest.
    pub(super) declared: Vec<Vec<u8>>,
    /// The hook that runs; `None` in the test's own code and in `configure`.
    pub(super) hook: Option<Hook>,
    /// The hook that called it.
    pub(super) asker: Option<Hook>,
    /// The plugin whose hooks run, of those in a chain.
    pub(super) plugin: usize,
    /// Names of a chain's plugins.
    pub(super) plugin_names: Vec<String>,
    pub(super) limits: Limits,
    /// Host calls that the hook may still make.
    pub(super) host_calls_left: u32,
    /// What is written down of host calls; `None`: nothing is.
    pub(super) trace: Option<Vec<String>>,
    /// Kinds of zones that a test has said.
    pub(super) zone_kinds: BTreeMap<Vec<u8>, Grant>,
    /// The exchange that was lent last.
    current: Option<Rc<RefCell<Facts>>>,
}

/// Facts of one exchange.
#[derive(Default)]
pub(super) struct Facts {
    /// By [`Property`].
    pub(super) properties: [Option<Vec<u8>>; Property::ALL.len()],
    /// By [`Number`].
    pub(super) numbers: [Option<i64>; Number::ALL.len()],
    /// By [`TlsFact`].
    pub(super) tls: [Option<String>; TlsFact::ALL.len()],
    pub(super) request_headers: Section,
    /// Status and headers; none before the response.
    pub(super) response: Option<(u16, Section)>,
    /// After the body that passes.
    pub(super) trailers: Section,
    pub(super) vars: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) computed: Computed,
    /// States that plugins keep for this request, each its own.
    pub(super) states: BTreeMap<usize, Vec<u8>>,
    /// What each plugin has added to parts of the exchange.
    pub(super) usage: BTreeMap<(usize, Part), Usage>,
    pub(super) answer: Option<(u16, Vec<u8>, Vec<u8>)>,
    /// Body of the response that a hook writes piece by piece.
    pub(super) stream: Option<StreamedBody>,
    /// Pieces after which nobody takes more of it.
    pub(super) wanted_pieces: Option<usize>,
    pub(super) chunk: Vec<u8>,
    /// Parts that the hook has sent on in its place.
    pub(super) emitted: Vec<Vec<u8>>,
    /// A chunk has ended its body.
    pub(super) body_ended: bool,
    /// Plugins that do not want to see the response's body.
    pub(super) skips: Vec<usize>,
    pub(super) bodies: Bodies,
    pub(super) calls: Calls,
    /// Calls out that were made.
    pub(super) calls_made: usize,
    /// Upstreams that requests may be sent to.
    pub(super) granted_upstreams: Vec<String>,
    pub(super) chosen_upstream: Option<String>,
    pub(super) connections: Connections,
    pub(super) streamed_calls: StreamedCalls,
    pub(super) peers: Vec<FakePeer>,
}

/// A part of the exchange that plugins add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    RequestHead,
    ReplyHead,
    Variables,
}

/// Limits of the plugin: those of a config that says nothing of them, unless a test does.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) body_bytes: usize,
    pub(super) emit_bytes: usize,
    pub(super) state_bytes: usize,
    pub(super) permits: usize,
    pub(super) calls: usize,
    pub(super) host_calls: u32,
    /// Fields that it may add to a head.
    pub(super) head: Size,
    pub(super) variables: Size,
}

impl Limits {
    const DEFAULT: Self = Self {
        body_bytes: limits::BODY_BYTES,
        emit_bytes: limits::EMIT_BYTES,
        state_bytes: limits::STATE_BYTES,
        permits: limits::PERMITS,
        calls: limits::CALLS as usize,
        host_calls: limits::HOST_CALLS,
        head: Size {
            count: limits::HEADERS,
            bytes: limits::HEADER_BYTES,
        },
        variables: Size {
            count: limits::VARIABLES,
            bytes: limits::VARIABLE_BYTES,
        },
    };
}

impl Facts {
    /// Counts what the plugin adds to a part in the place of something else. Beyond its limits nothing is counted, and it must not
    /// be added.
    pub(super) fn add(&mut self, part: Part, comes: Size, goes: Size) -> Result<(), Status> {
        let (plugin, most) = with_world(|world| {
            let most = match part {
                Part::RequestHead | Part::ReplyHead => world.limits.head,
                Part::Variables => world.limits.variables,
            };
            (world.plugin, most)
        });
        let added = self.usage.entry((plugin, part)).or_default();
        let after = added.after(comes, goes);
        let fits_alone = part == Part::Variables || comes.is_within(most);
        if !fits_alone || !after.is_within(most) {
            return Err(Status::Limit);
        }
        *added = after;
        Ok(())
    }

    /// Counts what the plugin takes away from a part.
    pub(super) fn take_away(&mut self, part: Part, goes: Size) {
        let plugin = with_world(|world| world.plugin);
        let added = self.usage.entry((plugin, part)).or_default();
        *added = added.after(Size::default(), goes);
    }

    /// Counts calls out of the request. False: they would be more than `limits.calls`.
    pub(super) fn count_calls(&mut self, calls: usize) -> bool {
        let most = with_world(|world| world.limits.calls);
        let is_within = self.calls_made + calls <= most;
        if is_within {
            self.calls_made += calls;
        }
        is_within
    }

    /// Whether an upstream is granted, for requests, calls or connections.
    pub(super) fn has_upstream(&self, name: &str) -> bool {
        self.granted_upstreams.iter().any(|one| one == name)
            || self.calls.scripts.contains_key(name)
            || self.connections.has(name.as_bytes())
    }

    /// Forgets what plugins have added to a response that another takes the place of.
    pub(super) fn forget_reply(&mut self) {
        self.usage.retain(|(_, part), _| *part != Part::ReplyHead);
    }

    /// Forgets what the host holds for a hook until it returns.
    pub(super) fn forget_results(&mut self) {
        self.bodies.request_read = None;
        self.bodies.response_read = None;
        self.calls.forget();
        self.streamed_calls.forget();
        self.connections.error = None;
    }
}

/// The bodies, and what of them `read_body` has read, or `peek_body`.
#[derive(Default)]
pub(super) struct Bodies {
    pub(super) request: Vec<u8>,
    /// The request's has come, because somebody has asked for it.
    pub(super) is_received: bool,
    /// How much of it.
    pub(super) request_read: Option<usize>,
    pub(super) response: Vec<u8>,
    pub(super) response_read: Option<usize>,
}

/// Headers, names in lower case.
pub(super) type Section = Vec<(String, Vec<u8>)>;

impl World {
    const fn new() -> Self {
        Self {
            config: String::new(),
            monotonic: Duration::from_secs(1_000),
            wall: Duration::from_secs(1_700_000_000),
            random_script: VecDeque::new(),
            random_state: 1,
            log_lines: Vec::new(),
            failure: None,
            failure_kind: ErrorKind::Own,
            zones: Zones::new(),
            kv: BTreeMap::new(),
            permits: Permits::new(),
            flights: Vec::new(),
            hosts: None,
            published: BTreeMap::new(),
            zone_faults: BTreeMap::new(),
            metrics: Metrics::new(),
            files: Vec::new(),
            declared: Vec::new(),
            hook: None,
            asker: None,
            plugin: 0,
            plugin_names: Vec::new(),
            limits: Limits::DEFAULT,
            host_calls_left: limits::HOST_CALLS,
            trace: None,
            zone_kinds: BTreeMap::new(),
            current: None,
        }
    }

    pub(super) fn script_random(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.random_script = numbers.into_iter().collect();
    }

    /// The script, then SplitMix64: other numbers at every call, the same in every run.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random_script.pop_front().unwrap_or_else(|| {
            self.random_state = self.random_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.random_state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}

thread_local! {
    static WORLD: RefCell<World> = const { RefCell::new(World::new()) };
}

pub(crate) fn with_world<T>(use_it: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(use_it)
}

/// Makes `facts` those that the host's functions serve.
pub(super) fn lend(facts: &Rc<RefCell<Facts>>) {
    with_world(|world| world.current = Some(Rc::clone(facts)));
}

/// The exchange that was lent last.
pub(super) fn current() -> Option<Rc<RefCell<Facts>>> {
    with_world(|world| world.current.clone())
}

/// The exchange that was lent last; one without anything where none was.
pub(super) fn with_facts<T>(use_them: impl FnOnce(&mut Facts) -> T) -> T {
    let current = current().unwrap_or_default();
    let mut facts = current.borrow_mut();
    use_them(&mut facts)
}
