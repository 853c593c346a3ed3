//! Upstreams, as the master knows them: which peers they have at this moment, by which numbers these are known, and the
//! memory of their state.

mod counts;
mod fetcher;
mod generation_peers;
mod numbers;
mod operator;
mod report;
mod source;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::balancer::SlowStart;
use crate::config::{self, Config, PeersUrl};
use crate::fetch::dns::SystemNames;
use crate::fetch::{
    Answer, Ask, Found, Learnt, ListHost, ListQuestion, Listed as ListState, NameKind,
    NameQuestion, Validators,
};
use crate::transport::PeerAddress;
use crate::upstream::{Checks, PeerList, PeerStates};
use crate::zone::PeersZone;

use super::metrics::Ledger;
use counts::Told;
use fetcher::Fetcher;
use numbers::NumbersOffer;
use operator::Orders;
use source::{Source, SourceKey, SourceKind, SourceOffer};
use table::{LeasedList, PeerLease, PeerTable, Resolved};

pub use fetcher::run as run_fetch_helper;
pub use generation_peers::GenerationPeers;
pub use operator::PeerOrder;
pub use report::{CheckReport, PeerReport, UpstreamReport};
pub use source::SourceReport;

/// Peers of a generation, by upstream.
pub type Lists = BTreeMap<String, UpstreamPeers>;

/// Peers of one upstream of a generation.
pub struct UpstreamPeers {
    pub leased: LeasedList,
    listed: Vec<Listed>,
    /// Checks that its peers have.
    checks: Checks,
    slow_start: Option<SlowStart>,
    /// Whether it has a breaker, whose counts are all workers'.
    is_limited: bool,
}

/// Peer of the config, or what the peers of a list have in common.
struct Listed {
    peer: config::Peer,
    /// `None`: its address is in the config.
    source: Option<Rc<Source>>,
}

/// Upstreams of a gateway, over its generations.
pub struct Upstreams {
    table: Rc<PeerTable>,
    /// Peers that the master before this one has in use.
    before: RefCell<Vec<PeerLease>>,
    /// Last good answers of that master, for names that are not asked for yet.
    answers_before: RefCell<Vec<SourceOffer>>,
    sources: RefCell<Vec<Weak<Source>>>,
    /// Orders of the operator by upstream.
    orders: RefCell<BTreeMap<String, Orders>>,
    /// Generations whose workers are told of changes.
    generations: RefCell<Vec<Weak<GenerationPeers>>>,
    /// Peers of the generation that serves, which the metrics count.
    serving: RefCell<Weak<GenerationPeers>>,
    fetcher: Rc<Fetcher>,
    system: SystemNames,
    metrics: RefCell<Option<Rc<Ledger>>>,
    /// Counts of peers that the metrics have.
    told: RefCell<Told>,
}

/// Memory of the peers' state, and which place in it is whose.
pub struct InheritedPeers {
    pub memory: OwnedFd,
    pub offer: UpstreamsOffer,
}

/// Everything that another master needs beside the memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpstreamsOffer {
    #[serde(flatten)]
    numbers: NumbersOffer,
    /// Last good answers.
    #[serde(default)]
    sources: Vec<SourceOffer>,
    /// Orders of the operator by upstream.
    #[serde(default)]
    orders: BTreeMap<String, Orders>,
}

const OTHER_ANSWER: &str = "the helper that asks has answered something else";

/// Time for which an address in the system's own file is good, before the file is looked at again.
const HOSTS_TTL: Duration = Duration::from_secs(5);

impl Upstreams {
    /// Upstreams of a gateway that begins. The error is a line for a person.
    pub fn new() -> Result<Rc<Self>, String> {
        let zone = PeersZone::create().map_err(|error| error.to_string())?;
        let table = PeerTable::new(Rc::new(zone));
        Ok(Self::over(table, Vec::new(), Vec::new()))
    }

