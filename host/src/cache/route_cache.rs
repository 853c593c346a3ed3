//! The cache of one route: its zone, its keys, and its rules.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tracing::warn;

use super::directives::RequestDirectives;
use super::entry::{Entry, Response};
use super::freshness::{Freshness, Moment};
use super::key::KeyDigest;
use super::storable::Rules;
use super::vary::Vary;
use crate::exchange::{Exchange, Template};
use crate::message::{Headers, KnownHeader, Scheme, conditions};
use crate::metrics::CacheMetrics;
use crate::runtime::random;
use crate::zone::{Expected, FlightKey, Key, KvZone, ZoneError, now_ns};

/// Cache of a route.
pub struct RouteCache {
    pub zone: Arc<KvZone>,
    pub zone_name: Box<str>,
    /// Name of the route.
    pub route: Box<str>,
    /// `None`: the default.
    pub key: Option<Template>,
    pub rules: Rules,
    pub obeys_client: bool,
    pub bypass: Vec<Template>,
    pub no_store: Vec<Template>,
    /// Longest wait for the response that another request fetches.
    pub wait: Duration,
    pub max_body_bytes: u64,
    /// How long a response is kept that nobody asks for.
    pub keep: Duration,
    pub shows_status: bool,
    pub metrics: CacheMetrics,
}

/// Entry of a request.
pub enum Found {
    Nothing {
        /// There are other variants.
        varies: bool,
    },
    /// Requests of this key do not wait for one another.
    Passes,
    Response(Box<Response>),
}

/// Place of a request's response in the zone.
pub struct Place {
    /// Key of the response, whatever it varies by.
    pub primary: KeyDigest,
    /// Key of the variant that the request has.
    pub variant: KeyDigest,
}

impl Place {
    /// Copy of the place, for somebody else.
    pub fn again(&self) -> Self {
        Self { ..*self }
    }

    /// Key of those who fetch what lies there.
    pub fn flight(&self, cache: &RouteCache) -> FlightKey {
        FlightKey::new(&cache.zone_name, self.variant.bytes())
    }
}

/// Why a request goes to the origin without a look at what is stored, as RFC 9211 §2.2 calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    Method,
    /// The request itself asks for it.
    Request,
}

impl Past {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Request => "request",
        }
    }
}

/// Outcome of a request at a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Hit,
    /// A stale response was sent.
    Stale,
    /// The origin has said that what is stale is good.
    Revalidated,
    Miss,
    /// The config or the client has the origin asked.
    Bypass,
    /// The request is not for a cache.
    Past,
}

impl Outcome {
    /// Value of `$cache_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Past => "past",
        }
    }
}

/// How long requests of a key do not wait for one another where its responses are not to be stored.
pub const PASSES_FOR: Duration = Duration::from_secs(10);

/// How long they do not where a response could not be had, or not be stored for this once.
pub const PASSES_ONCE_FOR: Duration = Duration::from_secs(1);

/// How long it is known that a key was invalidated: longer than nearly all fetches take.
const GONE_FOR: Duration = Duration::from_secs(60);

/// Part of the time that a response is kept after which a use of it is noted: each write costs more than ten uses.
const NOTED_EACH: u32 = 8;

impl RouteCache {
    /// Counts the outcome of a request, and has the log tell it.
    pub fn note(&self, outcome: Outcome, exchange: &mut Exchange) {
        let metrics = &self.metrics;
        let count = match outcome {
            Outcome::Hit => &metrics.hit,
            Outcome::Stale => &metrics.stale,
            Outcome::Revalidated => &metrics.revalidated,
            Outcome::Miss => &metrics.miss,
            Outcome::Bypass => &metrics.bypass,
            Outcome::Past => &metrics.past,
        };
        count.inc();
        exchange.stats_mut().cache = Some(outcome.as_str());
    }

    /// Whether the cache has anything to do with the request. `has_body`: the request's.
    pub fn takes(&self, exchange: &Exchange, has_body: bool) -> Result<(), Past> {
        let request = exchange.request();
        let is_read = request.method == Method::GET || request.method == Method::HEAD;
        if !is_read {
            return Err(Past::Method);
        }
        let is_special =
            has_body || request.upgrade.is_some() || conditions::is_for_origin(&request.headers);
        match is_special {
            true => Err(Past::Request),
            false => Ok(()),
        }
    }

    /// The directives of a request that count.
    pub fn directives(&self, exchange: &Exchange) -> RequestDirectives {
        match self.obeys_client {
            true => RequestDirectives::of(&exchange.request().headers),
            false => RequestDirectives::default(),
        }
    }

