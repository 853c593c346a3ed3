//! Does what plugins wait for: whole bodies, calls out, delays.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use castling_abi::{ErrorKind, HeaderMap};
use futures_util::future::join_all;

use super::call_failure::failure;
use super::call_head::head;
use super::calls_made::count_more;
use super::outlet::Outlet;
use super::passwords;
use super::pipeline::ResponseBody;
use super::raw_connections::RawConnections;
use super::stream::Stream;
use super::subrequest;
use super::variables::compute;
use crate::downstream::{Collector, Downstream, RequestBody};
use crate::error::{ClientError, Error};
use crate::exchange::{Exchange, PluginKey, Stage};
use crate::filter::{self, RequestBodyFilter};
use crate::message::BodySize;
use crate::phase::{Computed, Plan, Step};
use crate::service::Service;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::upstream::{self, Proxied, UploadSource};
use crate::wasm::{
    self, BodyRefused, Call, CallFailure, CallResponse, CallResult, Destination, IoRequest,
    IoResult, Performing, PinnedInstances, RawWork, StreamHead, StreamedWork,
};
use crate::worker_context::WorkerContext;

/// Serves what the hooks of a request wait for.
pub struct RequestIo<'s, 'a> {
    /// The response, once there is one.
    pub response: Option<&'s mut ResponseBody>,
    pub downstream: &'s mut Downstream<'a>,
    pub body: &'s mut RequestBody,
    pub body_filter: &'s mut Option<Box<RequestBodyFilter>>,
    /// Calls out that the client's request has made so far.
    pub calls: &'s Cell<usize>,
    /// Connections that plugins have made for the request.
    pub raw: &'s mut RawConnections,
    /// The plan of the request's route, as soon as it has one.
    pub plan: &'s Cell<&'a Plan>,
    pub worker: &'s WorkerContext,
    pub service: &'s Service,
    /// Response that a plugin writes piece by piece, once it has begun.
    pub stream: Option<Box<Stream<'a>>>,
}

impl wasm::HostIo for RequestIo<'_, '_> {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        Box::pin(async move {
            match request {
                IoRequest::Body {
                    of: HeaderMap::Request,
                    limit_bytes,
                } => self.request_body(exchange.stage(), limit_bytes).await,
                IoRequest::Body { limit_bytes, .. } => {
                    self.response_body(exchange, pinned, limit_bytes).await
                }
                IoRequest::Peek { bytes } => self.peek_request_body(exchange.stage(), bytes).await,
                IoRequest::Variable(idx) => {
                    compute(&self.plan.get().variables, idx, exchange, pinned, self).await
                }
                IoRequest::Calls(calls) => {
                    if !count_calls(self.calls, &calls) {
                        return Ok(IoResult::TooManyCalls);
                    }
                    let (worker, service, made) = (self.worker, self.service, self.calls);
                    let parent = subrequest::Parent::new(exchange, service, made);
                    let results = calls
                        .into_iter()
                        .map(|call| call_out(worker, Some(&parent), made, call));
                    self.while_client_stays(join_all(results))
                        .await
                        .map(IoResult::Calls)
                }
                IoRequest::Delay(duration) => {
                    self.while_client_stays(tokio::time::sleep(duration))
                        .await?;
                    Ok(IoResult::Delayed)
                }
                // The filters of a body serve it.
                IoRequest::Emit(_) => Ok(IoResult::NotNow),
                IoRequest::Flight(wish) => {
                    let flights = self.worker.flights();
                    let flown = self.while_client_stays(flights.fly(&wish)).await?;
                    Ok(IoResult::Flown(
                        flown.map(|landed| landed.hold_in(exchange, wish.plugin)),
                    ))
                }
                IoRequest::Password(work, limit) => {
                    if !count_more(self.calls, 1, limit) {
                        return Ok(IoResult::TooManyCalls);
                    }
                    let done = self.while_client_stays(passwords::work_out(*work));
                    done.await.map(IoResult::Password)
                }
                IoRequest::Raw(key, work) => self.raw(key, *work).await,
                IoRequest::Streamed(key, work) => self.streamed(key, *work, exchange).await,
                IoRequest::Begin(head) => self.begin_response(*head, exchange, pinned).await,
                IoRequest::Write(piece) => self.write_response(piece, exchange, pinned).await,
            }
        })
    }

    fn replace_response(&mut self, body: &Bytes) {
        if let Some(source) = &mut self.response {
            **source = ResponseBody::Here(body.clone());
        }
    }
}