    fn over(table: Rc<PeerTable>, before: Vec<PeerLease>, answers: Vec<SourceOffer>) -> Rc<Self> {
        Rc::new(Self {
            table,
            before: RefCell::new(before),
            answers_before: RefCell::new(answers),
            sources: RefCell::default(),
            orders: RefCell::default(),
            generations: RefCell::default(),
            serving: RefCell::default(),
            fetcher: Rc::default(),
            system: SystemNames::default(),
            metrics: RefCell::default(),
            told: RefCell::default(),
        })
    }

    /// Upstreams as another master hands them over. Those that were made in a way that this version does not know, or of a
    /// master that knew of none, begin anew. The error is a line for a person.
    pub fn inherit(handed_over: Option<InheritedPeers>) -> Result<Rc<Self>, String> {
        let Some(InheritedPeers { memory, offer }) = handed_over else {
            return Self::new();
        };
        let zone = match PeersZone::open(memory) {
            Ok(zone) => Rc::new(zone),
            Err(error) => {
                tracing::warn!(%error, "all that is known of peers begins anew");
                return Self::new();
            }
        };
        let (table, before) = PeerTable::inherit(zone, offer.numbers);
        let upstreams = Self::over(table, before, offer.sources);
        upstreams.orders.replace(offer.orders);
        Ok(upstreams)
    }

    /// Finds the peers of a config, and goes on looking for them as long as there are lists. The error is lines with places for
    /// a person.
    pub async fn lists(self: &Rc<Self>, config: &Config) -> Result<Lists, Vec<String>> {
        self.fetcher.follow(&config.workers);
        let upstreams = config.upstreams.iter();
        let listed = upstreams.map(|(name, upstream)| (name.clone(), self.listed(name, upstream)));
        let listed: BTreeMap<_, _> = listed.collect();
        let sources = listed.values().flatten();
        let sources = sources.filter_map(|listed| listed.source.as_ref());
        join_all(sources.map(|source| source.settled())).await;
        let (mut lists, mut errors) = (Lists::new(), Vec::new());
        for (name, listed) in listed {
            let upstream = &config.upstreams[&name];
            let placed = |error| format!("{}: upstream {name}: {error}", upstream.place);
            errors.extend(missing(upstream, &listed).map(placed));
            let is_limited = upstream.breaker != config::Breaker::default();
            match self.lease(&name, peers(&listed), is_limited) {
                Ok(leased) => {
                    tell_same_addresses(&name, &leased.list);
                    let peers = UpstreamPeers {
                        leased,
                        listed,
                        checks: Checks::of(upstream),
                        slow_start: upstream.slow_start.as_ref().map(SlowStart::of),
                        is_limited,
                    };
                    lists.insert(name, peers);
                }
                Err(error) => errors.push(placed(error)),
            }
        }
        match errors.is_empty() {
            true => Ok(lists),
            false => Err(errors),
        }
    }

    /// Everything that the config lists for an upstream. Sources are asked from now on.
    fn listed(self: &Rc<Self>, name: &str, upstream: &config::Upstream) -> Vec<Listed> {
        let listed = upstream.peers.iter().map(|peer| Listed {
            peer: peer.clone(),
            source: SourceKey::of(name, upstream, peer).map(|key| self.source(key)),
        });
        let of_file = upstream.peers_file.iter();
        let of_file = of_file.map(|file| SourceKey::of_file(name, file));
        let of_url = upstream.peers_url.iter();
        let of_url = of_url.map(|url| SourceKey::of_url(name, url, &upstream.resolve));
        let lists = of_file.chain(of_url).map(|key| Listed {
            peer: config::Peer {
                address: key.name.clone(),
                srv: false,
                weight: NonZero::<u16>::MIN,
                backup: false,
                zone: None,
                route: None,
                tags: Vec::new(),
                max_active: None,
            },
            source: Some(self.source(key)),
        });
        listed.chain(lists).collect()
    }

