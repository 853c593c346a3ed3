//! Requests of plugins to the gateway's own routes: phases, upstream and filters as for a client's, without a client.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use castling_abi::call::MAX_DEPTH;
use http::Method;
use tracing::debug;

use crate::error::{Error, reply};
use crate::exchange::Exchange;
use crate::filter;
use crate::flow::host_io;
use crate::flow::pipeline::{Pipeline, ResponseBody};
use crate::http1::Decoded;
use crate::message::{Headers, KnownHeader, has_no_body};
use crate::runtime::clock;
use crate::service::Service;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::upstream::RequestBody;
use crate::wasm::{Call, CallResponse};
use crate::worker_context::WorkerContext;

/// What a sub-request has of the request that it is made for.
pub struct Parent<'a> {
    client: ClientAddress,
    server: ServerAddress,
    host: Option<Box<[u8]>>,
    /// `CDN-Loop` of the request, for its calls.
    loops: Option<Vec<u8>>,
    depth: u8,
    service: &'a Service,
    calls: &'a Cell<usize>,
}

impl<'a> Parent<'a> {
    pub fn new(exchange: &Exchange, service: &'a Service, calls: &'a Cell<usize>) -> Self {
        Self {
            client: exchange.client,
            server: exchange.server.clone(),
            host: exchange
                .request
                .headers
                .get(KnownHeader::Host)
                .map(Box::from),
            loops: exchange
                .request
                .headers
                .contains(KnownHeader::CdnLoop)
                .then(|| joined(&exchange.request.headers)),
            depth: exchange.depth,
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
        self.service.marks.add_to_call(headers);
    }

    fn carry_loops(&self, headers: &mut Headers) {
        if let Some(loops) = &self.loops {
            headers.set(KnownHeader::CdnLoop, loops);
        }
    }
}

/// Runs one. It is routed anew, with the host of its parent unless it names one; `post_read` and all phases of its route
/// see it. Hooks of `log` and the access log do not (as nginx `log_subrequest off`). What goes wrong on the way is a
/// response with the status that a client would get; the error is a line for the plugin.
pub async fn run(
    worker: &WorkerContext,
    parent: &Parent<'_>,
    call: Call,
) -> Result<CallResponse, String> {
    if parent.depth >= MAX_DEPTH {
        return Err(format!(
            "sub-requests are nested more than {MAX_DEPTH} deep"
        ));
    }
    let mut head = host_io::head(&call)?;
    if let (Some(host), false) = (&parent.host, head.headers.contains(KnownHeader::Host)) {
        head.headers.set(KnownHeader::Host, host);
    }
    parent.service.marks.note_client_side(&mut head);
    parent.carry_loops(&mut head.headers);
    let bodiless = head.method == Method::HEAD;
    let mut exchange = Exchange::idle();
    let service = parent.service;
    exchange.begin(head, parent.client, parent.server.clone(), &service.name);
    exchange.depth = parent.depth + 1;
    let body = RequestBody::held(call.body);
    let mut pipeline = Pipeline::new(&mut exchange, body, parent.calls, service, worker);
    let answered = match whole_response(&mut pipeline, bodiless, call.limit_bytes).await {
        Err(Refused::Error(error)) => {
            debug!(
                path = pipeline.exchange.request.target.path(),
                "sub-request: {error}"
            );
            match pipeline.take(reply::plain(reply::status(&error))) {
                ResponseBody::Here(body) => Ok(body),
                ResponseBody::Upstream(_) => Ok(Bytes::new()),
            }
        }
        Err(Refused::TooLarge) => Err(format!(
            "its body is longer than limits.body of {} bytes",
            call.limit_bytes
        )),
        Ok(body) => Ok(body),
    };
    pipeline.pinned.release().await;
    let reply = std::mem::take(&mut exchange.reply);
    Ok(CallResponse {
        status: reply.status,
        headers: reply.headers,
        body: answered?,
    })
}

enum Refused {
    Error(Error),
    TooLarge,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The response's body, filtered; its head is in the exchange.
async fn whole_response(
    pipeline: &mut Pipeline<'_>,
    bodiless: bool,
    limit_bytes: usize,
) -> Result<Bytes, Refused> {
    let source = pipeline.answer(None).await?;
    let progress = pipeline.begin_filters().finish().await;
    let source = pipeline.filter_head(None, source, progress).await?;
    if bodiless || has_no_body(pipeline.exchange.reply.status) {
        if let ResponseBody::Upstream(body) = source {
            body.finish();
        }
        return Ok(Bytes::new());
    }
    let plan = pipeline.plan.get();
    if filter::is_active(&plan.response_body, pipeline.exchange) {
        filter::settle_head(pipeline.exchange);
    }
    let mut filters = filter::Body::new(&plan.response_body, pipeline.exchange);
    let mut whole = BytesMut::new();
    let mut streamed = match source {
        ResponseBody::Here(body) => {
            let whole = pipeline.filter_whole(body, &mut filters).await?;
            return match whole.len() > limit_bytes {
                true => Err(Refused::TooLarge),
                false => Ok(whole),
            };
        }
        ResponseBody::Upstream(streamed) => streamed,
    };
    let mut pieces = clock::PieceBudget::default();
    loop {
        pieces.next().await;
        let (piece, last) = match streamed.decode()? {
            Decoded::Data(piece) => (piece, streamed.is_end()),
            Decoded::End => (Bytes::new(), true),
            Decoded::NeedMore => {
                let (mut client, exchange) = pipeline.client_side(None);
                streamed.fill(&mut client, exchange).await?;
                continue;
            }
        };
        let (piece, ended) = pipeline.filter_piece(&mut filters, piece, last).await?;
        whole.extend_from_slice(&piece);
        if whole.len() > limit_bytes {
            return Err(Refused::TooLarge);
        }
        if ended {
            // One that a filter has ended early closes its connection.
            streamed.finish();
            return Ok(whole.freeze());
        }
    }
}
