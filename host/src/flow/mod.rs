//! The life of one request, from its head to its line in the log.

mod host_io;
mod pipeline;
mod subrequest;
pub mod timer;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::Hook;
use http::Method;
use tracing::{debug, warn};

use crate::config::Rate;
use crate::error::{ClientError, Error, PluginFault, reply};
use crate::exchange::{Answer, Exchange, Stage};
use crate::filter;
use crate::flow::host_io::VariablesOnly;
use crate::flow::pipeline::{Pipeline, ResponseBody};
use crate::http1::{self, Decoded, Framing, HeadError, ParsedRequest, ReplyTo};
use crate::message::{BodySize, KnownHeader, Protocol, ReplyHead, has_no_body};
use crate::phase::Plan;
use crate::runtime::alarm::{Alarm, Alarms, Elapsed};
use crate::runtime::clock;
use crate::service::Service;
use crate::transport::Socket;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::halves::{self, Reader, Writer};
use crate::upstream::{self, RequestBody, Wire, forwarded};
use crate::wasm::{MaybeFuture, Progress};
use crate::worker_context::WorkerContext;

/// A client's connection, as its requests use it.
pub struct Client {
    pub reader: Reader,
    pub writer: Writer,
    pub address: ClientAddress,
    /// The gateway's end.
    pub server: ServerAddress,
}

/// What a request needs beside its client's connection, for one after the other, of whichever connection.
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

impl Client {
    pub fn new(stream: Socket, address: ClientAddress, server: ServerAddress) -> Self {
        let (reader, writer) = halves::split(stream);
        Self {
            reader,
            writer,
            address,
            server,
        }
    }
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterResponse {
    /// The next request may follow.
    KeepAlive,
    /// It ends now.
    Close,
    /// It ends, but bytes of the client's may be on their way that would destroy the response if it ended at once.
    Linger,
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
        body,
        keep_alive,
        expect_continue,
        dropped_fields,
    } = request;
    if dropped_fields > 0 {
        service.metrics.dropped_fields.add(dropped_fields as f64);
    }
    head.headers.remove_hop_by_hop();
    forwarded::remove_claims(&mut head.headers);
    service.marks.note_client_side(&mut head);
    let Client {
        reader,
        writer,
        address,
        server,
    } = client;
    let Tools {
        exchange,
        read_alarm,
        write_alarm,
    } = tools;
    exchange.begin(head, *address, server.clone(), &service.name);
    let calls = Cell::new(0);
    let body = RequestBody::new(
        body,
        service.max_body_bytes,
        service.body_timeout,
        service.body_rate,
        expect_continue,
    );
    let mut flow = Flow {
        wire: Wire {
            reader,
            writer,
            read_alarm,
            write_alarm,
            protocol: exchange.request.protocol,
            service,
            half_closed: false,
        },
        begun: false,
        past_filters: false,
        method: exchange.request.method.clone(),
        protocol: exchange.request.protocol,
        keep_alive,
        is_event_stream: false,
        until_close: false,
        pipeline: Pipeline::new(exchange, body, &calls, service, worker),
    };
    let after_response = flow.serve().await;
    flow.log().await;
    after_response
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
    exchange.begin_unread(client.address, client.server.clone(), &service.name);
    let Answer {
        status,
        mut headers,
        body,
    } = reply::plain(error.status());
    service.marks.set_server(&mut headers);
    debug!(client = %client.address, status = status.as_u16(), "request refused: {error}");
    let to = ReplyTo {
        method: &Method::GET,
        protocol: Protocol::Http11,
        keep_alive: false,
        date: &worker.date(),
    };
    http1::write_response_head(
        client.writer.small(),
        status,
        &headers,
        BodySize::Exact(body.len() as u64),
        &to,
    );
    exchange.reply.status = status;
    exchange.stats.body_bytes_sent = body.len() as u64;
    count(exchange, &service.router.unrouted, service);
    client.writer.push(body);
    let sent = client
        .writer
        .flush(&tools.write_alarm, service.send_timeout)
        .await;
    worker.add_to_access_log(exchange);
    match sent {
        Ok(Ok(())) => AfterResponse::Linger,
        Ok(Err(_)) | Err(Elapsed) => AfterResponse::Close,
    }
}

/// What is left of a request's body after its response is read for this long at most.
const DISCARD_TIME: Duration = Duration::from_secs(5);

