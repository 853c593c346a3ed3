//! Requests to an upstream: the tries, until a peer's response has begun.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::StatusCode;

use super::Upstream;
use super::http::{Body, Try, TryError};
use super::upload::UploadSource;
use crate::balancer::{Choice, PluginPolicy, Tried};
use crate::error::{Error, UpstreamError};
use crate::exchange::{Answer, Exchange};
use crate::runtime::clock;
use crate::wasm::MaybeFuture;

/// Outcome of a request that was to go to an upstream.
pub enum Proxied {
    /// A peer has answered. The response's head is in the exchange.
    Response(Body),
    /// A plugin on the way of the request's body has answered in its place.
    Answer(Answer),
}

/// Sends the request to one peer after the other until one answers. `now`: when it was about to be sent.
pub async fn send(
    upstream: &Rc<Upstream>,
    exchange: &mut Box<Exchange>,
    source: &mut UploadSource<'_, '_>,
    now: Instant,
) -> Result<Proxied, Error> {
    let mut started = now;
    if source.filter.is_some() {
        if let Some(answer) = source.settle_size(exchange).await? {
            return Ok(Proxied::Answer(answer));
        }
        started = Instant::now();
    }
    let mut tries = Tries::new(upstream, started);
    while let Some(mut one) = tries.next(exchange).await? {
        let result = one.run(exchange, source).await;
        let settled = tries.settle(&one, &result, exchange);
        if let Some(policy) = upstream.balancer.plugin_policy() {
            tries.tell(policy, &one, settled, exchange).await;
        }
        match result {
            Ok((stream, status)) => {
                exchange.stats_mut().upstream = Some((tries.started, tries.ended));
                exchange.reply_mut().status = status;
                return Ok(Proxied::Response(one.into_body(stream, tries.ended)));
            }
            Err(error) => {
                if let Some(answer) = tries.failed(error, exchange, source)? {
                    return Ok(Proxied::Answer(answer));
                }
            }
        }
    }
    exchange.stats_mut().upstream = Some((tries.started, tries.ended));
    Err(tries.into_error())
}

/// The tries of one request: which peer is next, what its outcome means, and what is left when none has answered.
struct Tries<'a> {
    upstream: &'a Rc<Upstream>,
    tried: Tried,
    /// Tries that may still be made.
    left: u32,
    started: Instant,
    /// End of the last try.
    ended: Instant,
    last_error: Option<UpstreamError>,
}

impl<'a> Tries<'a> {
    fn new(upstream: &'a Rc<Upstream>, started: Instant) -> Self {
        Self {
            upstream,
            tried: Tried::default(),
            left: upstream.tries,
            started,
            ended: started,
            last_error: None,
        }
    }