impl<'a> RequestIo<'_, 'a> {
    fn outlet<'s>(
        &'s mut self,
        exchange: &'s mut Box<Exchange>,
        pinned: &'s mut PinnedInstances,
    ) -> Outlet<'s, 'a> {
        Outlet {
            plan: self.plan.get(),
            exchange,
            pinned,
            downstream: self.downstream,
            worker: self.worker,
        }
    }

    async fn request_body(&mut self, stage: Stage, limit_bytes: usize) -> Result<IoResult, Error> {
        // A response has begun, and with it has ended what `Expect: 100-continue` asks for.
        if stage >= Stage::Reply {
            return Ok(IoResult::Body(Err(BodyRefused::NotNow)));
        }
        self.limit_request_body()?;
        let whole = self
            .body
            .read_whole(
                self.downstream,
                limit_bytes,
                self.service.client.send_timeout,
            )
            .await?;
        Ok(IoResult::Body(whole.ok_or(BodyRefused::TooLarge)))
    }

    async fn peek_request_body(&mut self, stage: Stage, bytes: usize) -> Result<IoResult, Error> {
        if stage >= Stage::Reply {
            return Ok(IoResult::NotNow);
        }
        self.limit_request_body()?;
        let timeout = self.service.client.send_timeout;
        let (bytes, is_whole) = self.body.peek(self.downstream, bytes, timeout).await?;
        Ok(IoResult::Peeked { bytes, is_whole })
    }

    fn limit_request_body(&mut self) -> Result<(), Error> {
        if self.service.limits_bodies_by_route {
            let own = self.plan.get().proxy.as_ref();
            self.body
                .limit(own.and_then(|route| route.max_body_bytes))?;
        }
        Ok(())
    }

    /// A body that was read whole takes the place of the one that streams.
    async fn response_body(
        &mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        limit_bytes: usize,
    ) -> Result<IoResult, Error> {
        let Some(source) = &mut self.response else {
            return Ok(IoResult::Body(Err(BodyRefused::NotNow)));
        };
        let whole = match source {
            ResponseBody::Here(body) => (body.len() <= limit_bytes).then(|| body.clone()),
            ResponseBody::Sent => return Ok(IoResult::Body(Err(BodyRefused::NotNow))),
            // A response without a body: its head may tell the length of another's, and keeps it.
            ResponseBody::Upstream(body) if body.size() == BodySize::None => {
                return Ok(IoResult::Body(Ok(Bytes::new())));
            }
            ResponseBody::Filling(filling) => {
                let whole = Box::pin(filling.whole(limit_bytes));
                let whole = self.downstream.while_there(whole).await;
                whole.ok_or(ClientError::Gone)??
            }
            ResponseBody::Upstream(body) => {
                let mut source = UploadSource {
                    downstream: self.downstream,
                    body: self.body,
                    filter: self.body_filter,
                    pinned: Some(pinned),
                };
                body.read_whole(&mut source, exchange, limit_bytes).await?
            }
        };
        if let Some(whole) = &whole
            && let ResponseBody::Upstream(streamed) =
                std::mem::replace(*source, ResponseBody::Here(whole.clone()))
        {
            streamed.finish();
        }
        Ok(IoResult::Body(whole.ok_or(BodyRefused::TooLarge)))
    }

    /// Begins a response that the hook goes on to write, through the filters of heads. One of them that answers has its response
    /// sent in the place of this one.
    async fn begin_response(
        &mut self,
        StreamHead {
            plugin,
            mut head,
            length,
        }: StreamHead,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<IoResult, Error> {
        if exchange.stage() != Stage::Request || self.stream.is_some() {
            return Ok(IoResult::NotNow);
        }
        self.service.client.marks.set_server(&mut head.headers);
        // An answer that the hook has made before is given up.
        exchange.take_answer();
        exchange.replace_reply(head.status, head.headers);
        exchange.enter(Stage::Reply);
        let steps = &self.plan.get().response_headers;
        let replaced = match steps.is_empty() {
            true => None,
            false => {
                let progress = Step::go(steps, filter::HEAD, exchange).finish().await;
                filter::run_head(steps, progress, exchange, pinned, self).await?
            }
        };
        exchange.enter(Stage::Body);
        let outlet = &mut self.outlet(exchange, pinned);
        let stream = Stream::begin(plugin, length, replaced, outlet).await?;
        let is_wanted = stream.is_wanted();
        self.stream = Some(stream);
        Ok(IoResult::Written { is_wanted })
    }

    /// Sends the next piece of the response that the hook writes.
    async fn write_response(
        &mut self,
        piece: Bytes,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<IoResult, Error> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(IoResult::NotNow);
        };
        let is_empty = piece.is_empty();
        let is_taken = stream
            .write(piece, &mut self.outlet(exchange, pinned))
            .await?;
        let is_wanted = stream.is_wanted();
        self.stream = Some(stream);
        if !is_taken {
            return Ok(IoResult::BeyondLength);
        }
        if is_wanted && !is_empty && exchange.context().depth == 0 {
            // A stream may ask upstreams for each of its pieces. A sub-request's calls are its parent's, which gets all pieces at once.
            self.calls.set(0);
        }
        Ok(IoResult::Written { is_wanted })
    }

    /// Ends the response that the hook has written.
    pub async fn end_response(
        &mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<(), Error> {
        match self.stream.take() {
            Some(stream) => stream.end(&mut self.outlet(exchange, pinned)).await,
            None => Ok(()),
        }
    }

    async fn raw(&mut self, key: PluginKey, work: RawWork) -> Result<IoResult, Error> {
        let (worker, made) = (self.worker, self.calls);
        let mut open = std::mem::take(self.raw);
        let done = open.perform(worker, made, key, work);
        let done = self.while_client_stays(done).await;
        *self.raw = open;
        done
    }

    async fn streamed(
        &mut self,
        key: PluginKey,
        mut work: StreamedWork,
        exchange: &Exchange,
    ) -> Result<IoResult, Error> {
        let (worker, made) = (self.worker, self.calls);
        subrequest::Parent::new(exchange, self.service, made).mark_streamed(&mut work);
        let mut open = std::mem::take(self.raw);
        let done = open.streamed_calls().perform(worker, made, key, work);
        let done = self.while_client_stays(done).await;
        *self.raw = open;
        done
    }

    async fn while_client_stays<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let done = self.downstream.while_there(work).await;
        done.ok_or_else(|| ClientError::Gone.into())
    }
}

