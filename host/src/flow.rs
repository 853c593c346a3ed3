//! The life of one request, from its head to its line in the log.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::Hook;
use http::{Method, Version};
use tracing::{debug, warn};

use crate::address::{ClientAddress, ServerAddress};
use crate::alarm::{Alarm, Alarms, Elapsed};
use crate::config::Rate;
use crate::course::{Course, Source, has_no_body};
use crate::error::{ClientError, Error, PluginFault, reply};
use crate::exchange::{Answer, Exchange, ReplyHead, Stage};
use crate::filter;
use crate::http1::{self, BodyLength, Decoded, HeadError, Known, ParsedRequest, ReplyTo};
use crate::listener::Listener;
use crate::phase::Plan;
use crate::socket::{self, Reader, Writer};
use crate::stream::Stream;
use crate::supply::Variables;
use crate::turn;
use crate::upstream::{self, RequestBody, Wire, forwarded};
use crate::wasm::{Going, Way};
use crate::worker::Worker;

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
    pub fn new(stream: Stream, address: ClientAddress, server: ServerAddress) -> Self {
        let (reader, writer) = socket::split(stream);
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
pub enum Fate {
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
    listener: &Listener,
    worker: &Worker,
) -> Fate {
    let ParsedRequest {
        mut head,
        body,
        keep_alive,
        expect_continue,
        dropped_fields,
    } = request;
    if dropped_fields > 0 {
        listener.metrics.dropped_fields.add(dropped_fields as f64);
    }
    head.headers.remove_hop_by_hop();
    forwarded::remove_claims(&mut head.headers);
    listener.marks.note_client_side(&mut head.headers);
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
    exchange.begin(head, *address, server.clone(), &listener.name);
    let calls = Cell::new(0);
    let body = RequestBody::new(
        body,
        listener.max_body_bytes,
        listener.body_timeout,
        listener.body_rate,
        expect_continue,
    );
    let mut flow = Flow {
        wire: Wire {
            reader,
            writer,
            read_alarm,
            write_alarm,
            version: exchange.request.version,
            listener,
            half_closed: false,
        },
        begun: false,
        past_filters: false,
        method: exchange.request.method.clone(),
        version: exchange.request.version,
        keep_alive,
        is_event_stream: false,
        until_close: false,
        course: Course::new(exchange, body, &calls, listener, worker),
    };
    let fate = flow.serve().await;
    flow.log().await;
    fate
}

/// Answers a head that could not be read. There is no request, so no plugin sees it.
pub async fn refuse(
    client: &mut Client,
    tools: &mut Tools,
    error: HeadError,
    listener: &Listener,
    worker: &Worker,
) -> Fate {
    let exchange = &mut tools.exchange;
    exchange.begin_unread(client.address, client.server.clone(), &listener.name);
    let Answer {
        status,
        mut headers,
        body,
    } = reply::plain(error.status());
    listener.marks.set_server(&mut headers);
    debug!(client = %client.address, status = status.as_u16(), "request refused: {error}");
    let to = ReplyTo {
        method: &Method::GET,
        version: Version::HTTP_11,
        keep_alive: false,
        date: &worker.date(),
    };
    http1::write_response_head(
        client.writer.small(),
        status,
        &headers,
        BodyLength::Sized(body.len() as u64),
        &to,
    );
    exchange.reply.status = status;
    exchange.tally.body_bytes_sent = body.len() as u64;
    count(exchange, &listener.router.unrouted, listener);
    client.writer.push(body);
    let sent = client
        .writer
        .flush(&tools.write_alarm, listener.send_timeout)
        .await;
    worker.add_to_access_log(exchange);
    match sent {
        Ok(Ok(())) => Fate::Linger,
        Ok(Err(_)) | Err(Elapsed) => Fate::Close,
    }
}

/// What is left of a request's body after its response is read for this long at most.
const DISCARD_TIME: Duration = Duration::from_secs(5);

struct Flow<'a> {
    wire: Wire<'a>,
    course: Course<'a>,
    /// Bytes of the response may be on their way.
    begun: bool,
    /// The response is an error's that no filter is to see.
    past_filters: bool,
    /// As the client sent them: what it is answered must fit its request, not what a plugin made of it.
    method: Method,
    version: Version,
    keep_alive: bool,
    /// The client need not take the response at the rate that there is: events come when there are some.
    is_event_stream: bool,
    /// The response's body ends with the connection, which is reset unless the body is whole.
    until_close: bool,
}