    /// The source of this key, asked for from now on if it was not.
    fn source(self: &Rc<Self>, key: SourceKey) -> Rc<Source> {
        let mut sources = self.sources.borrow_mut();
        sources.retain(|source| source.strong_count() > 0);
        let known = sources.iter().filter_map(Weak::upgrade);
        let known: Vec<Rc<Source>> = known.collect();
        if let Some(same) = known.iter().find(|source| source.key == key) {
            return Rc::clone(same);
        }
        // Other settings, or another master: what was known is good until there is an answer.
        let (upstream, name) = (&key.upstream, &key.name);
        let is_same = |of: &str, named: &str| of == upstream && named == name;
        let other = known
            .iter()
            .find(|it| is_same(&it.key.upstream, &it.key.name));
        let answers_before = self.answers_before.borrow();
        let handed_over = answers_before
            .iter()
            .find(|it| is_same(&it.upstream, &it.name));
        let before = match (other, handed_over) {
            (Some(other), _) => other.found(),
            (None, Some(offer)) => offer.found.clone(),
            (None, None) => Vec::new(),
        };
        drop(answers_before);
        let source = Source::begin(key, before, self);
        sources.push(Rc::downgrade(&source));
        source
    }

    /// Asks for the addresses of a name.
    async fn ask(&self, key: &SourceKey) -> Result<Answer, String> {
        let (name, kind) = key.asked();
        if let NameKind::Host { port } = kind {
            let found = self.system.in_hosts(name, port, key.resolve.family);
            if !found.is_empty() {
                return Ok(Answer {
                    found,
                    unknown: Vec::new(),
                    ttl: HOSTS_TTL,
                });
            }
        }
        match self.fetcher.ask(Ask::Name(self.question(key))).await? {
            Learnt::Addresses(answer) => Ok(answer),
            Learnt::List(_) => Err(OTHER_ANSWER.to_owned()),
        }
    }

    /// The question for the name of a source.
    fn question(&self, key: &SourceKey) -> NameQuestion {
        let (name, kind) = key.asked();
        let system = self.system.resolv_conf();
        NameQuestion {
            name: name.to_owned(),
            kind,
            family: key.resolve.family,
            servers: match key.resolve.servers.is_empty() {
                true => system.servers,
                false => key.resolve.servers.clone(),
            },
            search: system.search,
            ndots: system.ndots,
            timeout: key.resolve.timeout,
        }
    }

    /// Asks for the list at a URL.
    async fn fetch(
        &self,
        key: &SourceKey,
        url: &PeersUrl,
        validators: Validators,
    ) -> Result<ListState, String> {
        let question = ListQuestion {
            url: url.clone(),
            host: self.host(key, url),
            validators,
        };
        match self.fetcher.ask(Ask::List(Box::new(question))).await? {
            Learnt::List(list) => Ok(list),
            Learnt::Addresses(_) => Err(OTHER_ANSWER.to_owned()),
        }
    }

    /// Where the host of a URL is, as far as the master knows.
    fn host(&self, key: &SourceKey, url: &PeersUrl) -> ListHost {
        if let Ok(address) = url.authority.parse::<SocketAddr>() {
            return ListHost::Addresses(vec![address]);
        }
        let (name, kind) = key.asked();
        let found = match kind {
            NameKind::Host { port } => self.system.in_hosts(name, port, key.resolve.family),
            NameKind::Service => Vec::new(),
        };
        let found: Vec<_> = found.iter().filter_map(|it| it.address.inet()).collect();
        match found.is_empty() {
            true => ListHost::Name(self.question(key)),
            false => ListHost::Addresses(found),
        }
    }

    /// Tells the workers of this generation of changes from now on.
    pub fn follow(&self, generation: &Rc<GenerationPeers>) {
        let mut generations = self.generations.borrow_mut();
        generations.retain(|generation| generation.strong_count() > 0);
        generations.push(Rc::downgrade(generation));
    }

