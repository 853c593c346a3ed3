//! Requests of plugins to the gateway's own routes: phases, upstream and filters as for a client's, without a client.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::ErrorKind;
use castling_abi::call::MAX_DEPTH;
use tracing::debug;

use super::call_head::head;
use super::pipeline::Pipeline;
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::{Error, reply};
use crate::exchange::{Answer, Exchange};
use crate::message::{Headers, KnownHeader, Scheme};
use crate::service::Service;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::tls::TlsInfo;
use crate::wasm::{Call, CallFailure, CallResponse, CallResult, StreamedWork};
use crate::worker_context::WorkerContext;

/// Facts that a sub-request has of the request that it is made for.
pub struct Parent<'a> {
    client: ClientAddress,
    server: ServerAddress,
    tls: Option<Arc<TlsInfo>>,
    host: Option<Box<[u8]>>,
    /// `CDN-Loop` of the request, for its calls.
    loops: Option<Vec<u8>>,
    scheme: Scheme,
    depth: u8,
    /// There is no request: the sub-request is one of its own, for log and metrics.
    is_nobody: bool,
    service: &'a Service,
    calls: &'a Cell<usize>,
}

impl<'a> Parent<'a> {
    pub fn new(exchange: &Exchange, service: &'a Service, calls: &'a Cell<usize>) -> Self {
        Self {
            client: exchange.context().client,
            server: exchange.context().server.clone(),
            tls: exchange.context().tls.clone(),
            host: exchange
                .request()
                .headers
                .get(KnownHeader::Host)
                .map(Box::from),
            loops: exchange
                .request()
                .headers
                .contains(KnownHeader::CdnLoop)
                .then(|| joined(&exchange.request().headers)),
            scheme: exchange.request().scheme,
            depth: exchange.context().depth,
            is_nobody: false,
            service,
            calls,
        }
    }

    /// For a hook of no request, whose sub-requests have the routes of this service.
    pub fn nobody(service: &'a Service, calls: &'a Cell<usize>) -> Self {
        Self {
            client: ClientAddress::NOBODY,
            server: ServerAddress::NOBODY,
            tls: None,
            host: None,
            loops: None,
            scheme: service.scheme,
            depth: 0,
            is_nobody: true,
            service,
            calls,
        }
    }
}

fn joined(headers: &Headers) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(KnownHeader::CdnLoop).collect();
    values.join(&b", "[..])
}

impl Parent<'_> {
    /// Adds to the head of a call what tells a loop.
    pub fn mark_call(&self, headers: &mut Headers) {
        self.carry_loops(headers);
        self.service.client.marks.add_to_call(headers);
    }

    /// Does so where a call with streamed bodies begins.
    pub fn mark_streamed(&self, work: &mut StreamedWork) {
        if let StreamedWork::Open { call, .. } = work {
            self.mark_call(&mut call.headers);
        }
    }

    fn carry_loops(&self, headers: &mut Headers) {
        if let Some(loops) = &self.loops {
            headers.set(KnownHeader::CdnLoop, loops);
        }
    }
}

/// Runs one. It is routed anew, with the host of its parent unless it names one; `post_read` and all phases of its route
/// see it. Hooks of `log` do not, and neither does the access log, where its parent has a line there (as nginx `log_subrequest off`).
/// What goes wrong on the way is a response with the status that a client would get; the error is a line for the plugin.
pub async fn run(
    worker: &WorkerContext,
    parent: &Parent<'_>,
    plugin: &Arc<str>,
    call: Call,
) -> CallResult {
    if parent.depth >= MAX_DEPTH {
        return Err(CallFailure::new(
            ErrorKind::Limit,
            format!("sub-requests are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let mut head = head(&call)?;
    if let (Some(host), false) = (&parent.host, head.headers.contains(KnownHeader::Host)) {
        head.headers.set(KnownHeader::Host, host);
    }
    head.scheme = parent.scheme;
    parent.service.client.marks.note_client_side(&mut head);
    parent.carry_loops(&mut head.headers);
    let collector = Collector::new(&head.method, call.limit_bytes);
    let mut exchange = Exchange::idle();
    let service = parent.service;
    let (server, tls) = (parent.server.clone(), parent.tls.clone());
    exchange.begin(head, parent.client, server, tls, &service.name);
    exchange.context_mut().depth = parent.depth + 1;
    exchange.context_mut().subrequest_of = Some(Arc::clone(plugin));
    let _under_way = parent.is_nobody.then(|| worker.count_request());
    let (downstream, body) = (Downstream::Collect(collector), RequestBody::held(call.body));
    let mut pipeline = Pipeline::new(
        &mut exchange,
        downstream,
        body,
        parent.calls,
        service,
        worker,
    );
    let answered = match pipeline.respond().await {
        Ok(body) => pipeline.send(body).await,
        Err(error) => Err(error),
    };
    pipeline.pinned.release().await;
    let requests = pipeline.plan.get().requests;
    let body = match (answered, pipeline.downstream) {
        (Ok(()), Downstream::Collect(collector)) => collector.into_body(),
        (Err(_), Downstream::Collect(collector)) if collector.is_too_large() => None,
        (Err(error), _) => Some(explain(&mut exchange, service, &error)),
        (Ok(()), Downstream::H1(_) | Downstream::H2(_)) => None,
    };
    if parent.is_nobody {
        service.count(&exchange, &requests);
        worker.add_to_access_log(&exchange);
    }
    let body = body.ok_or_else(|| CallFailure::too_large(call.limit_bytes))?;
    let reply = std::mem::take(exchange.reply_mut());
    Ok(CallResponse {
        status: reply.status,
        headers: reply.headers,
        body,
    })
}

/// Runs one for a hook of no request: within [`LONGEST_FOR_NOBODY`], unless the call says less.
pub async fn run_for_nobody(
    worker: &WorkerContext,
    made: &Cell<usize>,
    plugin: &Arc<str>,
    call: Call,
) -> CallResult {
    let Some(service) = worker.own_routes(plugin) else {
        return Err(CallFailure::new(
            ErrorKind::NotGranted,
            "there is no request, and no listener whose routes these could be; expected the name of one in the plugin's `grants.own_routes`",
        ));
    };
    let parent = Parent::nobody(service, made);
    let answered = run(worker, &parent, plugin, call);
    match tokio::time::timeout(LONGEST_FOR_NOBODY, answered).await {
        Ok(answered) => answered,
        Err(_) => Err(CallFailure::new(
            ErrorKind::Timeout,
            format!("no response in {LONGEST_FOR_NOBODY:?}"),
        )),
    }
}

/// Time of a sub-request that no client waits for, who would leave at last.
const LONGEST_FOR_NOBODY: Duration = Duration::from_secs(60);

/// Makes the reply to an error the response, which no filter sees.
fn explain(exchange: &mut Exchange, service: &Service, error: &Error) -> Bytes {
    let path = exchange.request().target.path();
    debug!(path, "sub-request: {error}");
    let Answer {
        status,
        mut headers,
        body,
    } = reply::plain(reply::status(error));
    service.client.marks.set_server(&mut headers);
    exchange.replace_reply(status, headers);
    body
}
