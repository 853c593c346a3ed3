//! What a client's request and a sub-request have in common: the phases, the upstream if none of them answers, the filters.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use castling_abi::Hook;

use crate::error::Error;
use crate::exchange::{Answer, Exchange, Stage};
use crate::filter;
use crate::flow::host_io::{RequestIo, VariablesOnly};
use crate::metrics;
use crate::phase::{self, Plan, Start, Verdict};
use crate::runtime::clock;
use crate::service::Service;
use crate::transport::halves::BODY_ROOM_BYTES;
use crate::upstream::{self, ClientSide, Proxied, RequestBody, Wire};
use crate::wasm::{MaybeFuture, PinnedInstances, Progress, Step};
use crate::worker_context::WorkerContext;

/// A request on its way. The client's wire, where there is one, is lent to each step.
pub struct Pipeline<'a> {
    pub exchange: &'a mut Box<Exchange>,
    pub body: RequestBody,
    /// Of the request's route, as soon as it has one.
    pub plan: Cell<&'a Plan>,
    pub pinned: PinnedInstances,
    /// Calls out that plugins have made for the client's request, those of its sub-requests included.
    pub calls: &'a Cell<usize>,
    pub service: &'a Service,
    pub worker: &'a WorkerContext,
}

/// Where the response's body comes from.
pub enum ResponseBody {
    Here(Bytes),
    Upstream(upstream::Body),
}

impl<'a> Pipeline<'a> {
    pub fn new(
        exchange: &'a mut Box<Exchange>,
        body: RequestBody,
        calls: &'a Cell<usize>,
        service: &'a Service,
        worker: &'a WorkerContext,
    ) -> Self {
        Self {
            exchange,
            body,
            plan: Cell::new(&service.router.unrouted),
            pinned: PinnedInstances::default(),
            calls,
            service,
            worker,
        }
    }

    /// Phases, then the upstream if none of them answers.
    pub async fn answer(&mut self, mut wire: Option<&mut Wire<'_>>) -> Result<ResponseBody, Error> {
        let router = &self.service.router;
        let mut now = self.exchange.stats.started;
        let verdict = match phase::begin(router, &self.plan, self.exchange)? {
            Start::Verdict(verdict) => verdict,
            Start::First(first) => {
                // Mostly they are through at once, with no future.
                let progress = match Step::go(first.steps, first.hook, self.exchange) {
                    MaybeFuture::Ready(progress) => progress,
                    MaybeFuture::Pending(progress) => progress.await,
                };
                let verdict = match first.is_all(&progress) {
                    true => phase::verdict(self.plan.get())?,
                    false => self.run_phases(wire.as_deref_mut(), progress).await?,
                };
                now = clock::now();
                verdict
            }
        };
        match verdict {
            Verdict::Answer(answer) => Ok(self.take(answer)),
            Verdict::Metrics => {
                let method = &self.exchange.request.method;
                let answer = metrics::answer(self.worker.metrics(), method);
                Ok(self.take(answer))
            }
            Verdict::Proxy(idx) => {
                let upstream = self.worker.upstream(idx);
                let client = self.exchange.client.ip();
                self.exchange.stage = Stage::Balance;
                self.exchange.upstream.set(&upstream.name);
                let request = &mut self.exchange.request;
                let (headers, protocol) = (&mut request.headers, request.protocol);
                self.service.marks.add_to_request(headers, client, protocol);
                let filters = &self.plan.get().request_body;
                if !filters.is_empty() {
                    self.body.filter_with(filters);
                }
                let mut client = ClientSide {
                    wire,
                    body: &mut self.body,
                    pinned: Some(&mut self.pinned),
                };
                let proxied = upstream::send(upstream, self.exchange, &mut client, now);
                let body = match proxied.await? {
                    Proxied::Response(body) => body,
                    Proxied::Answer(answer) => return Ok(self.take(answer)),
                };
                let headers = &mut self.exchange.reply.headers;
                headers.remove_hop_by_hop_of_response();
                self.service.marks.add_to_response(headers);
                Ok(ResponseBody::Upstream(body))
            }
        }
    }