    fn count(&self, upstream: &str, is_ok: bool) {
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.metrics().resolved(upstream, is_ok);
        }
    }

    /// Numbers for the peers of an upstream, as the operator wants them.
    fn lease(
        &self,
        upstream: &str,
        peers: Vec<Resolved>,
        is_limited: bool,
    ) -> Result<LeasedList, String> {
        let lease = |peers| match is_limited {
            true => self.table.lease_limited(upstream, peers),
            false => self.table.lease(upstream, peers),
        };
        let (orders, none) = (self.orders.borrow(), Orders::default());
        let orders = orders.get(upstream).unwrap_or(&none);
        let leased = lease(orders.applied(peers))?;
        let states = PeerStates::new(Rc::clone(self.zone()), None);
        if orders.write(&leased.list.peers, &states) {
            states.of(leased.list.cell).raise_epoch();
        }
        Ok(leased)
    }

    /// Takes an order for an upstream of this generation in, and has it followed. The error is a line for a person.
    pub fn order(
        &self,
        upstream: &str,
        order: PeerOrder,
        newest: &GenerationPeers,
    ) -> Result<(), String> {
        let listed = newest.with_lists(|lists| {
            let peers = &lists.get(upstream)?.leased.list.peers;
            Some(
                peers
                    .iter()
                    .map(|peer| peer.address.clone())
                    .collect::<Vec<_>>(),
            )
        });
        // An upstream that is not there is told by who asks for its report.
        let Some(listed) = listed else {
            return Ok(());
        };
        let is_listed = self.lists_anywhere(upstream, order.address());
        let mut orders = self.orders.borrow_mut();
        let of_upstream = orders.entry(upstream.to_owned()).or_default();
        let taken = of_upstream.take(&order, &listed, is_listed);
        if *of_upstream == Orders::default() {
            orders.remove(upstream);
        }
        drop(orders);
        order.tell(upstream, taken.as_ref().err().map(String::as_str));
        if taken.is_ok() {
            self.refresh(upstream);
        }
        taken
    }

    /// Whether a generation has a peer at this address by its config, or by a list that it names.
    fn lists_anywhere(&self, upstream: &str, address: &PeerAddress) -> bool {
        let generations = self.generations.borrow();
        let mut generations = generations.iter().filter_map(Weak::upgrade);
        generations.any(|generation| {
            generation.with_lists(|lists| {
                let listed = lists.get(upstream).map(|held| peers(&held.listed));
                listed.is_some_and(|peers| peers.iter().any(|peer| peer.address == *address))
            })
        })
    }

    /// Has every generation that has the upstream balance among the peers that there are now.
    fn refresh(&self, upstream: &str) {
        let generations = self.generations.borrow();
        for generation in generations.iter().filter_map(Weak::upgrade) {
            self.refresh_in(&generation, upstream);
        }
    }

    fn refresh_in(&self, generation: &Rc<GenerationPeers>, upstream: &str) {
        let now = generation.with_lists(|lists| {
            let held = lists.get(upstream)?;
            let now = peers(&held.listed);
            Some((now, held.leased.list.clone(), held.is_limited))
        });
        let Some((now, before, is_limited)) = now else {
            return;
        };
        match self.lease(upstream, now, is_limited) {
            Ok(leased) if leased.list == before => {}
            Ok(leased) => {
                let peers = leased.list.peers.len();
                tracing::debug!(upstream, peers, "has other peers");
                generation.set(upstream, leased);
                self.tell_counts();
            }
            Err(error) => tracing::error!(upstream, "its peers stay as they were: {error}"),
        }
    }

    /// Ends all questions: the gateway is another master's, or stops.
    pub fn end(&self) {
        self.generations.take();
        self.sources.take();
        self.metrics.take();
        self.fetcher.end();
    }

    /// Memory of the peers' state.
    pub fn zone(&self) -> &Rc<PeersZone> {
        self.table.zone()
    }

    /// Descriptor of that memory, for a worker or another master.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.zone().descriptor()
    }

    /// Everything that another master needs beside the memory.
    pub fn offer(&self) -> UpstreamsOffer {
        let sources = self.sources.borrow();
        let sources = sources.iter().filter_map(Weak::upgrade);
        let known = sources.filter(|source| source.missing().is_none());
        UpstreamsOffer {
            numbers: self.table.offer(),
            sources: known.map(|source| source.offer()).collect(),
            orders: self.orders.borrow().clone(),
        }
    }

    /// Takes an offer back of which nothing came.
    pub fn keep(&self) {
        self.table.keep();
    }

    /// Frees what the master had in use that has handed over: it has ended, and so have its workers.
    pub fn is_alone(&self) {
        drop(self.before.take());
    }
}

