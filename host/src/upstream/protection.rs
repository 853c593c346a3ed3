//! Protection of an upstream from more than it can take: a circuit breaker, and adaptive concurrency.

use std::rc::Rc;
use std::time::Duration;

use castling_abi::PeerOutcome;
use http::StatusCode;

use super::limiter::{Limiter, Place};
use super::{PeerSet, PeerState};
use crate::config;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::metrics::{Count, ProtectionMetrics};
use crate::runtime::gate::{Gate, Permit};
use crate::zone::Half;

/// Limits of the traffic with an upstream: of the breaker for all workers together, of the limiter for this one.
pub(super) struct Protection {
    connections: Option<Gate>,
    pending: Option<Gate>,
    active: Option<Gate>,
    retries: Option<Gate>,
    limiter: Option<Rc<Limiter>>,
    metrics: ProtectionMetrics,
}

/// A request that is within the limits, until it is dropped.
pub(in crate::upstream) struct Admitted {
    _active: Option<Permit>,
    place: Option<Place>,
}

/// The limit that is reached.
pub(super) type Limit = &'static str;

impl Protection {
    /// `workers`: so many share the limits. `limits`: states of the cells that the breaker's counts lie in; without them, each
    /// worker has its part. `own`: the upstream's own state, where the limiter keeps what it learns. `None`: there are no limits.
    pub(super) fn new(
        config: &config::Upstream,
        (workers, limits): (usize, &[PeerState]),
        own: &PeerState,
        metrics: ProtectionMetrics,
    ) -> Option<Box<Self>> {
        let (breaker, concurrency) = (&config.breaker, &config.concurrency);
        if *breaker == config::Breaker::default() && concurrency.is_none() {
            return None;
        }
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let gate = |most: Option<u32>, cell: usize, half| {
            let most = most?;
            let of_all = limits.get(cell).and_then(|state| state.count(half));
            Some(match of_all {
                Some(of_all) => Gate::over(most, Some(of_all)),
                None => Gate::new(most.div_ceil(workers)),
            })
        };
        Some(Box::new(Self {
            active: gate(breaker.active, 0, Half::Lower),
            retries: gate(breaker.retries, 0, Half::Upper),
            pending: gate(breaker.pending, 1, Half::Lower),
            // A worker can close its own idle connections alone: with one number for all, one worker's idle ones would keep
            // another from making any.
            connections: breaker
                .connections
                .map(|most| Gate::new(most.div_ceil(workers))),
            limiter: concurrency
                .as_ref()
                .map(|it| Limiter::new(it, workers, own.clone(), metrics.limit)),
            metrics,
        }))
    }

    /// Admits a request, which may have to wait for its place.
    pub(super) async fn admit(
        &self,
        upstream: &str,
        downstream: &mut Downstream<'_>,
    ) -> Result<Box<Admitted>, Error> {
        let overloaded = |limit| Error::Overloaded {
            upstream: upstream.to_owned(),
            limit,
        };
        let active = enter(&self.active, "active", self.metrics.active).map_err(overloaded)?;
        let place = match &self.limiter {
            None => None,
            Some(limiter) => match limiter.enter(downstream).await? {
                Some(place) => Some(place),
                None => {
                    self.metrics.concurrency.inc();
                    return Err(overloaded("concurrency"));
                }
            },
        };
        Ok(Box::new(Admitted {
            _active: active,
            place,
        }))
    }

    /// Admits a connection: counted as long as it is there, and as pending until it is.
    pub(super) fn connect(
        &self,
        peers: &PeerSet,
    ) -> Result<(Option<Permit>, Option<Permit>), Limit> {
        let pending = enter(&self.pending, "pending", self.metrics.pending)?;
        let connections = self.connections.as_ref();
        if let Some(permit) = connections.and_then(Gate::enter) {
            return Ok((Some(permit), pending));
        }
        // An idle connection makes room, whichever peer it is with.
        for peer in peers.as_slice() {
            if !peer.pool.close_oldest() {
                continue;
            }
            break;
        }
        let permit = enter(&self.connections, "connections", self.metrics.connections)?;
        Ok((permit, pending))
    }

    /// Admits one more request that is tried again.
    pub(super) fn retry(&self) -> Result<Option<Permit>, Limit> {
        enter(&self.retries, "retries", self.metrics.retries)
    }
}

/// Enters a gate, if there is one.
fn enter(gate: &Option<Gate>, limit: Limit, refused: Count) -> Result<Option<Permit>, Limit> {
    let Some(gate) = gate else {
        return Ok(None);
    };
    gate.enter().map(Some).ok_or_else(|| {
        refused.inc();
        limit
    })
}

impl Admitted {
    /// A try has ended so after this time; `status`: of its response.
    pub(super) fn learn(
        &self,
        (outcome, took): (PeerOutcome, Duration),
        status: Option<StatusCode>,
    ) {
        let Some(place) = &self.place else {
            return;
        };
        // A quick refusal says nothing of the time that an answer takes.
        let has_answered = status.is_some_and(|status| !status.is_server_error());
        if has_answered || outcome == PeerOutcome::TimedOut {
            place.sample(took);
        }
    }
}
