//! The part that a client's request and a sub-request have in common: the phases, and the filters of the response's head.

use std::cell::Cell;

use bytes::Bytes;
use http::Method;

use super::filling::Filling;
use super::host_io::RequestIo;
use super::raw_connections::RawConnections;
use crate::config::Redirect;
use crate::downstream::{Downstream, RequestBody};
use crate::error::Error;
use crate::exchange::{Answer, Exchange, Stage};
use crate::filter::{self, RequestBodyFilter};
use crate::handler::{metrics_page, redirect};
use crate::phase::{self, Phases, Plan, Progress, Step, Verdict};
use crate::service::Service;
use crate::upstream::{self, UploadSource};
use crate::wasm::{MaybeFuture, PinnedInstances};
use crate::worker_context::WorkerContext;

/// A request on its way.
pub struct Pipeline<'a> {
    pub exchange: &'a mut Box<Exchange>,
    pub downstream: Downstream<'a>,
    pub body: RequestBody,
    /// The plugins on the body's way to a peer.
    pub body_filter: Option<Box<RequestBodyFilter>>,
    /// Plan of the request's route, as soon as it has one.
    pub plan: Cell<&'a Plan>,
    pub pinned: PinnedInstances,
    /// Calls out that plugins have made for the client's request, those of its sub-requests included.
    pub calls: &'a Cell<usize>,
    /// Connections that plugins have made for the request.
    pub raw: RawConnections,
    /// The response is an error's that no filter is to see.
    pub past_filters: bool,
    pub service: &'a Service,
    pub worker: &'a WorkerContext,
}

/// Where the response's body comes from.
pub enum ResponseBody {
    Here(Bytes),
    Upstream(upstream::Body),
    /// A response that is stored while it is sent.
    Filling(Filling),
    /// The response is out, head and all: a plugin has written it.
    Sent,
}

impl<'a> Pipeline<'a> {
    pub fn new(
        exchange: &'a mut Box<Exchange>,
        downstream: Downstream<'a>,
        body: RequestBody,
        calls: &'a Cell<usize>,
        service: &'a Service,
        worker: &'a WorkerContext,
    ) -> Self {
        Self {
            exchange,
            downstream,
            body,
            body_filter: None,
            plan: Cell::new(&service.router.unrouted),
            pinned: PinnedInstances::default(),
            calls,
            raw: RawConnections::default(),
            past_filters: false,
            service,
            worker,
        }
    }

    /// Refuses a client's request that no plugin is to see. A sub-request is a plugin's, carries the loops of its parent, and
    /// is bounded by its depth.
    pub fn check(&self) -> Result<(), Error> {
        if self.exchange.request().method == Method::TRACE {
            // TRACE would show a client what lies between, cookies and all (nginx answers 405, too).
            return Err(Error::Trace);
        }
        let (marks, request) = (&self.service.client.marks, self.exchange.request());
        if marks.is_loop(&request.headers) {
            return Err(Error::Loop);
        }
        match self.service.limits_bodies_by_route {
            true => Ok(()),
            false => Ok(self.body.check_announced()?),
        }
    }

    /// Holds the request's body to the limit of its route.
    #[cold]
    pub fn limit_body(&mut self) -> Result<(), Error> {
        let own = self.plan.get().proxy.as_ref();
        Ok(self
            .body
            .limit(own.and_then(|route| route.max_body_bytes))?)
    }

