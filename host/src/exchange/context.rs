//! The part of an exchange that is of no protocol.

use std::sync::Arc;
use std::time::Instant;

use castling_abi::{DrawnPeer, PeerRecord};

use super::peer_facts::PeerFacts;
use super::usage::{CpuTime, PluginUsage};
use super::{CachedName, ExchangeStats, Permits, PluginStates, Vars};
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::tls::TlsInfo;

/// Facts that every exchange has, whatever is exchanged: who with whom, variables, usage of the plugins, figures.
pub struct Context {
    /// The client as plugins and logs see it; `post_read` may set its IP address.
    pub client: ClientAddress,
    /// The gateway's end of the client's connection.
    pub server: ServerAddress,
    /// `None`: the client's connection is plain.
    pub tls: Option<Arc<TlsInfo>>,
    pub listener: Arc<str>,
    pub upstream: CachedName,
    /// The peer that was tried last.
    pub peer: CachedName,
    pub vars: Vars,
    /// Names of the variables that plugins of the route compute, in their plan's order.
    pub computable: Option<Arc<[Arc<str>]>>,
    /// Bits of those whose computing has begun.
    pub computed: u64,
    /// Usage of each plugin, against its limits.
    pub usage: PluginUsage,
    /// State of each plugin, from one of its hooks to the next.
    pub states: PluginStates,
    /// Permits that plugins hold.
    pub permits: Permits,
    /// Upstream that a plugin has chosen in the place of the route's own.
    pub chosen_upstream: Option<Arc<str>>,
    /// 0 for a client's request, one more for each sub-request around it.
    pub depth: u8,
    /// Plugin whose sub-request it is. Never set in an exchange that is used again.
    pub subrequest_of: Option<Arc<str>>,
    pub balancing: Balancing,
    pub session: Session,
    pub stats: ExchangeStats,
    pub cpu_time: CpuTime,
}

/// Peers that a `balance` hook chooses from.
#[derive(Debug, Default)]
pub struct Balancing {
    /// All by slot, for a plugin that may look at them.
    pub peers: Vec<PeerRecord>,
    /// Two that were drawn, for a plugin that may ask for such.
    pub drawn: [Option<DrawnPeer>; 2],
    /// Facts of all by slot.
    pub facts: Arc<[PeerFacts]>,
}

/// Entry that the zone of its upstream has for the session of a request, where sessions are learnt.
#[derive(Debug, Default)]
pub struct Session {
    is_known: bool,
    /// Digest of the name that it was found by.
    digest: [u8; 16],
    value: Vec<u8>,
}

impl Session {
    /// Digest and value of the entry; `None`: the request has no session, or none that is known.
    pub fn known(&self) -> Option<(&[u8; 16], &[u8])> {
        self.is_known.then_some((&self.digest, &self.value))
    }

    /// Notes what was found; allocations are kept.
    pub fn set(&mut self, digest: [u8; 16], value: &[u8]) {
        self.is_known = true;
        self.digest = digest;
        self.value.clear();
        self.value.extend_from_slice(value);
    }

    pub fn forget(&mut self) {
        self.is_known = false;
    }
}

impl Context {
    pub(super) fn idle() -> Self {
        Self {
            client: ClientAddress::NOBODY,
            server: ServerAddress::NOBODY,
            tls: None,
            listener: Arc::default(), // shared: it takes no allocation
            upstream: CachedName::default(),
            peer: CachedName::default(),
            vars: Vars::default(),
            computable: None,
            computed: 0,
            usage: PluginUsage::default(),
            states: PluginStates::default(),
            permits: Permits::default(),
            chosen_upstream: None,
            depth: 0,
            subrequest_of: None,
            balancing: Balancing::default(),
            session: Session::default(),
            stats: ExchangeStats::new(Instant::now()),
            cpu_time: CpuTime::default(),
        }
    }

    /// Begins with a client, after [`Self::clear`]; allocations are kept.
    #[inline]
    pub(super) fn begin(
        &mut self,
        client: ClientAddress,
        server: ServerAddress,
        listener: &Arc<str>,
        started: Instant,
    ) {
        self.client = client;
        self.server = server;
        if !Arc::ptr_eq(&self.listener, listener) {
            self.listener = Arc::clone(listener);
        }
        self.stats.started = started;
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.tls = None;
        self.upstream.unset();
        self.peer.unset();
        self.vars.clear();
        self.computable = None;
        self.computed = 0;
        self.usage.clear();
        self.states.clear();
        self.permits.clear();
        self.chosen_upstream = None;
        self.depth = 0;
        self.session.forget();
        self.stats = ExchangeStats::new(self.stats.started);
        self.cpu_time.clear();
    }

    /// Name of the plugin whose sub-request it is.
    pub(super) fn subrequest_of(&self) -> Option<&[u8]> {
        self.subrequest_of.as_deref().map(str::as_bytes)
    }

    /// The index of a variable that a plugin of the route computes, when nothing has asked for it yet.
    pub fn uncomputed(&self, name: &[u8]) -> Option<usize> {
        let mut names = self.computable.as_ref()?.iter();
        let idx = names.position(|computable| computable.as_bytes() == name)?;
        (self.computed & (1 << idx) == 0).then_some(idx)
    }
}
