//! Hedging: another peer is asked beside one that is slow, and the first response is taken.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use castling_abi::PeerOutcome;
use http::StatusCode;
use tokio::time::{Instant, Sleep};

use super::Peer;
use super::http::{PeerStream, Try, TryError};
use super::tries::Tries;
use super::upload::UploadSource;
use crate::config::Hedge;
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::ClientError;
use crate::exchange::Exchange;
use crate::message::BodySize;
use crate::runtime::clock;

/// End of a try: what it has come to.
type Begun = Result<(PeerStream, StatusCode), TryError>;

/// A try beside the first, with an exchange of its own.
struct Racer<'a> {
    peer: Rc<Peer>,
    run: Pin<Box<dyn Future<Output = Finished<'a>> + 'a>>,
}

struct Finished<'a> {
    one: Try<'a>,
    exchange: Box<Exchange>,
    begun: Begun,
}

/// Tries beside the first.
struct Others<'a> {
    /// The request once more, for those that begin.
    twin: Box<Exchange>,
    racers: Vec<Racer<'a>>,
}

enum Event<'a> {
    First(Begun),
    Other(Box<Finished<'a>>),
    /// Another peer is to be asked.
    Due,
}

impl<'a> Tries<'a> {
    /// Runs a try, and others beside it while no response has come. `one` is from then on the one that has ended so.
    ///
    /// Only a request without a body that may be sent twice has others. A try that loses is cut, and its peer not blamed.
    pub(super) async fn run_hedged(
        &mut self,
        hedge: &Hedge,
        one: &mut Try<'a>,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Begun {
        let request = exchange.request();
        let has_more = source.body.size != BodySize::None || request.upgrade.is_some();
        if has_more || !self.settings.is_repeatable(request) {
            return one.run(exchange, source).await;
        }
        let mut others = Others {
            twin: exchange.twin(),
            racers: Vec::new(),
        };
        let (event, failed) = self.race(hedge, one, exchange, source, &mut others).await;
        exchange.stats_mut().tries = others.twin.stats().tries;
        for loser in std::mem::take(&mut others.racers) {
            drop(loser.run);
            self.settle_cut(&loser.peer, exchange).await;
        }
        let begun = match event {
            Event::First(begun) => begun,
            Event::Other(mut finished) => {
                std::mem::swap(exchange.reply_mut(), finished.exchange.reply_mut());
                let first = std::mem::replace(one, finished.one);
                match failed {
                    Some(error) => self.settle_failed(&first, Err(error), exchange).await,
                    None => self.settle_cut(&first.peer, exchange).await,
                }
                self.upstream.metrics.hedges_won.inc();
                finished.begun
            }
            // The client has left.
            Event::Due => Err(TryError::Client(ClientError::Gone)),
        };
        exchange.context_mut().peer.set(&one.peer.label);
        begun
    }

    /// Waits for the first response, or for the end of all. The error is the first try's, where another has come to its end.
    async fn race(
        &mut self,
        hedge: &Hedge,
        one: &mut Try<'a>,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
        others: &mut Others<'a>,
    ) -> (Event<'a>, Option<TryError>) {
        let failed = match self.race_first(hedge, one, exchange, source, others).await {
            Event::First(Err(error @ TryError::Upstream { .. })) => error,
            event => return (event, None),
        };
        while !others.racers.is_empty() {
            let racers = &mut others.racers;
            let next = poll_fn(|cx| poll_others(cx, racers));
            match source.downstream.while_there(next).await {
                Some(finished) if finished.begun.is_ok() => {
                    return (Event::Other(Box::new(finished)), Some(failed));
                }
                Some(Finished { one, begun, .. }) => {
                    self.settle_failed(&one, begun, &mut others.twin).await;
                }
                None => return (Event::Due, None),
            }
        }
        (Event::First(Err(failed)), None)
    }

    /// Runs the first try to its end, unless another has a response before.
    async fn race_first(
        &mut self,
        hedge: &Hedge,
        one: &mut Try<'a>,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
        others: &mut Others<'a>,
    ) -> Event<'a> {
        let mut first = pin!(one.run(exchange, source));
        let mut timer = pin!(tokio::time::sleep(hedge.after));
        let mut left = hedge.max;
        loop {
            let racers = &mut others.racers;
            let event = poll_fn(|cx| {
                if let Poll::Ready(begun) = first.as_mut().poll(cx) {
                    return Poll::Ready(Event::First(begun));
                }
                if let Poll::Ready(finished) = poll_others(cx, racers) {
                    return Poll::Ready(Event::Other(Box::new(finished)));
                }
                match left {
                    0 => Poll::Pending,
                    _ => Sleep::poll(timer.as_mut(), cx).map(|()| Event::Due),
                }
            });
            match event.await {
                Event::Due => {
                    left -= 1;
                    timer.as_mut().reset(Instant::now() + hedge.after);
                    let racer = self.launch(&mut others.twin).await;
                    others.racers.extend(racer);
                }
                Event::Other(finished) if finished.begun.is_err() => {
                    let Finished { one, begun, .. } = *finished;
                    self.settle_failed(&one, begun, &mut others.twin).await;
                }
                event => return event,
            }
        }
    }

    /// Begins another try; `None`: there is no peer for it, or the budget does not allow it.
    async fn launch(&mut self, twin: &mut Box<Exchange>) -> Option<Racer<'a>> {
        if self.left == 0 {
            return None;
        }
        // The first is not polled meanwhile.
        let peer = self.choose(twin, false).await.ok().flatten()?;
        self.ended = clock::now();
        if !self.is_allowed(Duration::ZERO) {
            return None;
        }
        self.upstream.metrics.hedges.inc();
        let counted = Rc::clone(peer.peer());
        let mut one = self.begin(peer, clock::now(), twin);
        let mut exchange = twin.twin();
        let run = Box::pin(async move {
            let method = exchange.request().method.clone();
            let mut source = UploadSource {
                downstream: &mut Downstream::Collect(Collector::new(&method, 0)),
                body: &mut RequestBody::held(bytes::Bytes::new()),
                filter: &mut None,
                pinned: None,
            };
            let begun = one.run(&mut exchange, &mut source).await;
            Finished {
                one,
                exchange,
                begun,
            }
        });
        let peer = counted;
        Some(Racer { peer, run })
    }

    async fn settle_failed(&mut self, one: &Try<'_>, begun: Begun, exchange: &mut Box<Exchange>) {
        let settled = self.settle(one, &begun, exchange);
        if let Some(policy) = self.upstream.balancer.plugin_policy() {
            self.tell(policy, &one.peer, settled, exchange).await;
        }
    }

    /// Notes that a try was cut because another has won.
    async fn settle_cut(&self, peer: &Peer, exchange: &mut Box<Exchange>) {
        let settled = (PeerOutcome::Cancelled, Duration::ZERO);
        self.upstream.metrics.tried(settled.0, settled.1);
        if let Some(policy) = self.upstream.balancer.plugin_policy() {
            self.tell(policy, peer, settled, exchange).await;
        }
    }
}

/// Polls the others; one that has ended is taken out.
fn poll_others<'a>(cx: &mut Context<'_>, racers: &mut Vec<Racer<'a>>) -> Poll<Finished<'a>> {
    for idx in 0..racers.len() {
        if let Poll::Ready(finished) = racers[idx].run.as_mut().poll(cx) {
            racers.swap_remove(idx);
            return Poll::Ready(finished);
        }
    }
    Poll::Pending
}