/// Peers of an upstream, as far as they are known.
fn peers(listed: &[Listed]) -> Vec<Resolved> {
    let mut resolved = Vec::new();
    for Listed { peer, source } in listed {
        match source {
            Some(source) => {
                let found = source.found();
                resolved.extend(found.into_iter().map(|found| by_name(peer, found)));
            }
            None => resolved.extend(by_address(peer)),
        }
    }
    resolved
}

/// Tells of addresses that several names of the config have: such a peer gets the requests of all of them.
fn tell_same_addresses(upstream: &str, list: &PeerList) {
    let mut names: BTreeMap<&PeerAddress, Vec<&str>> = BTreeMap::new();
    for peer in &list.peers {
        names.entry(&peer.address).or_default().push(&peer.host);
    }
    for (peer, names) in names.into_iter().filter(|(_, names)| names.len() > 1) {
        let names = names.join(", ");
        tracing::warn!(upstream, %peer, names, "a peer is listed by several names");
    }
}

fn by_name(peer: &config::Peer, found: Found) -> Resolved {
    let weight = found.weight.unwrap_or(peer.weight.get());
    Resolved {
        address: found.address,
        host: found.host.unwrap_or_else(|| peer.address.clone()),
        weight: weight.into(),
        is_backup: peer.backup || found.is_backup,
        settings: config::Peer {
            max_active: found.max_active.or(peer.max_active),
            zone: found.zone.or_else(|| peer.zone.clone()),
            route: found.route.or_else(|| peer.route.clone()),
            tags: match found.tags.is_empty() {
                true => peer.tags.clone(),
                false => found.tags,
            },
            ..peer.clone()
        },
    }
}

/// A peer whose address is in the config.
fn by_address(peer: &config::Peer) -> Option<Resolved> {
    // Checked when the config was read.
    let address = PeerAddress::try_from(peer.address.clone()).ok()?;
    Some(Resolved {
        address,
        host: peer.address.clone(),
        weight: peer.weight.get().into(),
        is_backup: peer.backup,
        settings: peer.clone(),
    })
}

/// Errors of the names that have to have addresses and have none.
fn missing<'a>(
    upstream: &'a config::Upstream,
    listed: &'a [Listed],
) -> impl Iterator<Item = String> + 'a {
    let listed = listed.iter().filter(|_| upstream.resolve.required);
    listed.filter_map(|Listed { peer, source }| {
        let source = source.as_ref()?;
        let error = source.missing()?;
        Some(match source.key.kind {
            SourceKind::File => format!("peers_file: {error}"),
            SourceKind::Url(_) => format!("peers_url {} cannot be fetched: {error}", peer.address),
            SourceKind::Host | SourceKind::Service => {
                format!("peer {}: cannot be resolved: {error}", peer.address)
            }
        })
    })
}

/// Peers of a config, and memory for their state which no gateway has, for `castling check`. The error is lines with places
/// for a person.
pub async fn peers_for_check(
    config: &Config,
) -> Result<(BTreeMap<String, PeerList>, PeerStates), Vec<String>> {
    let upstreams = Upstreams::new().map_err(|error| vec![error])?;
    let lists = upstreams.lists(config).await?;
    upstreams.end();
    let lists = lists.into_iter();
    let lists = lists.map(|(name, peers)| (name, peers.leased.list));
    let states = PeerStates::new(Rc::clone(upstreams.zone()), None);
    Ok((lists.collect(), states))
}
