//! Requests to an upstream: the tries, until a peer's response has begun.

use std::rc::Rc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::StatusCode;

use super::http::{Body, Deadline, PeerStream, Try, TryError};
use super::pause::{pause, retry_after};
use super::protection::Admitted;
use super::upload::UploadSource;
use super::{Active, Peer, ProxySettings, Upstream};
use crate::balancer::{Choice, PluginPolicy, Tried};
use crate::error::{ClientError, Error, UpstreamError};
use crate::exchange::{Answer, Exchange};
use crate::runtime::gate::Permit;
use crate::runtime::{clock, random};
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
    settings: &Rc<ProxySettings>,
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
    let mut tries = Tries::new(upstream, settings, started);
    if let Some(protection) = &upstream.protection {
        let admitted = protection.admit(&upstream.name, source.downstream);
        tries.admit(Box::pin(admitted).await?);
    }
    let first = match tries.next_at_once(exchange)? {
        None => tries.next(exchange).await?,
        first => first,
    };
    let Some(mut one) = first else {
        return Err(tries.into_error(exchange));
    };
    loop {
        let result = match &settings.retry.hedge {
            None => one.run(exchange, source).await,
            Some(hedge) => Box::pin(tries.run_hedged(hedge, &mut one, exchange, source)).await,
        };
        let settled = tries.settle(&one, &result, exchange);
        if let Some(policy) = upstream.balancer.plugin_policy() {
            tries.tell(policy, &one.peer, settled, exchange).await;
        }
        let refused = match result {
            Ok((stream, status)) => {
                tries.note_response(status, exchange);
                if !settings.refuses(status) {
                    let admitted = tries.admitted;
                    let body = one.into_body(stream, tries.ended, admitted);
                    return Proxied::within_limits(body, exchange);
                }
                Some(refused(one, stream, tries.ended))
            }
            Err(error) => {
                drop(one);
                if let Some(answer) = tries.failed(error, exchange, source)? {
                    return Ok(Proxied::Answer(answer));
                }
                None
            }
        };
        one = match Box::pin(tries.again(refused, exchange, source)).await? {
            Again::Try(another) => another,
            Again::Response(body) => return tries.pass_on(*body, exchange),
            Again::Nothing => return Err(tries.into_error(exchange)),
        };
    }
}

/// The body of a response that is a failure of its try.
#[cold]
#[inline(never)]
fn refused(one: Try<'_>, stream: PeerStream, came_at: Instant) -> Box<Body> {
    Box::new(one.into_body(stream, came_at, None))
}

impl Proxied {
    /// Makes a response the client's, unless it says that it is too large. Its peer gets the session from then on.
    #[inline]
    fn within_limits(body: Body, exchange: &mut Exchange) -> Result<Self, Error> {
        let body = match body.has_limits() {
            false => body,
            true => body.check_size()?,
        };
        body.bind_session(exchange);
        Ok(Self::Response(body))
    }
}

/// Continuation after a failed try.
enum Again<'a> {
    Try(Try<'a>),
    /// There is no other try, and this response, which is a failure, is the client's.
    Response(Box<Body>),
    /// There is no other try, and no response.
    Nothing,
}

/// The tries of one request: which peer is next, what its outcome means, and what is left when none has answered.
pub(super) struct Tries<'a> {
    pub(super) upstream: &'a Rc<Upstream>,
    pub(super) settings: &'a Rc<ProxySettings>,
    tried: Tried,
    /// Tries that may still be made.
    pub(super) left: u32,
    started: Instant,
    /// End of the last try.
    pub(super) ended: Instant,
    /// In a box: most requests keep no room for one.
    last_error: Option<Box<UpstreamError>>,
    /// Whether all peers were tried, and any may be once more.
    is_around: bool,
    /// Counts the request among those that are tried again, from its second try on, where there is a limit.
    retrying: Option<Permit>,
    /// Counts the request among its upstream's, where there is a limit.
    admitted: Option<Box<Admitted>>,
}

