//! A stale response that is sent, and fetched anew meanwhile (RFC 5861 §3).

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, StatusCode};
use tracing::debug;

use super::filling::{Fill, Filling};
use crate::cache::{
    Moment, Place, Response, RouteCache, Storing, freshen, head_to_store, judge, make_conditional,
};
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::message::BodySize;
use crate::phase::UpstreamIdx;
use crate::runtime::clock;
use crate::service::Service;
use crate::upstream::{self, Proxied, ProxySettings, UploadSource};
use crate::worker_context::WorkerContext;
use crate::zone::{Flight, now_ns};

/// Fetch of a response that is stored.
pub struct Refresh {
    pub worker: Rc<WorkerContext>,
    pub service: Rc<Service>,
    pub idx: UpstreamIdx,
    /// Settings of the route, where they are not the upstream's own.
    pub settings: Option<Rc<ProxySettings>>,
    /// Twin of the request that it is fetched for.
    pub exchange: Box<Exchange>,
    pub cache: Rc<RouteCache>,
    pub place: Place,
    pub stale: Response,
    pub flight: Flight,
}

impl Refresh {
    /// Fetches it. What fails is tried again by the next request.
    pub async fn run(self) {
        let zone = self.cache.zone_name.clone();
        if let Err(error) = self.fetch().await {
            debug!(zone = &*zone, "cache: a stale response stays so: {error}");
        }
    }

    async fn fetch(mut self) -> Result<(), Error> {
        let (asked, asked_ns) = (Moment::now(), now_ns());
        let exchange = &mut self.exchange;
        let request = exchange.request_mut();
        request.method = Method::GET;
        let client_fields = request.headers.clone();
        make_conditional(&mut request.headers, &self.stale.headers);
        let client = exchange.context().client;
        let marks = &self.service.client.marks;
        let request = exchange.request_mut();
        marks.add_to_request(&mut request.headers, &client, request.protocol);
        let upstream = self.worker.upstream(self.idx);
        exchange.context_mut().upstream.set(&upstream.name);
        exchange.stats_mut().tries = 0;
        let settings = self.settings.as_ref();
        let settings = settings.unwrap_or_else(|| upstream.settings());
        let mut source = UploadSource {
            downstream: &mut Downstream::Collect(Collector::new(&Method::GET, 0)),
            body: &mut RequestBody::held(Bytes::new()),
            filter: &mut None,
            pinned: None,
        };
        let sent = upstream::send(upstream, settings, exchange, &mut source, clock::now());
        let Proxied::Response(body) = sent.await? else {
            return Ok(());
        };
        let came = Moment::now();
        let headers = &mut exchange.reply_mut().headers;
        headers.remove_hop_by_hop();
        marks.add_to_response(headers, body.protocol());
        exchange.request_mut().headers = client_fields;
        self.settle(body, (asked, came), asked_ns);
        Ok(())
    }

    fn settle(mut self, body: upstream::Body, times: (Moment, Moment), asked_ns: u64) {
        let cache = &self.cache;
        let (asked, _) = times;
        let own_cookie = self.worker.upstream(self.idx).balancer.session_cookie();
        let date = self.worker.date();
        let has_credentials = self.exchange.has_credentials();
        let (request, reply) = self.exchange.heads_mut();
        let is_good = reply.status == StatusCode::NOT_MODIFIED;
        let (status, headers) = match is_good {
            true => {
                freshen(&mut self.stale.headers, &reply.headers, &date);
                (self.stale.status, self.stale.headers.clone())
            }
            false => {
                let headers = head_to_store(&reply.headers, &[], own_cookie, &date);
                (reply.status, headers)
            }
        };
        if status.is_server_error() && !is_good {
            cache.note_failure(&self.place, &self.stale, asked);
            return;
        }
        let (freshness, vary, without) =
            match judge(has_credentials, status, &headers, times, &cache.rules) {
                Storing::Store {
                    freshness,
                    vary,
                    without,
                } => (freshness, vary, without),
                // A response that cannot be stored again is not to be used either.
                Storing::Not(_) => return cache.invalidate(&self.place.primary),
                Storing::NotForAll(_) => return,
            };
        let mut response = Response {
            freshness,
            status,
            headers: head_to_store(&headers, &without, None, b""),
            body: Bytes::new(),
        };
        cache.metrics.refreshed.inc();
        if is_good {
            body.finish_if_over();
            response.body = self.stale.body;
            let stored = cache.store(&self.place, &request.headers, (&vary, asked_ns), &response);
            cache.noted(stored);
            return;
        }
        if matches!(body.size(), BodySize::Exact(bytes) if bytes > cache.max_body_bytes) {
            return cache.invalidate(&self.place.primary);
        }
        let fill = Fill {
            cache: Rc::clone(cache),
            place: self.place.again(),
            request: request.headers.clone(),
            vary,
            asked_ns,
            response,
            flight: Some(self.flight),
        };
        // The reader is dropped at once: the body is stored all the same.
        drop(Filling::begin(fill, body, &self.worker));
    }
}