impl Flow<'_> {
    async fn serve(&mut self) -> Fate {
        let answered = match self.check() {
            Ok(()) => self.course.answer(Some(&mut self.wire)).await,
            Err(error) => Err(error),
        };
        let mut source = match answered {
            Ok(source) => {
                // As in `filter_head`, without its future.
                let way = match self.course.begin_filters() {
                    Going::Now(way) => way,
                    Going::Later(way) => way.await,
                };
                match self.course.is_filtered(&way) {
                    true => Ok(source),
                    false => self.filter_rest(source, way).await,
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
                    return self.fate().await;
                }
                Err(error) => error,
            };
            self.note(&error);
            if self.begun {
                // The head is out, and the only way to tell is to end too early.
                self.course.exchange.tally.cut_by = Some(error.culprit());
                return Fate::Close;
            }
            if error.client_is_gone() {
                self.course.exchange.reply.status = reply::status(&error);
                return Fate::Close;
            }
            self.wire.writer.clear();
            if std::mem::take(&mut self.until_close) {
                // No head that ends with the close is out: the reply in its place has a length and ends in order.
                self.wire.writer.set_reset_on_close(false);
            }
            self.course.exchange.tally.body_bytes_sent = 0;
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
            &self.course.listener.marks,
            &self.course.exchange.request.headers,
        );
        if marks.is_loop(headers) {
            return Err(Error::Loop);
        }
        Ok(self.course.body.check_announced()?)
    }

    async fn filter_head(&mut self, source: Source) -> Result<Source, Error> {
        let way = self.course.begin_filters().end().await;
        self.filter_rest(source, way).await
    }

    async fn filter_rest(&mut self, source: Source, way: Way) -> Result<Source, Error> {
        let wire = Some(&mut self.wire);
        self.course.filter_head(wire, source, way).await
    }

    /// The reply to an error, through the filters as any other; past them if it is they that fail, or if the plugin
    /// that has failed is not available anyway.
    async fn explain(&mut self, error: Error) -> Result<Source, Error> {
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
        let answered = self.course.take(reply::plain(status));
        if !exhausted && self.course.exchange.stage < Stage::Reply {
            match self.filter_head(answered).await {
                Err(error) if !matches!(error, Error::Client(_)) => self.note(&error),
                filtered => return filtered,
            }
        }
        // The first error is the one to tell.
        self.past_filters = true;
        Ok(self.course.take(reply::plain(status)))
    }

    fn note(&self, error: &Error) {
        let path = self.course.exchange.request.target.path();
        match error {
            Error::Upstream { .. } | Error::Plugin { .. } if self.begun => {
                let status = self.course.exchange.reply.status.as_u16();
                let sent = self.course.exchange.tally.body_bytes_sent;
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
                    route = self.course.exchange.route.as_deref(),
                    "{error}"
                )
            }
            Error::Client(_) | Error::NoRoute | Error::BadPath(_) | Error::Trace => {
                debug!(path, "{error}");
            }
        }
    }

    async fn send(&mut self, source: Source) -> Result<(), Error> {
        let bodiless =
            self.method == Method::HEAD || has_no_body(self.course.exchange.reply.status);
        let steps = &self.course.plan.get().response_body;
        let is_filtered = !steps.is_empty()
            && !self.past_filters
            && filter::is_active(steps, self.course.exchange);
        if is_filtered {
            filter::settle_head(self.course.exchange);
        }
        let filtered = is_filtered && !bodiless;
        let mut filters = filtered.then(|| filter::Body::new(steps, self.course.exchange));
        match source {
            Source::Here(body) => {
                let body = match &mut filters {
                    Some(filters) => self.course.filter_whole(body, filters).await?,
                    None => body,
                };
                let length = match bodiless && is_filtered {
                    true => BodyLength::Empty,
                    false => BodyLength::Sized(body.len() as u64),
                };
                let form = self.write_head(length);
                if form != BodyLength::Empty {
                    self.push(body, form);
                }
                self.flush_last().await
            }
            Source::Upstream(body) => {
                let form = self.write_head(match filtered {
                    true => BodyLength::Chunked,
                    false => body.length(),
                });
                self.relay(body, form, filters).await
            }
        }
    }

    /// Returns in which form the body must follow.
    fn write_head(&mut self, length: BodyLength) -> BodyLength {
        // Only a body that the client was told to send is worth waiting for.
        let may_keep = self.keep_alive && !self.course.worker.is_draining();
        let keep_alive = may_keep && (self.course.body.is_read() || !self.course.body.is_unasked());
        let date = self.course.worker.date();
        let to = ReplyTo {
            method: &self.method,
            version: self.version,
            keep_alive,
            date: &date,
        };
        let reply = &self.course.exchange.reply;
        // Rates alone need it, and mostly there is none.
        self.is_event_stream = self.course.listener.send_rate.min != 0
            && !matches!(length, BodyLength::Sized(_))
            && is_event_stream(reply);
        let framing = http1::write_response_head(
            self.wire.writer.small(),
            reply.status,
            &reply.headers,
            length,
            &to,
        );
        self.keep_alive = framing.keep_alive;
        self.until_close = framing.body == BodyLength::UntilClose;
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
        form: BodyLength,
        mut filters: Option<filter::Body<'_>>,
    ) -> Result<(), Error> {
        if form == BodyLength::Empty {
            if body.is_end() || body.length() == BodyLength::Empty {
                body.finish();
            }
            return self.flush_last().await;
        }
        let mut pieces = turn::Pieces::default();
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
                    let (mut client, exchange) = self.course.client_side(Some(&mut self.wire));
                    body.fill(&mut client, exchange).await?;
                    continue;
                }
            };
            if last {
                self.course.exchange.trailers = body.take_trailers().unwrap_or_default();
            }
            let (piece, last) = match &mut filters {
                // It may end it earlier, which costs the peer's connection.
                Some(filters) => self.course.filter_piece(filters, piece, last).await?,
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
        if form == BodyLength::Chunked {
            let end = self.wire.writer.small();
            http1::write_trailers(end, &self.course.exchange.trailers);
        }
        body.finish();
        self.flush_last().await
    }

    fn push(&mut self, piece: Bytes, form: BodyLength) {
        let Some(len) = NonZeroUsize::new(piece.len()) else {
            return;
        };
        self.course.exchange.tally.body_bytes_sent += piece.len() as u64;
        if form == BodyLength::Chunked {
            http1::write_chunk_head(self.wire.writer.small(), len);
            self.wire.writer.push(piece);
            self.wire.writer.small().extend_from_slice(http1::CHUNK_END);
        } else {
            self.wire.writer.push(piece);
        }
    }

    /// Ends the response. It need not be out yet when the client is to speak next.
    async fn flush_last(&mut self) -> Result<(), Error> {
        if self.keep_alive && self.course.body.is_read() && self.wire.writer.post() {
            self.begun = true;
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let limit: Duration = self.course.listener.send_timeout;
        let rate = match self.is_event_stream {
            true => Rate::NONE,
            false => self.course.listener.send_rate,
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
    async fn fate(&mut self) -> Fate {
        if self.keep_alive && self.course.body.is_read() {
            return Fate::KeepAlive;
        }
        if self.keep_alive {
            let discard = self.course.body.discard(&mut self.wire);
            // Bounded as a whole too: a client may send a byte a minute.
            if matches!(tokio::time::timeout(DISCARD_TIME, discard).await, Ok(true)) {
                return Fate::KeepAlive;
            }
        }
        // Closed with bytes unread, the kernel would reset the connection and with it the response.
        let quiet = self.course.body.is_read() && self.wire.reader.is_quiet_now();
        if quiet { Fate::Close } else { Fate::Linger }
    }

    async fn log(&mut self) {
        self.course.exchange.tally.body_bytes_received = self.course.body.received_bytes;
        self.course.exchange.stage = Stage::Log;
        let plan = self.course.plan.get();
        let mut variables = Variables(plan);
        for (idx, variable) in plan.variables.iter().enumerate() {
            let exchange = &self.course.exchange;
            let names = exchange.computable.as_deref().unwrap_or_default();
            let is_there = names
                .get(idx)
                .is_some_and(|name| exchange.vars.get(name.as_bytes()).is_some());
            if variable.is_logged && !is_there && exchange.computed & (1 << idx) == 0 {
                // The client is not asked any more.
                let _ = variables
                    .compute(idx, self.course.exchange, &mut self.course.pinned)
                    .await;
            }
        }
        for step in &plan.log {
            // The exchange is over: a failure is in the log and changes nothing.
            let _ = step
                .run(
                    Hook::Log,
                    self.course.exchange,
                    &mut self.course.pinned,
                    &mut variables,
                    (0, 0, 0),
                )
                .await;
        }
        self.course.pinned.release().await;
        count(self.course.exchange, plan, self.course.listener);
        self.course.worker.add_to_access_log(self.course.exchange);
    }
}

/// Whether it is `text/event-stream` (the HTML standard, section 9.2).
#[inline(never)]
fn is_event_stream(reply: &ReplyHead) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let content_type = reply.headers.get(Known::ContentType);
    let begins = content_type.and_then(|value| value.get(..EVENT_STREAM.len()));
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(EVENT_STREAM))
}

/// A request is over.
fn count(exchange: &Exchange, plan: &Plan, listener: &Listener) {
    let (tally, metrics) = (&exchange.tally, &listener.metrics);
    plan.requests.count(exchange.reply.status);
    metrics.received_bytes.add(tally.body_bytes_received as f64);
    metrics.sent_bytes.add(tally.body_bytes_sent as f64);
}