impl<'a> Tries<'a> {
    /// The request counts for the budget of retries from now on.
    fn new(upstream: &'a Rc<Upstream>, settings: &'a Rc<ProxySettings>, started: Instant) -> Self {
        if let Some(budget) = &upstream.budget {
            budget.count(started);
        }
        Self {
            upstream,
            settings,
            tried: Tried::default(),
            left: settings.tries,
            started,
            ended: started,
            last_error: None,
            is_around: false,
            retrying: None,
            admitted: None,
        }
    }

    /// Counts the request, which may have waited for that.
    #[cold]
    fn admit(&mut self, admitted: Box<Admitted>) {
        self.admitted = Some(admitted);
        self.started = clock::now();
        self.ended = self.started;
    }

    /// The first try, where there is nothing to wait for: as [`Self::next`], without the states of its future. `None`: what is
    /// asked is not known at once.
    #[inline]
    fn next_at_once(&mut self, exchange: &mut Exchange) -> Result<Option<Try<'a>>, Error> {
        let Upstream {
            balancer, queue, ..
        } = &**self.upstream;
        if balancer.plugin_policy().is_some() || !queue.is_empty() {
            return Ok(None);
        }
        match balancer.choose(&self.tried, None, exchange)? {
            Choice::Peer(peer) => {
                self.count_panic();
                Ok(Some(self.begin(peer, self.ended, exchange)))
            }
            Choice::Full | Choice::Nobody => Ok(None),
        }
    }

    /// The first try, counted as active for its peer; `None` when there is no peer.
    async fn next(&mut self, exchange: &mut Box<Exchange>) -> Result<Option<Try<'a>>, Error> {
        let Some(peer) = self.choose(exchange, true).await? else {
            return Ok(None);
        };
        // A plugin takes its time to choose; else the clock would show the same.
        let policy = self.upstream.balancer.plugin_policy();
        let started = policy.map_or(self.ended, |_| clock::now());
        Ok(Some(self.begin(peer, started, exchange)))
    }

    /// A peer that was not tried yet; `None` when all were tried. `may_wait`: for room, where all have as many requests as they
    /// may; else `None` then, too.
    pub(super) async fn choose(
        &mut self,
        exchange: &mut Box<Exchange>,
        may_wait: bool,
    ) -> Result<Option<Active>, Error> {
        let upstream = self.upstream;
        let balancer = &upstream.balancer;
        let policy = balancer.plugin_policy();
        let result = match policy.map(|it| it.choose(balancer, exchange, &self.tried)) {
            Some(MaybeFuture::Ready(result)) => Some(result),
            Some(MaybeFuture::Pending(result)) => Some(result.await),
            None => None,
        };
        let choice = match upstream.queue.is_empty() {
            true => balancer.choose(&self.tried, result, exchange)?,
            // Requests that wait come first.
            false => Choice::Full,
        };
        let peer = match choice {
            Choice::Peer(peer) => peer,
            Choice::Nobody => return Ok(None),
            Choice::Full if !may_wait => return Ok(None),
            Choice::Full => match upstream.wait_for_room(&self.tried, exchange).await? {
                Some(peer) => {
                    self.ended = clock::now();
                    peer
                }
                None => return Ok(None),
            },
        };
        self.count_panic();
        Ok(Some(peer))
    }

    /// Counts a choice that was made though too few peers are available.
    #[inline]
    fn count_panic(&self) {
        if self.upstream.balancer.is_panicking() {
            self.upstream.metrics.panics.inc();
        }
    }

    /// Begins a try of this peer at this moment.
    #[inline(always)] // 25 instructions of a request
    pub(super) fn begin(
        &mut self,
        peer: Active,
        started: Instant,
        exchange: &mut Exchange,
    ) -> Try<'a> {
        self.left = self.left.saturating_sub(1);
        self.tried.insert(&peer);
        exchange.stats_mut().tries += 1;
        exchange.context_mut().peer.set(&peer.label);
        let mut one = Try::new(self.upstream, self.settings, peer, started);
        let retry = &self.settings.retry;
        if retry.try_timeout.is_some() || retry.timeout.is_some() {
            one.deadline = self.deadline(started);
        }
        one
    }

    /// The deadline of a try that begins then.
    #[cold]
    fn deadline(&self, started: Instant) -> Option<Box<Deadline>> {
        let retry = &self.settings.retry;
        let all = retry.timeout.map(|after| (self.started + after, after));
        let deadline = |at, after, is_last| Deadline {
            at,
            after,
            is_last,
            of_all: all,
            client_was_awaited: false,
        };
        let of_try = retry.try_timeout;
        let of_try = of_try.map(|after| deadline(started + after, after, false));
        let of_all = all.map(|(at, after)| deadline(at, after, true));
        let all = of_try.into_iter().chain(of_all);
        all.min_by_key(|deadline| deadline.at).map(Box::new)
    }

    /// Decides upon a failed try, or a response that is a failure, whether there is another, and waits until it is time for it.
    async fn again(
        &mut self,
        refused: Option<Box<Body>>,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<Again<'a>, Error> {
        let may_be = self.left > 0 && (refused.is_none() || self.is_repeatable(exchange, source));
        let peer = match may_be {
            // A request that waits with a response in hand keeps that peer's place, for which the next may wait.
            true => self.choose_again(exchange, refused.is_none()).await?,
            false => None,
        };
        let wait = match &refused {
            Some(_) => retry_after(&exchange.reply().headers, self.settings.retry.backoff.max),
            None => None,
        };
        let wait = wait.unwrap_or_else(|| self.pause(exchange.stats().tries));
        let Some(peer) = peer.filter(|_| self.is_allowed(wait)) else {
            return Ok(refused.map_or(Again::Nothing, Again::Response));
        };
        if !wait.is_zero() {
            let waited = source.downstream.while_there(tokio::time::sleep(wait));
            waited.await.ok_or(ClientError::Gone)?;
        }
        if let Some(refused) = refused {
            refused.discard();
        }
        self.upstream.metrics.retries.inc();
        Ok(Again::Try(self.begin(peer, clock::now(), exchange)))
    }

    /// A peer for a retry.
    async fn choose_again(
        &mut self,
        exchange: &mut Box<Exchange>,
        may_wait: bool,
    ) -> Result<Option<Active>, Error> {
        let peer = match self.choose(exchange, may_wait).await {
            // The outcome of the last try says more.
            Err(Error::Upstream {
                cause: UpstreamError::NoRoom { .. },
                ..
            }) => None,
            peer => peer?,
        };
        if peer.is_some() || !self.settings.retry.same_peer {
            return Ok(peer);
        }
        self.tried = Tried::default();
        self.is_around = true;
        self.choose(exchange, may_wait).await
    }

    /// Wait before the next try, after so many. The first that goes to another peer goes at once: it has nothing to do with
    /// what has failed.
    fn pause(&self, tries: u32) -> Duration {
        let repeated = tries.saturating_sub(1);
        match repeated {
            0 if !self.is_around => Duration::ZERO,
            _ => pause(&self.settings.retry.backoff, repeated, random::next()),
        }
    }

    /// Whether a retry after this wait is in time, and within the budget, in which it is counted.
    pub(super) fn is_allowed(&mut self, wait: Duration) -> bool {
        let (retry, metrics) = (&self.settings.retry, &self.upstream.metrics);
        if retry
            .timeout
            .is_some_and(|all| self.ended + wait >= self.started + all)
        {
            return false;
        }
        if !self.may_be_retried() {
            return false;
        }
        let budget = self.upstream.budget.as_ref();
        let is_within = budget.is_none_or(|budget| budget.take(self.ended));
        if !is_within {
            metrics.retries_over_budget.inc();
        }
        is_within
    }

    /// Whether the circuit breaker lets one more request be tried again.
    fn may_be_retried(&mut self) -> bool {
        let Some(protection) = &self.upstream.protection else {
            return true;
        };
        if self.retrying.is_none() {
            self.retrying = match protection.retry() {
                Ok(permit) => permit,
                Err(_) => return false,
            };
        }
        true
    }

    /// Whether the request may be sent again though a peer may have worked on it.
    fn is_repeatable(&self, exchange: &Exchange, source: &UploadSource<'_, '_>) -> bool {
        self.settings.is_repeatable(exchange.request()) && source.body.can_replay()
    }

    /// Notes how a try has ended, for the peer and the metrics. Returns how, and how long it took.
    pub(super) fn settle<T>(
        &mut self,
        one: &Try<'_>,
        result: &Result<(T, StatusCode), TryError>,
        exchange: &mut Exchange,
    ) -> (PeerOutcome, Duration) {
        self.ended = clock::now();
        let (outcome, took) = (outcome(result), self.ended.duration_since(one.started));
        exchange.stats_mut().upstream_status = result.as_ref().ok().map(|(_, status)| *status);
        self.upstream.metrics.tried(outcome, took);
        let status = exchange.stats().upstream_status;
        if let Some(admitted) = &self.admitted {
            admitted.learn((outcome, took), status);
        }
        let balancer = &self.upstream.balancer;
        balancer.note(&one.peer, outcome, took, status);
        (outcome, took)
    }

    /// Tells the plugin that chooses peers how a try has ended.
    pub(super) async fn tell(
        &self,
        policy: &PluginPolicy,
        peer: &Peer,
        (outcome, took): (PeerOutcome, Duration),
        exchange: &mut Box<Exchange>,
    ) {
        let balancer = &self.upstream.balancer;
        match policy.done(balancer, exchange, peer, outcome, took) {
            MaybeFuture::Ready(_) => {}
            MaybeFuture::Pending(result) => drop(result.await),
        }
    }

    /// Notes that a peer has answered: its response is the client's, unless there is another try.
    #[inline]
    fn note_response(&self, status: StatusCode, exchange: &mut Exchange) {
        exchange.stats_mut().upstream = Some((self.started, self.ended));
        exchange.reply_mut().status = status;
    }

    /// Makes the client's what was a failure of its try, as there is no other.
    #[cold]
    fn pass_on(self, mut body: Body, exchange: &mut Exchange) -> Result<Proxied, Error> {
        body.admitted = self.admitted;
        Proxied::within_limits(body, exchange)
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
            TryError::Overflow(limit) => Err(Error::Overloaded {
                upstream: self.upstream.name.to_string(),
                limit,
            }),
            // Another peer would fare no better.
            TryError::Shortage(cause) => Err(Error::Shortage {
                upstream: self.upstream.name.to_string(),
                cause,
            }),
            TryError::BodyLost(cause) => Err(Error::BodyLost {
                upstream: self.upstream.name.to_string(),
                cause,
            }),
            TryError::Answered(answer) => Ok(Some(answer)),
            TryError::Upstream { cause, sent } => {
                let is_known_unsent = !sent;
                let may_repeat = is_known_unsent || self.is_repeatable(exchange, source);
                if !may_repeat || !self.settings.retries_on(&cause) {
                    self.left = 0;
                }
                // A time-out says more than a refusal that came after it.
                if !self
                    .last_error
                    .as_ref()
                    .is_some_and(|error| error.is_timeout())
                {
                    self.last_error = Some(Box::new(cause));
                }
                Ok(None)
            }
        }
    }

    /// The error of tries of which none has answered.
    #[cold]
    fn into_error(self, exchange: &mut Exchange) -> Error {
        exchange.stats_mut().upstream = Some((self.started, self.ended));
        // None is there only where no peer could be chosen.
        let cause = self
            .last_error
            .map_or(UpstreamError::NoPeer, |cause| *cause);
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
            | TryError::Overflow(_)
            | TryError::Shortage(_)
            | TryError::BodyLost(_),
        ) => PeerOutcome::Cancelled,
        Err(TryError::Upstream {
            // Time that was up however long this peer had.
            cause: UpstreamError::DeadlinePassed { .. } | UpstreamError::TriesTimeout { .. },
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