    /// The next try, counted as active for its peer; `None` when none is left.
    async fn next(&mut self, exchange: &mut Box<Exchange>) -> Result<Option<Try<'a>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (upstream, tried) = (self.upstream, &mut self.tried);
        let balancer = &upstream.balancer;
        let policy = balancer.plugin_policy();
        let result = match policy.map(|it| it.choose(balancer, exchange, tried)) {
            Some(MaybeFuture::Ready(result)) => Some(result),
            Some(MaybeFuture::Pending(result)) => Some(result.await),
            None => None,
        };
        let choice = match upstream.queue.is_empty() {
            true => balancer.choose(tried, result, exchange.request())?,
            // Those who wait come first.
            false => Choice::Full,
        };
        let peer = match choice {
            Choice::Peer(peer) => peer,
            Choice::Nobody => return Ok(None),
            Choice::Full => match upstream.wait_for_room(tried, exchange).await? {
                Some(peer) => peer,
                None => return Ok(None),
            },
        };
        if balancer.has_none_available() {
            upstream.metrics.none_available.inc();
        }
        tried.insert(&peer);
        exchange.stats_mut().tries += 1;
        exchange.context_mut().peer.set(&peer.label);
        // A plugin takes its time to choose; else the clock would show the same.
        let started = policy.map_or(self.ended, |_| clock::now());
        Ok(Some(Try::new(upstream, peer, started)))
    }

    /// Notes how a try has ended, for the peer and the metrics. Returns how, and how long it took.
    fn settle<T>(
        &mut self,
        one: &Try<'_>,
        result: &Result<(T, StatusCode), TryError>,
        exchange: &mut Exchange,
    ) -> (PeerOutcome, Duration) {
        self.ended = clock::now();
        let (outcome, took) = (outcome(result), self.ended.duration_since(one.started));
        exchange.stats_mut().upstream_status = result.as_ref().ok().map(|(_, status)| *status);
        self.upstream.metrics.tried(outcome, took);
        self.upstream.balancer.note(&one.peer, outcome);
        (outcome, took)
    }

    /// Tells the plugin that chooses peers how a try has ended.
    async fn tell(
        &self,
        policy: &PluginPolicy,
        one: &Try<'_>,
        (outcome, took): (PeerOutcome, Duration),
        exchange: &mut Box<Exchange>,
    ) {
        let balancer = &self.upstream.balancer;
        match policy.done(balancer, exchange, &one.peer, outcome, took) {
            MaybeFuture::Ready(_) => {}
            MaybeFuture::Pending(result) => drop(result.await),
        }
    }

    /// Decides what comes after a try that has failed: an answer of a plugin, the end, or with `None` the next try.
    fn failed(
        &mut self,
        error: TryError,
        exchange: &Exchange,
        source: &UploadSource<'_, '_>,
    ) -> Result<Option<Answer>, Error> {
        match error {
            TryError::Client(error) => Err(error.into()),
            TryError::Filter(error) => Err(error),
            // Another peer would fare no better.
            TryError::Shortage(cause) => Err(Error::Shortage {
                upstream: self.upstream.name.to_string(),
                cause,
            }),
            TryError::Answered(answer) => Ok(Some(answer)),
            TryError::Upstream { cause, sent } => {
                // RFC 9110 §9.2.2: what may be sent again when it is not known whether the first was worked on.
                let is_repeatable =
                    exchange.request().method.is_idempotent() && source.body.can_replay();
                if sent && !is_repeatable {
                    self.left = 0;
                }
                // A time-out says more than a refusal that came after it.
                if !self
                    .last_error
                    .as_ref()
                    .is_some_and(UpstreamError::is_timeout)
                {
                    self.last_error = Some(cause);
                }
                Ok(None)
            }
        }
    }

    /// The error of tries of which none has answered.
    fn into_error(self) -> Error {
        // None is there only where a policy has chosen nobody.
        let cause = self.last_error.unwrap_or_else(|| UpstreamError::Connect {
            peer: "no peer".to_owned(),
            cause: io::Error::other("none is left to be tried"),
        });
        Error::Upstream {
            upstream: self.upstream.name.to_string(),
            cause,
        }
    }
}

fn outcome<T>(result: &Result<T, TryError>) -> PeerOutcome {
    match result {
        Ok(_) => PeerOutcome::Responded,
        // Nothing that the peer could help.
        Err(
            TryError::Client(_)
            | TryError::Filter(_)
            | TryError::Answered(_)
            | TryError::Shortage(_),
        ) => PeerOutcome::Cancelled,
        Err(TryError::Upstream {
            cause: UpstreamError::DeadlinePassed { .. },
            ..
        }) => PeerOutcome::Cancelled,
        Err(TryError::Upstream { cause, .. }) if cause.is_timeout() => PeerOutcome::TimedOut,
        Err(TryError::Upstream {
            cause:
                UpstreamError::Connect { .. }
                | UpstreamError::Handshake { .. }
                | UpstreamError::Preface { .. },
            ..
        }) => PeerOutcome::ConnectFailed,
        // RFC 9113 §8.7: the peer has said so, and works.
        Err(TryError::Upstream {
            cause: UpstreamError::NotProcessed { .. },
            ..
        }) => PeerOutcome::Cancelled,
        Err(TryError::Upstream { .. }) => PeerOutcome::Broken,
    }
}