    /// Routes the request, unless a plugin is to see it before. `None`: it has no phases to run through.
    #[inline]
    pub fn route(&mut self) -> Result<Option<Phases<'a>>, Error> {
        let phases = Phases::begin(&self.service.router, &self.plan, self.exchange)?;
        Ok((!phases.are_over()).then_some(phases))
    }

    /// Runs the request through its phases.
    pub async fn run_phases(&mut self, mut phases: Phases<'a>) -> Result<Verdict, Error> {
        // Mostly they are through at once, with no future.
        let progress = match phases.start(self.exchange) {
            MaybeFuture::Ready(progress) => progress,
            MaybeFuture::Pending(progress) => progress.await,
        };
        match phases.are_through(&progress, self.plan.get()) {
            true => phase::verdict(self.plan.get(), self.exchange),
            false => self.run_rest(&mut phases, progress).await,
        }
    }

    async fn run_rest(
        &mut self,
        phases: &mut Phases<'a>,
        progress: Progress,
    ) -> Result<Verdict, Error> {
        let (plan, mut io, exchange, pinned) = self.for_plugins(None);
        let verdict = match phases.run(progress, plan, exchange, pinned, &mut io).await {
            // The client has, or will have, all of the response: a filter has answered in its place, or no body follows the
            // head. The hook's own line says what failed.
            Err(Error::Plugin { .. }) if io.stream.as_ref().is_some_and(|it| !it.is_wanted()) => {
                Verdict::Streamed
            }
            verdict => verdict?,
        };
        if matches!(verdict, Verdict::Streamed) {
            Box::pin(io.end_response(exchange, pinned)).await?;
            // Filters have seen it.
            self.past_filters = true;
        }
        Ok(verdict)
    }

    /// Makes an answer the response.
    pub fn take(
        &mut self,
        Answer {
            status,
            mut headers,
            body,
        }: Answer,
    ) -> ResponseBody {
        self.service.client.marks.set_server(&mut headers);
        self.exchange.replace_reply(status, headers);
        ResponseBody::Here(body)
    }

    /// Makes the gateway's metrics the response.
    pub fn show_metrics(&mut self) -> ResponseBody {
        let answer = metrics_page::answer(self.worker.metrics(), &self.exchange.request().method);
        self.take(answer)
    }

    /// Makes the way to https the response.
    pub fn redirect(&mut self, redirect: Redirect) -> ResponseBody {
        self.take(redirect::answer(redirect, self.exchange.request()))
    }

    /// Whether the response's head has filters. From here on it may be changed.
    #[inline]
    pub fn has_head_filters(&mut self) -> bool {
        self.exchange.enter(Stage::Reply);
        !self.plan.get().response_headers.is_empty()
    }

    /// Has the response's head go through its filters, any of which may put another response in its place.
    pub async fn filter_head(&mut self, body: ResponseBody) -> Result<ResponseBody, Error> {
        self.exchange.enter(Stage::Reply);
        self.exchange.body_mut().skips.clear();
        let steps = &self.plan.get().response_headers;
        // Mostly they are through at once, with no future.
        let progress = match Step::go(steps, filter::HEAD, self.exchange) {
            MaybeFuture::Ready(progress) => progress,
            MaybeFuture::Pending(progress) => progress.await,
        };
        match progress.is_through(steps) {
            true => Ok(body),
            false => self.filter_rest(body, progress).await,
        }
    }

    async fn filter_rest(
        &mut self,
        mut body: ResponseBody,
        progress: Progress,
    ) -> Result<ResponseBody, Error> {
        let steps = &self.plan.get().response_headers;
        let (_, mut io, exchange, pinned) = self.for_plugins(Some(&mut body));
        match filter::run_head(steps, progress, exchange, pinned, &mut io).await? {
            Some(replaced) => Ok(ResponseBody::Here(replaced)),
            None => Ok(body),
        }
    }

    /// Lends what hooks are run with: the plan, what serves host calls that wait, the exchange and the instances of the request.
    pub fn for_plugins<'s>(
        &'s mut self,
        response: Option<&'s mut ResponseBody>,
    ) -> (
        &'s Cell<&'a Plan>,
        RequestIo<'s, 'a>,
        &'s mut Box<Exchange>,
        &'s mut PinnedInstances,
    ) {
        let io = RequestIo {
            response,
            downstream: &mut self.downstream,
            body: &mut self.body,
            body_filter: &mut self.body_filter,
            calls: self.calls,
            raw: &mut self.raw,
            plan: &self.plan,
            worker: self.worker,
            service: self.service,
            stream: None,
        };
        (&self.plan, io, self.exchange, &mut self.pinned)
    }

    /// Lends what an upstream has of the request, and the exchange.
    pub fn upload_source(&mut self) -> (UploadSource<'_, 'a>, &mut Box<Exchange>) {
        let source = UploadSource {
            downstream: &mut self.downstream,
            body: &mut self.body,
            filter: &mut self.body_filter,
            pinned: Some(&mut self.pinned),
        };
        (source, self.exchange)
    }
}
