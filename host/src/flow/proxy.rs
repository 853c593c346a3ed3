//! The step to an upstream: the request on its way, the response's head on its way back.

use super::pipeline::{Pipeline, ResponseBody};
use crate::error::Error;
use crate::exchange::Stage;
use crate::filter::RequestBodyFilter;
use crate::message::{BodySize, grpc};
use crate::phase::UpstreamIdx;
use crate::runtime::clock;
use crate::upstream::{self, Proxied};

impl Pipeline<'_> {
    /// Sends the request to a peer of the upstream, whose response becomes the response.
    pub async fn proxy(&mut self, idx: UpstreamIdx) -> Result<ResponseBody, Error> {
        self.settle_upgrade()?;
        let upstream = self.worker.upstream(idx);
        let settings = match &self.plan.get().proxy {
            None => upstream.settings(),
            Some(route) => {
                let own = route.settings(idx);
                own.unwrap_or_else(|| upstream.settings())
            }
        };
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
        let is_call = upstream.takes_calls() && grpc::is_call(self.exchange.request());
        if is_call {
            self.body.come_slowly(Some(settings.idle_timeout));
        }
        let (mut source, exchange) = self.upload_source();
        let proxied = upstream::send(upstream, settings, exchange, &mut source, clock::now());
        let proxied = proxied.await;
        if let Some(route) = &self.plan.get().proxy
            && let Some(mirror) = &route.mirror
            && mirror.is_next()
        {
            mirror.send(self.exchange, self.body.copy());
        }
        match proxied? {
            Proxied::Response(body) => {
                if is_call {
                    // From here on the peer's own silence ends it.
                    self.body.come_slowly(None);
                }
                let headers = &mut self.exchange.reply_mut().headers;
                headers.remove_hop_by_hop();
                marks.add_to_response(headers, body.protocol());
                Ok(ResponseBody::Upstream(body))
            }
            Proxied::Answer(answer) => Ok(self.take(answer)),
        }
    }
}