    async fn run_phases(
        &mut self,
        wire: Option<&mut Wire<'_>>,
        first: Progress,
    ) -> Result<Verdict, Error> {
        let mut io = RequestIo {
            source: None,
            wire,
            body: &mut self.body,
            calls: self.calls,
            plan: &self.plan,
            worker: self.worker,
            service: self.service,
        };
        phase::run(
            &self.service.router,
            &self.plan,
            self.exchange,
            &mut self.pinned,
            &mut io,
            first,
        )
        .await
    }

    /// Makes it the response.
    pub fn take(
        &mut self,
        Answer {
            status,
            mut headers,
            body,
        }: Answer,
    ) -> ResponseBody {
        self.service.marks.set_server(&mut headers);
        self.exchange.replace_reply(status, headers);
        ResponseBody::Here(body)
    }

    /// Has the response's head go through its filters, as far as they can be run at once. Mostly it is through then, as
    /// [`Self::is_filtered`] says, and else [`Self::filter_head`] goes on.
    pub fn begin_filters(&mut self) -> MaybeFuture<'_, Progress> {
        self.exchange.stage = Stage::Reply;
        self.exchange.body_skips.clear();
        let steps = &self.plan.get().response_headers;
        Step::go(steps, Hook::ResponseHeaders, self.exchange)
    }

    pub fn is_filtered(&self, progress: &Progress) -> bool {
        progress.is_through(&self.plan.get().response_headers)
    }

    /// The response's head through the rest of its filters, any of which may put another response in its place.
    pub async fn filter_head(
        &mut self,
        wire: Option<&mut Wire<'_>>,
        mut source: ResponseBody,
        progress: Progress,
    ) -> Result<ResponseBody, Error> {
        let mut io = RequestIo {
            source: Some(&mut source),
            wire,
            body: &mut self.body,
            calls: self.calls,
            plan: &self.plan,
            worker: self.worker,
            service: self.service,
        };
        let filtered = filter::head(
            &self.plan.get().response_headers,
            progress,
            self.exchange,
            &mut self.pinned,
            &mut io,
        );
        match filtered.await? {
            Some(replaced) => Ok(ResponseBody::Here(replaced)),
            None => Ok(source),
        }
    }

    /// A piece of the response's body through its filters: what goes on in its place, and whether the body ends with it.
    pub async fn filter_piece(
        &mut self,
        filters: &mut filter::Body<'_>,
        piece: Bytes,
        last: bool,
    ) -> Result<(Bytes, bool), Error> {
        if filters.is_empty() {
            return Ok((piece, last));
        }
        let mut variables = VariablesOnly(self.plan.get());
        filters
            .chunk(self.exchange, &mut self.pinned, &mut variables, piece, last)
            .await
    }

    /// In pieces, as it would stream: a filter need not have room for all of it.
    pub async fn filter_whole(
        &mut self,
        mut body: Bytes,
        filters: &mut filter::Body<'_>,
    ) -> Result<Bytes, Error> {
        if filters.is_empty() {
            return Ok(body);
        }
        let mut whole = BytesMut::new();
        loop {
            let piece = body.split_to(body.len().min(BODY_ROOM_BYTES));
            let last = body.is_empty();
            let (piece, last) = self.filter_piece(filters, piece, last).await?;
            whole.extend_from_slice(&piece);
            if last {
                return Ok(whole.freeze());
            }
        }
    }

    /// What the wire's client and the body are to the upstream.
    pub fn client_side<'c, 'b>(
        &'c mut self,
        wire: Option<&'c mut Wire<'b>>,
    ) -> (ClientSide<'c, 'b>, &'c mut Box<Exchange>) {
        let client = ClientSide {
            wire,
            body: &mut self.body,
            pinned: Some(&mut self.pinned),
        };
        (client, self.exchange)
    }
}
