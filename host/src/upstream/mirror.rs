//! Mirroring: a share of a route's requests goes to another upstream, too. Nobody waits for what comes of it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::filter::RequestBodyFilter;
use crate::message::Piece;
use crate::metrics::MirrorMetrics;
use crate::runtime::PieceBudget;
use crate::runtime::gate::{Gate, Permit};
use crate::upstream::{self, Proxied, UploadSource, Upstream};

/// Mirror of a route.
pub struct Mirror {
    upstream: Rc<Upstream>,
    /// Share of the requests, from 0 to 1.
    share: f64,
    /// Part of a request that is due: 1 is one.
    due: Cell<f64>,
    /// Requests to it under way.
    gate: Gate,
    metrics: MirrorMetrics,
}

/// Bytes of a response that are read in search of its end, so that its connection can be kept.
const MOST_READ_BYTES: usize = 1 << 20;

/// `shadow, 0.1 of the requests`.
impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} of the requests", self.upstream.name, self.share)
    }
}

impl Mirror {
    pub fn new(upstream: Rc<Upstream>, share: f64, most: u32, metrics: MirrorMetrics) -> Self {
        Self {
            upstream,
            share,
            due: Cell::new(0.0),
            gate: Gate::new(most),
            metrics,
        }
    }

    /// Whether this request is one of the share: each tenth, for a tenth.
    pub fn is_next(&self) -> bool {
        let due = self.due.get() + self.share;
        let is_next = due >= 1.0 - f64::EPSILON;
        self.due.set(if is_next { due - 1.0 } else { due });
        is_next
    }

    /// Sends a request once more, on a task of its own. `body`: what was sent of it. `None`: it is not there any more, or was not yet
    /// all there.
    pub fn send(self: &Rc<Self>, exchange: &Exchange, body: Option<Bytes>) {
        let (Some(body), None) = (body, exchange.request().upgrade) else {
            self.metrics.skipped.inc();
            return;
        };
        let Some(permit) = self.gate.enter() else {
            self.metrics.over_limit.inc();
            return;
        };
        let mut twin = exchange.twin();
        twin.stats_mut().tries = 0;
        twin.context_mut().upstream.set(&self.upstream.name);
        tokio::task::spawn_local(Rc::clone(self).run(twin, body, permit));
    }

    async fn run(self: Rc<Self>, mut exchange: Box<Exchange>, body: Bytes, _permit: Permit) {
        match self.exchange(&mut exchange, body).await {
            Ok(()) => self.metrics.responded.inc(),
            Err(error) => {
                self.metrics.failed.inc();
                debug!(upstream = &*self.upstream.name, "mirror: {error}");
            }
        }
    }

    async fn exchange(&self, exchange: &mut Box<Exchange>, body: Bytes) -> Result<(), Error> {
        let method = exchange.request().method.clone();
        let filter: &mut Option<Box<RequestBodyFilter>> = &mut None;
        let mut source = UploadSource {
            downstream: &mut Downstream::Collect(Collector::new(&method, 0)),
            body: &mut RequestBody::held(body),
            filter,
            pinned: None,
        };
        let (upstream, now) = (&self.upstream, Instant::now());
        let settings = upstream.settings();
        let sent = upstream::send(upstream, settings, exchange, &mut source, now);
        let Proxied::Response(mut body) = sent.await? else {
            return Ok(());
        };
        let mut pieces = PieceBudget::default();
        let mut seen_bytes = 0;
        while seen_bytes <= MOST_READ_BYTES {
            pieces.next().await;
            match body.try_piece()? {
                Piece::Data(piece) => seen_bytes += piece.len(),
                Piece::NeedMore => body.fill(&mut source, exchange).await?,
                Piece::End => {
                    body.finish();
                    break;
                }
            }
        }
        Ok(())
    }
}
