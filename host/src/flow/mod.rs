//! The life of one request, from its head to its line in the log.
//!
//! Begin with [`Pipeline::respond`]: phases, the upstream if none of them answers, filters. [`Pipeline::serve`] around it sends
//! what it has come to, and turns what goes wrong on the way into a reply.

mod after_response;
mod cached;
mod call_failure;
mod call_head;
mod calls_made;
mod fetched;
mod filling;
mod host_io;
mod http2;
mod key_variables;
mod log;
mod outlet;
mod passwords;
mod pipeline;
mod proxy;
mod raw_connections;
mod refresh;
mod relay;
mod stored;
mod stream;
mod streamed_calls;
mod subrequest;
pub mod timer;
pub mod topic;
mod tunnel;
mod variables;
mod websocket;

use std::cell::Cell;

use http::StatusCode;
use tracing::{debug, warn};

use crate::downstream::h1::{self, Client};
use crate::downstream::{AfterResponse, Downstream, RequestBody};
use crate::error::{Error, PluginFault, reply};
use crate::exchange::{Answer, Exchange, Stage};
use crate::http1::{HeadError, ParsedRequest};
use crate::message::{FieldName, ReplyHead, grpc};
use crate::phase::{self, Native, Verdict};
use crate::runtime::alarm::{Alarm, Alarms};
use crate::service::Service;
use crate::worker_context::WorkerContext;

pub use http2::{StreamClient, run_stream};
use pipeline::{Pipeline, ResponseBody};

/// Room and alarms of a request beside its client's connection, for one after the other, of whichever connection.
pub struct Tools {
    pub exchange: Box<Exchange>,
    pub read_alarm: Alarm,
    pub write_alarm: Alarm,
}

impl Tools {
    pub fn new(alarms: &Alarms) -> Self {
        Self {
            exchange: Exchange::idle(),
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
        }
    }
}

/// Serves one request. Always leaves a line in the access log, whatever happened.
pub async fn run(
    client: &mut Client,
    tools: &mut Tools,
    request: ParsedRequest,
    service: &Service,
    worker: &WorkerContext,
) -> AfterResponse {
    let ParsedRequest {
        mut head,
        body: framing,
        keep_alive,
        expect_continue,
        dropped_fields,
    } = request;
    if dropped_fields > 0 {
        service.metrics.dropped_fields.add(dropped_fields as f64);
    }
    head.scheme = client.scheme();
    head.headers.remove_hop_by_hop();
    let marks = &service.client.marks;
    let address = marks.claims.settle(&mut head, client.address, marks);
    let keep_alive = client.count_request(&service.client) && keep_alive;
    let session = h1::Session::new(
        (&mut client.reader, &mut client.writer),
        h1::Alarms {
            read: &tools.read_alarm,
            write: &tools.write_alarm,
        },
        &service.client,
        &head,
        (framing, keep_alive, expect_continue),
    );
    let exchange = &mut tools.exchange;
    let (server, tls) = (client.server.clone(), client.tls.clone());
    exchange.begin(head, address, server, tls, &service.name);
    let calls = Cell::new(0);
    let body = RequestBody::new(framing.size(), &service.client);
    let downstream = Downstream::H1(session);
    let mut pipeline = Pipeline::new(exchange, downstream, body, &calls, service, worker);
    let after = pipeline.serve().await;
    match pipeline.has_last_hooks() {
        true => pipeline.run_last_hooks().await,
        false => pipeline.log(),
    }
    after
}

/// Answers a head that could not be read. There is no request, so no plugin sees it.
pub async fn refuse(
    client: &mut Client,
    tools: &mut Tools,
    error: HeadError,
    service: &Service,
    worker: &WorkerContext,
) -> AfterResponse {
    let exchange = &mut tools.exchange;
    let (server, tls) = (client.server.clone(), client.tls.clone());
    exchange.begin_unread(client.address, server, tls, &service.name);
    let Answer {
        status,
        mut headers,
        body,
    } = reply::plain(error.status());
    service.client.marks.set_server(&mut headers);
    debug!(client = %client.address, status = status.as_u16(), "request refused: {error}");
    exchange.reply_mut().status = status;
    exchange.stats_mut().body_bytes_sent = body.len() as u64;
    service.count(exchange, &service.router.unrouted.requests);
    let (alarm, limit) = (&tools.write_alarm, service.client.send_timeout);
    let head = ReplyHead { status, headers };
    let after = h1::refuse(client, alarm, limit, (&head, body), &worker.date()).await;
    worker.add_to_access_log(exchange);
    after
}

