//! Memory of the fake host: a world for each thread, facts for each exchange.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use castling_abi::{ErrorKind, Hook, LogLevel, Number, Property, TlsFact};

use super::calls::Calls;
use super::files::Granted;
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
    /// Messages by topic.
    pub(super) published: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// By zone.
    pub(super) zone_faults: BTreeMap<Vec<u8>, ZoneFault>,
    pub(super) metrics: Metrics,
    pub(super) files: Vec<Granted>,
    /// The hook that runs; `None` in the test's own code and in `configure`.
    pub(super) hook: Option<Hook>,
    /// `limits.body`.
    pub(super) body_limit_bytes: usize,
    /// `limits.emit`.
    pub(super) emit_limit_bytes: usize,
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
    /// State that the plugin keeps for this request.
    pub(super) state: Option<Vec<u8>>,
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
    pub(super) body_skipped: bool,
    pub(super) bodies: Bodies,
    pub(super) calls: Calls,
    /// Upstreams that requests may be sent to.
    pub(super) granted_upstreams: Vec<String>,
    pub(super) chosen_upstream: Option<String>,
    pub(super) connections: Connections,
    pub(super) streamed_calls: StreamedCalls,
    pub(super) peers: Vec<FakePeer>,
}

/// The bodies, and what of them `read_body` has read, or `peek_body`.
#[derive(Default)]
pub(super) struct Bodies {
    pub(super) request: Vec<u8>,
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
            published: BTreeMap::new(),
            zone_faults: BTreeMap::new(),
            metrics: Metrics::new(),
            files: Vec::new(),
            hook: None,
            body_limit_bytes: 1 << 20,
            emit_limit_bytes: 128 << 20,
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
