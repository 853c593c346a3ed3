//! The step to an upstream: the request on its way, the response's head on its way back.

use super::cached::Looked;
use super::pipeline::{Pipeline, ResponseBody};
use crate::error::Error;
use crate::exchange::Stage;
use crate::filter::RequestBodyFilter;
use crate::message::{BodySize, grpc};
use crate::phase::{RoutePlan, UpstreamIdx};
use crate::runtime::clock;
use crate::upstream::{self, Proxied, ProxySettings};

impl Pipeline<'_> {
    /// Answers from the route's cache where it has one, or else by the upstream.
    #[inline]
    pub async fn proxy_or_cached(&mut self, idx: UpstreamIdx) -> Result<ResponseBody, Error> {
        let Some(cache) = &self.plan.get().cache else {
            return self.proxy(idx).await;
        };
        match self.look_into(cache, idx) {
            Looked::Response(body) => Ok(body),
            Looked::Past(past) => Box::pin(self.go_past(idx, cache, past)).await,
            Looked::Fetch(wanted) => Box::pin(self.fetch(idx, cache, wanted)).await,
        }
    }

    /// Sends the request to a peer of the upstream, whose response becomes the response.
    pub async fn proxy(&mut self, idx: UpstreamIdx) -> Result<ResponseBody, Error> {
        self.settle_upgrade()?;
        let upstream = self.worker.upstream(idx);
        if !upstream.key_variables.is_empty() {
            Box::pin(self.compute_keys(idx)).await?;
        }
        let own = self.plan.get().proxy.as_deref();
        let settings = own.and_then(|route| route.settings(idx));
        let settings = settings.unwrap_or_else(|| upstream.settings());
        if self.service.limits_bodies_by_route {
            self.limit_body()?;
        }
        let marks = &self.service.client.marks;
        let client = self.exchange.context().client;
        self.exchange.enter(Stage::Balance);
        self.exchange.context_mut().upstream.set(&upstream.name);
        let request = self.exchange.request_mut();
        marks.add_to_request(&mut request.headers, &client, request.protocol);
        if self.body.size != BodySize::None {
            self.body.replay_up_to(settings.replay_bytes());
        }
        let filters = &self.plan.get().request_body;
        if !filters.is_empty() && self.body.size != BodySize::None {
            self.body_filter = Some(Box::new(RequestBodyFilter::new(filters)));
        }
        self.spill_body(settings);
        let is_call = upstream.takes_calls() && grpc::is_call(self.exchange.request());
        if is_call {
            self.body.come_slowly(Some(settings.idle_timeout));
        }
        let (mut source, exchange) = self.upload_source();
        let proxied = upstream::send(upstream, settings, exchange, &mut source, clock::now());
        match proxied.await {
            Ok(Proxied::Response(body)) => {
                self.mirror(own);
                if self.body.is_spilled() && body.is_past_replay(&self.body) {
                    self.body.forget();
                }
                if is_call {
                    // From here on the peer's own silence ends it.
                    self.body.come_slowly(None);
                }
                let headers = &mut self.exchange.reply_mut().headers;
                headers.remove_hop_by_hop();
                marks.add_to_response(headers, body.protocol());
                Ok(ResponseBody::Upstream(body))
            }
            Ok(Proxied::Answer(answer)) => {
                self.mirror(own);
                Ok(self.take(answer))
            }
            Err(error) => {
                self.mirror(own);
                Err(error)
            }
        }
    }

    /// Has the body kept on disk for further tries, where the settings say so.
    fn spill_body(&mut self, settings: &ProxySettings) {
        if self.body.size != BodySize::None
            && let bytes @ 1.. = settings.spill_bytes(self.exchange.request())
            && let Some(file) = self.worker.spill_file()
        {
            let is_filtered = self.body_filter.is_some();
            self.body.spill_up_to(bytes, is_filtered, file);
        }
    }

    /// The upstream that a plugin has chosen, by its name: its grants are checked when it chooses.
    #[cold]
    pub fn chosen_upstream(&self) -> Result<UpstreamIdx, Error> {
        let chosen = self.exchange.context().chosen_upstream.as_deref();
        let mut upstreams = self.worker.upstreams().iter();
        let idx = upstreams.position(|upstream| Some(&*upstream.name) == chosen);
        idx.map(UpstreamIdx).ok_or(Error::NoRoute)
    }

    /// Sends a copy of the request, whatever has come of it, where its route says so.
    #[inline]
    fn mirror(&mut self, route: Option<&RoutePlan>) {
        if let Some(mirror) = route.and_then(|route| route.mirror.as_ref())
            && mirror.is_next()
        {
            mirror.send(self.exchange, self.body.copy());
        }
    }
}