impl Pipeline<'_> {
    /// Serves the request to its end, also when something fails on the way.
    async fn serve(&mut self) -> AfterResponse {
        let mut response = match self.check() {
            Ok(()) => self.respond().await,
            Err(error) => Err(error),
        };
        loop {
            let sent = match response {
                Ok(body) => self.send(body).await,
                Err(error) => Err(error),
            };
            let error = match sent {
                Ok(()) => break,
                Err(error) => error,
            };
            self.note(&error);
            if self.downstream.has_begun() {
                // The head is out, and the only way to tell is to end too early.
                self.exchange.stats_mut().cut_by = Some(error.culprit());
                return AfterResponse::Close;
            }
            if error.client_is_gone() {
                self.exchange.reply_mut().status = reply::status(&error);
                return AfterResponse::Close;
            }
            self.downstream.withdraw();
            self.exchange.stats_mut().body_bytes_sent = 0;
            response = self.explain(error).await;
        }
        match self.downstream.after_response() {
            Some(after) => after,
            None => self.downstream.end_request().await,
        }
    }

    /// Comes to a response: phases, the upstream if none of them answers, filters of its head.
    async fn respond(&mut self) -> Result<ResponseBody, Error> {
        if let Some(answer) = self.service.challenges.answer(self.exchange.request()) {
            // No plugin and no route is to come between the authority and its answer.
            self.past_filters = true;
            return Ok(self.take(answer));
        }
        let verdict = match self.route()? {
            Some(phases) => self.run_phases(phases).await?,
            None => phase::verdict(self.plan.get(), self.exchange)?,
        };
        let response = match verdict {
            Verdict::Answer(answer) => self.take(answer),
            Verdict::Native(Native::Metrics) => self.show_metrics(),
            Verdict::Native(Native::Redirect(redirect)) => self.redirect(redirect),
            Verdict::Proxy(upstream) => self.proxy_or_cached(upstream).await?,
            Verdict::ProxyToChosen => {
                let chosen = self.chosen_upstream()?;
                self.proxy_or_cached(chosen).await?
            }
            // The response went through its filters piece by piece.
            Verdict::Streamed => return Ok(ResponseBody::Sent),
        };
        match self.has_head_filters() {
            true => self.filter_head(response).await,
            false => Ok(response),
        }
    }

    /// The reply to an error, through the filters as any other; past them if it is they that fail, or if the plugin
    /// that has failed is not available anyway.
    async fn explain(&mut self, error: Error) -> Result<ResponseBody, Error> {
        if matches!(error, Error::Client(_)) {
            self.downstream.end_connection();
        }
        let status = reply::status(&error);
        let exhausted = matches!(
            error,
            Error::Plugin {
                what: PluginFault::Exhausted,
                ..
            }
        );
        let answered = self.reply(status, &error);
        if !exhausted && self.exchange.stage() < Stage::Reply {
            match self.filter_head(answered).await {
                Err(error) if !matches!(error, Error::Client(_)) => self.note(&error),
                filtered => return filtered,
            }
        }
        // The first error is the one to tell.
        self.past_filters = true;
        Ok(self.reply(status, &error))
    }

    /// Makes an error's own reply the response, in the form that the client reads.
    fn reply(&mut self, status: StatusCode, error: &Error) -> ResponseBody {
        let mut answer = match grpc::is_call(self.exchange.request()) {
            true => reply::grpc(status, error.is_past_deadline()),
            false => reply::plain(status),
        };
        if let (Some(seconds), Some(name)) =
            (reply::retry_after(error), FieldName::new(b"retry-after"))
        {
            answer.headers.add(name, seconds);
        }
        self.take(answer)
    }

    fn note(&self, error: &Error) {
        let path = self.exchange.request().target.path();
        match error {
            Error::Upstream { .. } | Error::Plugin { .. } if self.downstream.has_begun() => {
                let status = self.exchange.reply().status.as_u16();
                let sent = self.exchange.stats().body_bytes_sent;
                warn!(
                    path,
                    status, "response cut after {sent} bytes of its body: {error}"
                );
            }
            Error::Upstream { .. }
            | Error::Shortage { .. }
            | Error::BodyLost { .. }
            | Error::Loop => warn!(path, "{error}"),
            // Under overload a line for each would be one more load.
            Error::Overloaded { .. } => debug!(path, "{error}"),
            // The plugin's own line has the cause.
            Error::Plugin { .. } => debug!(path, "{error}"),
            Error::TooManyReroutes(_) => {
                warn!(path, route = self.exchange.route(), "{error}");
            }
            Error::Client(_)
            | Error::NoTunnel
            | Error::NoTarget
            | Error::NoRoute
            | Error::Misdirected
            | Error::NoClientCertificate
            | Error::BadPath(_)
            | Error::Trace => {
                debug!(path, "{error}");
            }
        }
    }
}