    pub fn is_bypassed(&self, exchange: &Exchange) -> bool {
        any_holds(&self.bypass, exchange)
    }

    pub fn stores_nothing_of(&self, exchange: &Exchange) -> bool {
        any_holds(&self.no_store, exchange)
    }

    /// Key of the exchange's request to this upstream. Another upstream's responses are others, whatever the key says.
    pub fn primary_key(&self, exchange: &Exchange, upstream: &str) -> KeyDigest {
        let mut text = Vec::with_capacity(128);
        text.extend_from_slice(upstream.as_bytes());
        text.push(b'\n');
        match &self.key {
            Some(key) => drop(key.write(&mut text, exchange)),
            None => self.write_default_key(&mut text, exchange),
        }
        KeyDigest::of(&text)
    }

    fn write_default_key(&self, text: &mut Vec<u8>, exchange: &Exchange) {
        let request = exchange.request();
        text.extend_from_slice(self.route.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(request.scheme.as_str().as_bytes());
        text.push(b'\n');
        let start = text.len();
        text.extend_from_slice(request.headers.get(KnownHeader::Host).unwrap_or_default());
        text[start..].make_ascii_lowercase();
        let port: &[u8] = match request.scheme {
            Scheme::Http => b":80",
            Scheme::Https => b":443",
        };
        if text[start..].ends_with(port) {
            text.truncate(text.len() - port.len());
        }
        text.push(b'\n');
        text.extend_from_slice(request.target.as_str().as_bytes());
    }

    /// Looks for the response of a request with these fields.
    pub fn find(&self, primary: KeyDigest, request: &Headers) -> (Place, Found) {
        let mut place = Place {
            primary,
            variant: primary,
        };
        let found = match self.read(&primary) {
            Read::Varies(vary, generation) => {
                place.variant = vary.key(&primary, generation, request);
                self.read(&place.variant).found(true)
            }
            read => read.found(false),
        };
        (place, found)
    }

    fn read(&self, key: &KeyDigest) -> Read {
        let now = now_ns();
        let mut is_due = false;
        let Some(zone_key) = self.noted(zone_key(key)) else {
            return Read::Nothing;
        };
        let read = self.zone.read_with_ttl(&zone_key, now, |bytes, ttl| {
            is_due = self.is_due(bytes, ttl);
            Some(match Entry::read(bytes)? {
                Entry::Varies(vary, generation) => Read::Varies(vary, generation),
                Entry::Gone(at) => Read::Gone(at),
                Entry::Passes => Read::Passes,
                Entry::Response(stored) => Read::Response(Box::new(stored.owned()?)),
            })
        });
        if is_due {
            let extended = self.zone.extend(&zone_key, self.keep, now, |bytes, ttl| {
                self.is_due(bytes, ttl)
            });
            self.noted(extended);
        }
        self.noted(read)
            .flatten()
            .flatten()
            .unwrap_or(Read::Nothing)
    }

    /// Whether the use of an entry is to be noted, so that it is kept.
    fn is_due(&self, bytes: &[u8], ttl: Option<Duration>) -> bool {
        let is_old = ttl.is_some_and(|ttl| ttl < self.keep - self.keep / NOTED_EACH);
        is_old && Entry::is_kept(bytes)
    }

    /// Stores a response for requests with these fields, unless its key was invalidated since it was asked for, at this time of the zones'
    /// clock. Says whether it is there.
    pub fn store(
        &self,
        place: &Place,
        request: &Headers,
        (vary, asked_ns): (&Vary, u64),
        response: &Response,
    ) -> Result<bool, ZoneError> {
        let now = now_ns();
        let body = std::iter::once(&response.body[..]);
        let entry = Entry::response(
            &response.freshness,
            response.status,
            &response.headers,
            body,
        );
        let put = |key: &KeyDigest, entry: &[u8]| {
            let (key, keep) = (zone_key(key)?, Some(self.keep));
            self.zone.put(&key, entry, keep, Expected::Anything, now)
        };
        let known = match self.read(&place.primary) {
            Read::Gone(at_ns) if at_ns >= asked_ns => return Ok(false),
            Read::Varies(known, generation) => Some((known, generation)),
            Read::Gone(_) | Read::Nothing | Read::Passes | Read::Response(_) => None,
        };
        match known {
            // A response that says nothing of variants is the request's own variant, and the others stay.
            Some((known, generation)) if vary.is_empty() || known == *vary => {
                put(&known.key(&place.primary, generation, request), &entry)
            }
            _ if vary.is_empty() => put(&place.primary, &entry),
            _ => {
                let generation = random::next();
                // The variant first: who reads of variants may look for it at once.
                put(&vary.key(&place.primary, generation, request), &entry)?;
                put(&place.primary, &Entry::varies(vary, generation))
            }
        }
    }

    /// Has requests of this place not wait for one another for a time. What is stored there and fresh stays; `keeps`: also what is not
    /// fresh, and is asked for by one after the other.
    pub fn let_pass(&self, place: &Place, time: Duration, keeps: bool) {
        let is_there = match self.read(&place.variant) {
            Read::Response(found) => keeps || found.freshness.is_fresh_at(Moment::now()),
            Read::Varies(..) | Read::Gone(_) => true,
            Read::Nothing | Read::Passes => false,
        };
        if is_there {
            return;
        }
        let put = zone_key(&place.variant).and_then(|key| {
            let (entry, ttl) = (Entry::passes(), Some(time));
            self.zone
                .put(&key, &entry, ttl, Expected::Anything, now_ns())
        });
        self.noted(put);
    }

    /// Notes that the origin has failed, so that the stale response is used for a moment without asking again.
    pub fn note_failure(&self, place: &Place, stale: &Response, now: Moment) {
        let freshness = Freshness {
            failed: Some(now),
            ..stale.freshness
        };
        let body = std::iter::once(&stale.body[..]);
        let entry = Entry::response(&freshness, stale.status, &stale.headers, body);
        let put = zone_key(&place.variant).and_then(|key| {
            let keep = Some(self.keep);
            self.zone
                .put(&key, &entry, keep, Expected::Anything, now_ns())
        });
        self.noted(put);
    }

    /// Has what is stored for this key, all its variants, be used no more, and what is under way to it not be stored.
    pub fn invalidate(&self, primary: &KeyDigest) {
        let put = zone_key(primary).and_then(|key| {
            let entry = Entry::gone(now_ns());
            let ttl = Some(GONE_FOR);
            self.zone
                .put(&key, &entry, ttl, Expected::Anything, now_ns())
        });
        if self.noted(put).is_some() {
            self.metrics.invalidated.inc();
        }
    }

    /// A zone that fails is as if nothing were stored.
    pub fn noted<T>(&self, result: Result<T, ZoneError>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.metrics.failed.inc();
                warn!(zone = &*self.zone_name, "cache: {error}");
            })
            .ok()
    }
}

