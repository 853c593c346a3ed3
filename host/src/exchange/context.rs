//! The part of an exchange that is of no protocol.

use std::sync::Arc;
use std::time::Instant;

use castling_abi::PeerRecord;

use super::usage::{CpuTime, PluginUsage};
use super::{CachedName, ExchangeStats, Vars};
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
    /// 0 for a client's request, one more for each sub-request around it.
    pub depth: u8,
    pub balancing: Balancing,
    pub stats: ExchangeStats,
    pub cpu_time: CpuTime,
}

/// Peers that a `balance` hook chooses from.
#[derive(Debug, Default)]
pub struct Balancing {
    pub peers: Vec<PeerRecord>,
    pub addresses: Arc<[Arc<str>]>,
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
            depth: 0,
            balancing: Balancing::default(),
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
        self.depth = 0;
        self.stats = ExchangeStats::new(self.stats.started);
        self.cpu_time.clear();
    }

    /// The index of a variable that a plugin of the route computes, when nothing has asked for it yet.
    pub fn uncomputed(&self, name: &[u8]) -> Option<usize> {
        let mut names = self.computable.as_ref()?.iter();
        let idx = names.position(|computable| computable.as_bytes() == name)?;
        (self.computed & (1 << idx) == 0).then_some(idx)
    }
}