/// For hooks that no client waits for: they may call out and wait.
pub struct BackgroundIo<'a> {
    worker: &'a WorkerContext,
    /// Calls out that this run has made so far.
    calls: Cell<usize>,
    raw: RawConnections,
    /// `None`: there is no request.
    request: Option<OfRequest<'a>>,
}

/// Facts of the request whose response is out.
struct OfRequest<'a> {
    service: &'a Service,
    variables: &'a [Computed],
}

impl<'a> BackgroundIo<'a> {
    pub fn new(worker: &'a WorkerContext) -> Self {
        Self {
            worker,
            calls: Cell::new(0),
            raw: RawConnections::default(),
            request: None,
        }
    }

    pub fn of_request(
        worker: &'a WorkerContext,
        service: &'a Service,
        variables: &'a [Computed],
    ) -> Self {
        let request = Some(OfRequest { service, variables });
        Self {
            request,
            ..Self::new(worker)
        }
    }

    async fn streamed(
        &mut self,
        key: PluginKey,
        mut work: StreamedWork,
        exchange: &Exchange,
    ) -> IoResult {
        let (worker, made) = (self.worker, &self.calls);
        if let Some(request) = &self.request {
            let parent = subrequest::Parent::new(exchange, request.service, made);
            parent.mark_streamed(&mut work);
        }
        let calls = self.raw.streamed_calls();
        calls.perform(worker, made, key, work).await
    }
}

impl wasm::HostIo for BackgroundIo<'_> {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        Box::pin(async move {
            Ok(match request {
                IoRequest::Calls(calls) if !count_calls(&self.calls, &calls) => {
                    IoResult::TooManyCalls
                }
                IoRequest::Calls(calls) => {
                    let parent = self.request.as_ref().map(|request| {
                        subrequest::Parent::new(exchange, request.service, &self.calls)
                    });
                    let results = calls
                        .into_iter()
                        .map(|call| call_out(self.worker, parent.as_ref(), &self.calls, call));
                    IoResult::Calls(join_all(results).await)
                }
                IoRequest::Delay(duration) => {
                    tokio::time::sleep(duration).await;
                    IoResult::Delayed
                }
                IoRequest::Raw(key, work) => {
                    let (worker, made) = (self.worker, &self.calls);
                    self.raw.perform(worker, made, key, *work).await
                }
                IoRequest::Streamed(key, work) => self.streamed(key, *work, exchange).await,
                IoRequest::Password(_, limit) if !count_more(&self.calls, 1, limit) => {
                    IoResult::TooManyCalls
                }
                IoRequest::Password(work, _) => {
                    IoResult::Password(passwords::work_out(*work).await)
                }
                IoRequest::Variable(idx) => match &self.request {
                    Some(request) => {
                        compute(request.variables, idx, exchange, pinned, self).await?
                    }
                    None => IoResult::NotNow,
                },
                IoRequest::Flight(wish) if self.request.is_some() => {
                    let flown = self.worker.flights().fly(&wish).await;
                    IoResult::Flown(flown.map(|landed| landed.hold_in(exchange, wish.plugin)))
                }
                IoRequest::Body { .. }
                | IoRequest::Peek { .. }
                | IoRequest::Flight(_)
                | IoRequest::Begin(_)
                | IoRequest::Write(_)
                | IoRequest::Emit(_) => IoResult::NotNow,
            })
        })
    }
}