struct Flow<'a> {
    wire: Wire<'a>,
    pipeline: Pipeline<'a>,
    /// Bytes of the response may be on their way.
    begun: bool,
    /// The response is an error's that no filter is to see.
    past_filters: bool,
    /// As the client sent them: what it is answered must fit its request, not what a plugin made of it.
    method: Method,
    protocol: Protocol,
    keep_alive: bool,
    /// The client need not take the response at the rate that there is: events come when there are some.
    is_event_stream: bool,
    /// The response's body ends with the connection, which is reset unless the body is whole.
    until_close: bool,
}

impl Flow<'_> {
    async fn serve(&mut self) -> AfterResponse {
        let answered = match self.check() {
            Ok(()) => self.pipeline.answer(Some(&mut self.wire)).await,
            Err(error) => Err(error),
        };
        let mut source = match answered {
            Ok(source) => {
                // As in `filter_head`, without its future.
                let progress = match self.pipeline.begin_filters() {
                    MaybeFuture::Ready(progress) => progress,
                    MaybeFuture::Pending(progress) => progress.await,
                };
                match self.pipeline.is_filtered(&progress) {
                    true => Ok(source),
                    false => self.filter_rest(source, progress).await,
                }
            }
            Err(error) => Err(error),
        };
        loop {
            let sent = match source {
                Ok(source) => self.send(source).await,
                Err(error) => Err(error),
            };
            let error = match sent {
                Ok(()) => {
                    if self.until_close {
                        self.wire.writer.set_reset_on_close(false);
                    }
                    return self.after_response().await;
                }
                Err(error) => error,
            };
            self.note(&error);
            if self.begun {
                // The head is out, and the only way to tell is to end too early.
                self.pipeline.exchange.stats.cut_by = Some(error.culprit());
                return AfterResponse::Close;
            }
            if error.client_is_gone() {
                self.pipeline.exchange.reply.status = reply::status(&error);
                return AfterResponse::Close;
            }
            self.wire.writer.clear();
            if std::mem::take(&mut self.until_close) {
                // No head that ends with the close is out: the reply in its place has a length and ends in order.
                self.wire.writer.set_reset_on_close(false);
            }
            self.pipeline.exchange.stats.body_bytes_sent = 0;
            source = self.explain(error).await;
        }
    }

    /// Refuses what no plugin is to see.
    fn check(&self) -> Result<(), Error> {
        if self.method == Method::TRACE {
            // It would show a client what lies between, cookies and all (nginx answers 405, too).
            return Err(Error::Trace);
        }
        let (marks, headers) = (
            &self.pipeline.service.marks,
            &self.pipeline.exchange.request.headers,
        );
        if marks.is_loop(headers) {
            return Err(Error::Loop);
        }
        Ok(self.pipeline.body.check_announced()?)
    }

    async fn filter_head(&mut self, source: ResponseBody) -> Result<ResponseBody, Error> {
        let progress = self.pipeline.begin_filters().finish().await;
        self.filter_rest(source, progress).await
    }

    async fn filter_rest(
        &mut self,
        source: ResponseBody,
        progress: Progress,
    ) -> Result<ResponseBody, Error> {
        let wire = Some(&mut self.wire);
        self.pipeline.filter_head(wire, source, progress).await
    }

    /// The reply to an error, through the filters as any other; past them if it is they that fail, or if the plugin
    /// that has failed is not available anyway.
    async fn explain(&mut self, error: Error) -> Result<ResponseBody, Error> {
        if matches!(error, Error::Client(_)) {
            self.keep_alive = false;
        }
        let status = reply::status(&error);
        let exhausted = matches!(
            error,
            Error::Plugin {
                what: PluginFault::Exhausted,
                ..
            }
        );
        let answered = self.pipeline.take(reply::plain(status));
        if !exhausted && self.pipeline.exchange.stage < Stage::Reply {
            match self.filter_head(answered).await {
                Err(error) if !matches!(error, Error::Client(_)) => self.note(&error),
                filtered => return filtered,
            }
        }
        // The first error is the one to tell.
        self.past_filters = true;
        Ok(self.pipeline.take(reply::plain(status)))
    }

    fn note(&self, error: &Error) {
        let path = self.pipeline.exchange.request.target.path();
        match error {
            Error::Upstream { .. } | Error::Plugin { .. } if self.begun => {
                let status = self.pipeline.exchange.reply.status.as_u16();
                let sent = self.pipeline.exchange.stats.body_bytes_sent;
                warn!(
                    path,
                    status, "response cut after {sent} bytes of its body: {error}"
                );
            }
            Error::Upstream { .. } | Error::Shortage { .. } | Error::Loop => warn!(path, "{error}"),
            // The plugin's own line has the cause.
            Error::Plugin { .. } => debug!(path, "{error}"),
            Error::TooManyReroutes(_) => {
                warn!(
                    path,
                    route = self.pipeline.exchange.route.as_deref(),
                    "{error}"
                )
            }
            Error::Client(_) | Error::NoRoute | Error::BadPath(_) | Error::Trace => {
                debug!(path, "{error}");
            }
        }
    }

    async fn send(&mut self, source: ResponseBody) -> Result<(), Error> {
        let bodiless =
            self.method == Method::HEAD || has_no_body(self.pipeline.exchange.reply.status);
        let steps = &self.pipeline.plan.get().response_body;
        let is_filtered = !steps.is_empty()
            && !self.past_filters
            && filter::is_active(steps, self.pipeline.exchange);
        if is_filtered {
            filter::settle_head(self.pipeline.exchange);
        }
        let filtered = is_filtered && !bodiless;
        let mut filters = filtered.then(|| filter::Body::new(steps, self.pipeline.exchange));
        match source {
            ResponseBody::Here(body) => {
                let body = match &mut filters {
                    Some(filters) => self.pipeline.filter_whole(body, filters).await?,
                    None => body,
                };
                let length = match bodiless && is_filtered {
                    true => BodySize::None,
                    false => BodySize::Exact(body.len() as u64),
                };
                let form = self.write_head(length);
                if form != Framing::None {
                    self.push(body, form);
                }
                self.flush_last().await
            }
            ResponseBody::Upstream(body) => {
                let form = self.write_head(match filtered {
                    true => BodySize::Unknown,
                    false => body.size(),
                });
                self.relay(body, form, filters).await
            }
        }
    }

    /// Returns in which form the body must follow.
    fn write_head(&mut self, size: BodySize) -> Framing {
        // Only a body that the client was told to send is worth waiting for.
        let may_keep = self.keep_alive && !self.pipeline.worker.is_draining();
        let keep_alive =
            may_keep && (self.pipeline.body.is_read() || !self.pipeline.body.is_unasked());
        let date = self.pipeline.worker.date();
        let to = ReplyTo {
            method: &self.method,
            protocol: self.protocol,
            keep_alive,
            date: &date,
        };
        let reply = &self.pipeline.exchange.reply;
        // Rates alone need it, and mostly there is none.
        self.is_event_stream = self.pipeline.service.send_rate.min != 0
            && !matches!(size, BodySize::Exact(_))
            && is_event_stream(reply);
        let framing = http1::write_response_head(
            self.wire.writer.small(),
            reply.status,
            &reply.headers,
            size,
            &to,
        );
        self.keep_alive = framing.keep_alive;
        self.until_close = framing.body == Framing::UntilClose;
        if self.until_close {
            // RFC 9112 §8: the close would tell the client that a cut body is whole. Set now, it holds for all that may
            // end the connection early: a peer that breaks off, a drain's time-out, a worker that dies.
            self.wire.writer.set_reset_on_close(true);
        }
        framing.body
    }

    /// Passes the upstream's body on, piece by piece: what is not taken by the client is not read from the peer.
    async fn relay(
        &mut self,
        mut body: upstream::Body,
        form: Framing,
        mut filters: Option<filter::Body<'_>>,
    ) -> Result<(), Error> {
        if form == Framing::None {
            if body.is_end() || body.size() == BodySize::None {
                body.finish();
            }
            return self.flush_last().await;
        }
        let mut pieces = clock::PieceBudget::default();
        loop {
            if pieces.is_turn_over() {
                tokio::task::yield_now().await;
            }
            let (piece, last) = match body.decode()? {
                Decoded::Data(piece) => (piece, body.is_end()),
                Decoded::End => (Bytes::new(), true),
                Decoded::NeedMore => {
                    // A large piece is out already.
                    if self.wire.writer.has_pending() {
                        self.flush().await?;
                    }
                    let (mut client, exchange) = self.pipeline.client_side(Some(&mut self.wire));
                    body.fill(&mut client, exchange).await?;
                    continue;
                }
            };
            if last {
                self.pipeline.exchange.trailers = body.take_trailers().unwrap_or_default();
            }
            let (piece, last) = match &mut filters {
                // It may end it earlier, which costs the peer's connection.
                Some(filters) => self.pipeline.filter_piece(filters, piece, last).await?,
                None => (piece, last),
            };
            self.push(piece, form);
            if last {
                break;
            }
            if self.wire.writer.is_full() {
                self.flush().await?;
            }
        }
        if form == Framing::Chunked {
            let end = self.wire.writer.small();
            http1::write_trailers(end, &self.pipeline.exchange.trailers);
        }
        body.finish();
        self.flush_last().await
    }

    fn push(&mut self, piece: Bytes, form: Framing) {
        let Some(len) = NonZeroUsize::new(piece.len()) else {
            return;
        };
        self.pipeline.exchange.stats.body_bytes_sent += piece.len() as u64;
        if form == Framing::Chunked {
            http1::write_chunk_head(self.wire.writer.small(), len);
            self.wire.writer.push(piece);
            self.wire.writer.small().extend_from_slice(http1::CHUNK_END);
        } else {
            self.wire.writer.push(piece);
        }
    }

    /// Ends the response. It need not be out yet when the client is to speak next.
    async fn flush_last(&mut self) -> Result<(), Error> {
        if self.keep_alive && self.pipeline.body.is_read() && self.wire.writer.post() {
            self.begun = true;
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let limit: Duration = self.pipeline.service.send_timeout;
        let rate = match self.is_event_stream {
            true => Rate::NONE,
            false => self.pipeline.service.send_rate,
        };
        self.begun = true;
        let Wire {
            writer,
            write_alarm,
            ..
        } = &mut self.wire;
        let flushed = writer.flush_at(write_alarm, limit, rate).await;
        flushed
            .map_err(|Elapsed| ClientError::SendTimeout(limit))?
            .map_err(ClientError::Io)?;
        Ok(())
    }

    /// The response is out. What is left of the request's body stands between this request and the next.
    async fn after_response(&mut self) -> AfterResponse {
        if self.keep_alive && self.pipeline.body.is_read() {
            return AfterResponse::KeepAlive;
        }
        if self.keep_alive {
            let discard = self.pipeline.body.discard(&mut self.wire);
            // Bounded as a whole too: a client may send a byte a minute.
            if matches!(tokio::time::timeout(DISCARD_TIME, discard).await, Ok(true)) {
                return AfterResponse::KeepAlive;
            }
        }
        // Closed with bytes unread, the kernel would reset the connection and with it the response.
        let quiet = self.pipeline.body.is_read() && self.wire.reader.is_quiet_now();
        if quiet {
            AfterResponse::Close
        } else {
            AfterResponse::Linger
        }
    }

    async fn log(&mut self) {
        self.pipeline.exchange.stats.body_bytes_received = self.pipeline.body.received_bytes;
        self.pipeline.exchange.stage = Stage::Log;
        let plan = self.pipeline.plan.get();
        let mut variables = VariablesOnly(plan);
        for (idx, variable) in plan.variables.iter().enumerate() {
            let exchange = &self.pipeline.exchange;
            let names = exchange.computable.as_deref().unwrap_or_default();
            let is_there = names
                .get(idx)
                .is_some_and(|name| exchange.vars.get(name.as_bytes()).is_some());
            if variable.is_logged && !is_there && exchange.computed & (1 << idx) == 0 {
                // The client is not asked any more.
                let _ = variables
                    .compute(idx, self.pipeline.exchange, &mut self.pipeline.pinned)
                    .await;
            }
        }
        for step in &plan.log {
            // The exchange is over: a failure is in the log and changes nothing.
            let _ = step
                .run(
                    Hook::Log,
                    self.pipeline.exchange,
                    &mut self.pipeline.pinned,
                    &mut variables,
                    (0, 0, 0),
                )
                .await;
        }
        self.pipeline.pinned.release().await;
        count(self.pipeline.exchange, plan, self.pipeline.service);
        self.pipeline
            .worker
            .add_to_access_log(self.pipeline.exchange);
    }
}

/// Whether it is `text/event-stream` (the HTML standard, section 9.2).
#[inline(never)]
fn is_event_stream(reply: &ReplyHead) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let content_type = reply.headers.get(KnownHeader::ContentType);
    let begins = content_type.and_then(|value| value.get(..EVENT_STREAM.len()));
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(EVENT_STREAM))
}

/// A request is over.
fn count(exchange: &Exchange, plan: &Plan, service: &Service) {
    let (stats, metrics) = (&exchange.stats, &service.metrics);
    plan.requests.count(exchange.reply.status);
    metrics.received_bytes.add(stats.body_bytes_received as f64);
    metrics.sent_bytes.add(stats.body_bytes_sent as f64);
}