/// Entry of a key.
enum Read {
    Nothing,
    /// At this time of the zones' clock, ns.
    Gone(u64),
    Varies(Vary, u64),
    Passes,
    Response(Box<Response>),
}

impl Read {
    /// Entry as a request finds it.
    fn found(self, varies: bool) -> Found {
        match self {
            Self::Nothing | Self::Gone(_) | Self::Varies(..) => Found::Nothing { varies },
            Self::Passes => Found::Passes,
            Self::Response(response) => Found::Response(response),
        }
    }
}

fn zone_key(key: &KeyDigest) -> Result<Key, ZoneError> {
    Key::new(key.bytes())
}

/// Whether one of the texts is neither empty nor `0`.
fn any_holds(texts: &[Template], exchange: &Exchange) -> bool {
    texts.iter().any(|text| {
        let mut written = Vec::new();
        text.write(&mut written, exchange);
        !matches!(&*written, b"" | b"0")
    })
}

/// Whether a stored response answers a request with these directives at this moment.
pub fn is_fresh_for(freshness: &Freshness, asked: &RequestDirectives, now: Moment) -> bool {
    let age = freshness.age_at(now);
    let seconds = Duration::from_secs;
    if asked.no_cache
        || asked.max_age.is_some_and(|max| age > seconds(max))
        || asked.max_age == Some(0)
    {
        return false;
    }
    let later = seconds(asked.min_fresh.unwrap_or_default());
    let is_fresh = !freshness.is_always_validated && age + later < freshness.lifetime;
    let allowed = asked.max_stale.map(seconds);
    let may_be_stale = allowed.is_some_and(|most| {
        let is_forbidden = freshness.forbids_stale || freshness.is_always_validated;
        !is_forbidden && freshness.staleness_at(now) <= most
    });
    is_fresh || may_be_stale
}

/// Name of the zone.
impl fmt::Display for RouteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.zone_name)
    }
}