/// Counts these calls among those that were made. False: they would be more than `limits.calls`.
fn count_calls(made: &Cell<usize>, calls: &[Call]) -> bool {
    // No call is within any limit.
    let limit = calls.iter().map(|call| call.calls_limit).min();
    limit.is_none_or(|limit| count_more(made, calls.len(), limit))
}

/// Makes one call: to an upstream, over its kept connections and with its balancing, or to a route of the gateway's own. The
/// error is a line for the plugin.
async fn call_out(
    worker: &WorkerContext,
    parent: Option<&subrequest::Parent<'_>>,
    made: &Cell<usize>,
    mut call: Call,
) -> CallResult {
    let timeout = call.timeout;
    // A host may be this gateway's own, by its public name.
    if let (Destination::Host(..), Some(parent)) = (&call.to, parent) {
        parent.mark_call(&mut call.headers);
    }
    let sent = async {
        match (&call.to, parent) {
            (Destination::Upstream(_), _) => send(worker, parent, call).await,
            (Destination::Host(plugin, name), _) => match worker.host_calls(plugin) {
                Some(hosts) => hosts.send(name, &call).await,
                None => Err(CallFailure::new(
                    ErrorKind::NotGranted,
                    "no host is granted",
                )),
            },
            (Destination::OwnRoutes(plugin), Some(parent)) => {
                let plugin = Arc::clone(plugin);
                subrequest::run(worker, parent, &plugin, call).await
            }
            (Destination::OwnRoutes(plugin), None) => {
                let plugin = Arc::clone(plugin);
                subrequest::run_for_nobody(worker, made, &plugin, call).await
            }
        }
    };
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, sent).await.map_err(|_| {
            CallFailure::new(ErrorKind::Timeout, format!("no response in {timeout:?}"))
        })?,
        None => sent.await,
    }
}

async fn send(
    worker: &WorkerContext,
    parent: Option<&subrequest::Parent<'_>>,
    call: Call,
) -> CallResult {
    let Destination::Upstream(name) = &call.to else {
        return Err(CallFailure::new(ErrorKind::HostFailed, "it is to none"));
    };
    let upstream = worker.upstream_named(name).ok_or_else(|| {
        CallFailure::new(ErrorKind::NotFound, format!("there is no upstream {name}"))
    })?;
    let mut exchange = Exchange::idle();
    // The request is nobody's; its balancing sees this client.
    let (client, server) = (ClientAddress::NOBODY, ServerAddress::NOBODY);
    let mut head = head(&call)?;
    if let Some(parent) = parent {
        parent.mark_call(&mut head.headers);
    }
    let listener = exchange.context().listener.clone();
    exchange.begin(head, client, server, None, &listener);
    exchange.enter(Stage::Balance);
    let mut body = RequestBody::held(call.body);
    // The response is read here: nobody else waits for it.
    let mut downstream = Downstream::Collect(Collector::new(&call.method, call.limit_bytes));
    let mut source = UploadSource {
        downstream: &mut downstream,
        body: &mut body,
        filter: &mut None,
        pinned: None,
    };
    let now = exchange.stats().started;
    let proxied = upstream::send(
        upstream,
        upstream.settings(),
        &mut exchange,
        &mut source,
        now,
    )
    .await
    .map_err(failure)?;
    let Proxied::Response(mut response) = proxied else {
        return Err(CallFailure::new(
            ErrorKind::Broken,
            "a plugin has answered it",
        ));
    };
    let whole = response
        .read_whole(&mut source, &mut exchange, call.limit_bytes)
        .await
        .map_err(failure)?;
    let body = whole.ok_or_else(|| CallFailure::too_large(call.limit_bytes))?;
    response.finish();
    let reply = std::mem::take(exchange.reply_mut());
    Ok(CallResponse {
        status: reply.status,
        headers: reply.headers,
        body,
    })
}
