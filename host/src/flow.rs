//! The life of one request, from its head to its line in the log.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::Hook;
use http::{Method, StatusCode, Version, header};
use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::alarm::{Alarm, Alarms, Elapsed};
use crate::error::{ClientError, Error, reply};
use crate::exchange::{Answer, Exchange, Stage};
use crate::filter;
use crate::http1::{self, BodyLength, Decoded, HeadError, ParsedRequest, ReplyTo};
use crate::listener::Listener;
use crate::phase::{self, Plan, Verdict};
use crate::socket::{self, Reader, Writer};
use crate::upstream::{self, ClientSide, RequestBody, forwarded};
use crate::wasm::{PinnedInstances, Step};
use crate::worker::Worker;

/// A client's connection, as its requests use it.
pub struct Client {
    pub reader: Reader,
    pub writer: Writer,
    pub read_alarm: Alarm,
    pub write_alarm: Alarm,
    /// Used for one request after the other.
    pub exchange: Box<Exchange>,
    pub address: SocketAddr,
}

impl Client {
    pub fn new(stream: TcpStream, address: SocketAddr, alarms: &Alarms) -> Self {
        let (reader, writer) = socket::split(stream);
        Self {
            reader,
            writer,
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
            exchange: Exchange::idle(),
            address,
        }
    }
}

/// What becomes of the client's client.
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
    request: ParsedRequest,
    listener: &Listener,
    worker: &Worker,
) -> Fate {
    let ParsedRequest {
        mut head,
        body,
        keep_alive,
        expect_continue,
    } = request;
    head.headers.remove_hop_by_hop();
    let Client {
        reader,
        writer,
        read_alarm,
        write_alarm,
        exchange,
        address,
    } = client;
    exchange.begin(head, *address, &listener.name);
    let mut body = RequestBody::new(
        body,
        listener.max_body_bytes,
        listener.body_timeout,
        expect_continue,
    );
    let mut flow = Flow {
        client: ClientSide {
            reader,
            writer,
            body: &mut body,
            read_alarm,
            write_alarm,
        },
        method: exchange.request.method.clone(),
        version: exchange.request.version,
        keep_alive,
        exchange,
        plan: Rc::clone(&listener.router.unrouted),
        pinned: PinnedInstances::default(),
        listener,
        worker,
    };
    let fate = flow.serve().await;
    flow.log().await;
    fate
}

/// Answers a head that could not be read. There is no request, so no plugin sees it.
pub async fn refuse(
    client: &mut Client,
    error: HeadError,
    listener: &Listener,
    worker: &Worker,
) -> Fate {
    let exchange = &mut client.exchange;
    exchange.begin_unread(client.address, &listener.name);
    let Answer {
        status,
        headers,
        body,
    } = reply::plain(error.status());
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
    client.writer.push(body);
    let sent = client
        .write_alarm
        .limit(listener.send_timeout, client.writer.flush())
        .await;
    worker.add_to_access_log(exchange);
    match sent {
        Ok(Ok(())) => Fate::Linger,
        Ok(Err(_)) | Err(Elapsed) => Fate::Close,
    }
}

struct Flow<'a> {
    client: ClientSide<'a>,
    /// As the client sent them: what it is answered must fit its request, not what a plugin made of it.
    method: Method,
    version: Version,
    keep_alive: bool,
    exchange: &'a mut Box<Exchange>,
    plan: Rc<Plan>,
    pinned: PinnedInstances,
    listener: &'a Listener,
    worker: &'a Worker,
}

/// Where the response's body comes from.
enum Source {
    Here(Bytes),
    Upstream(Box<upstream::Body>),
}

impl Flow<'_> {
    async fn serve(&mut self) -> Fate {
        let result = match self.answer().await {
            Ok(source) => self.filter_head(source).await,
            Err(error) => Err(error),
        };
        let source = match result {
            Ok(source) => source,
            Err(error) => match self.explain(&error).await {
                Some(source) => source,
                None => return Fate::Close,
            },
        };
        match self.send(source).await {
            Ok(()) => self.fate().await,
            Err(error) => {
                // The head is out, so the only way to tell the client is to end the connection too early.
                self.note(&error);
                Fate::Close
            }
        }
    }

    /// Phases, then the upstream if none of them answers.
    async fn answer(&mut self) -> Result<Source, Error> {
        self.client.body.check_announced()?;
        match phase::run(
            &self.listener.router,
            &mut self.plan,
            self.exchange,
            &mut self.pinned,
        )
        .await?
        {
            Verdict::Answer(answer) => Ok(self.take(answer)),
            Verdict::Proxy(idx) => {
                let upstream = self.worker.upstream(idx);
                let client = self.exchange.client.ip();
                self.exchange.stage = Stage::Balance;
                self.exchange.upstream = Some(upstream.name.clone());
                forwarded::add_to_request(&mut self.exchange.request.headers, client);
                let body = upstream::exchange(upstream, self.exchange, &mut self.client).await?;
                self.exchange.reply.headers.remove_hop_by_hop();
                forwarded::add_to_response(&mut self.exchange.reply.headers);
                Ok(Source::Upstream(Box::new(body)))
            }
        }
    }

    fn take(
        &mut self,
        Answer {
            status,
            headers,
            body,
        }: Answer,
    ) -> Source {
        self.exchange.reply.status = status;
        self.exchange.reply.headers = headers;
        Source::Here(body)
    }

    async fn filter_head(&mut self, source: Source) -> Result<Source, Error> {
        match filter::head(&self.plan.response_headers, self.exchange, &mut self.pinned).await? {
            Some(replaced) => Ok(Source::Here(replaced)),
            None => Ok(source),
        }
    }

    /// The reply to an error, through the filters as any other; without them if it is they that fail. `None` when
    /// nobody is left to read it.
    async fn explain(&mut self, error: &Error) -> Option<Source> {
        self.note(error);
        let status = reply::status(error);
        if error.client_is_gone() {
            self.exchange.reply.status = status;
            return None;
        }
        if matches!(error, Error::Client(_)) {
            self.keep_alive = false;
        }
        let answered = self.take(reply::plain(status));
        if self.exchange.stage >= Stage::Reply {
            return Some(answered);
        }
        match self.filter_head(answered).await {
            Ok(source) => Some(source),
            Err(error) => Some(self.take(reply::plain(reply::status(&error)))),
        }
    }

    fn note(&self, error: &Error) {
        let path = &*self.exchange.request.path;
        match error {
            Error::Upstream { .. } => warn!(path, "{error}"),
            // The plugin's own line has the cause.
            Error::Plugin { .. } => debug!(path, "{error}"),
            Error::TooManyReroutes(_) => {
                warn!(path, route = self.exchange.route.as_deref(), "{error}")
            }
            Error::Client(_) | Error::NoRoute | Error::BadPath => debug!(path, "{error}"),
        }
    }

    async fn send(&mut self, source: Source) -> Result<(), Error> {
        let bodiless = self.method == Method::HEAD || has_no_body(self.exchange.reply.status);
        let plan = Rc::clone(&self.plan);
        let filters = if bodiless {
            &[][..]
        } else {
            &plan.response_body
        };
        if bodiless && !self.plan.response_body.is_empty() {
            // The length that the filtered body would have is not known.
            self.exchange.reply.headers.remove(&header::CONTENT_LENGTH);
        }
        match source {
            Source::Here(body) => {
                let body = match filters {
                    [] => body,
                    filters => {
                        filter::chunk(filters, self.exchange, &mut self.pinned, body, true).await?
                    }
                };
                let form = self.write_head(BodyLength::Sized(body.len() as u64));
                if form != BodyLength::Empty {
                    self.push(body, form);
                }
                self.flush().await
            }
            Source::Upstream(body) if filters.is_empty() => {
                let form = self.write_head(body.length);
                self.relay(body, form, filters).await
            }
            Source::Upstream(body) => {
                let form = self.write_head(BodyLength::Chunked);
                self.relay(body, form, filters).await
            }
        }
    }

    /// Returns in which form the body must follow.
    fn write_head(&mut self, length: BodyLength) -> BodyLength {
        // Only a body that the client was told to send is worth waiting for.
        let may_keep = self.keep_alive && !self.worker.is_draining();
        let keep_alive = may_keep && (self.client.body.is_read() || !self.client.body.is_unasked());
        let date = self.worker.date();
        let to = ReplyTo {
            method: &self.method,
            version: self.version,
            keep_alive,
            date: &date,
        };
        let reply = &self.exchange.reply;
        let framing = http1::write_response_head(
            self.client.writer.small(),
            reply.status,
            &reply.headers,
            length,
            &to,
        );
        self.keep_alive = framing.keep_alive;
        framing.body
    }

    /// Passes the upstream's body on, piece by piece: what is not taken by the client is not read from the peer.
    async fn relay(
        &mut self,
        mut body: Box<upstream::Body>,
        form: BodyLength,
        filters: &[Step],
    ) -> Result<(), Error> {
        if form == BodyLength::Empty {
            if body.is_end() || body.length == BodyLength::Empty {
                body.finish();
            }
            return self.flush().await;
        }
        let mut filtered_last = filters.is_empty();
        loop {
            let (piece, last) = match body.decode()? {
                Decoded::Data(piece) => (piece, body.is_end()),
                Decoded::End => (Bytes::new(), true),
                Decoded::NeedMore => {
                    self.flush().await?;
                    body.fill(&mut self.client).await?;
                    continue;
                }
            };
            let piece = if filters.is_empty() || (last && filtered_last) {
                piece
            } else {
                filtered_last |= last;
                filter::chunk(filters, self.exchange, &mut self.pinned, piece, last).await?
            };
            self.push(piece, form);
            if last {
                break;
            }
            if self.client.writer.is_full() {
                self.flush().await?;
            }
        }
        if form == BodyLength::Chunked {
            let end = self.client.writer.small();
            match body.take_trailers() {
                Some(trailers) => http1::write_trailers(end, &trailers),
                None => end.extend_from_slice(http1::LAST_CHUNK),
            }
        }
        body.finish();
        self.flush().await
    }

    fn push(&mut self, piece: Bytes, form: BodyLength) {
        let Some(len) = NonZeroUsize::new(piece.len()) else {
            return;
        };
        self.exchange.tally.body_bytes_sent += piece.len() as u64;
        if form == BodyLength::Chunked {
            http1::write_chunk_head(self.client.writer.small(), len);
            self.client.writer.push(piece);
            self.client
                .writer
                .small()
                .extend_from_slice(http1::CHUNK_END);
        } else {
            self.client.writer.push(piece);
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let limit: Duration = self.listener.send_timeout;
        let flushed = self
            .client
            .write_alarm
            .limit(limit, self.client.writer.flush())
            .await;
        flushed
            .map_err(|Elapsed| ClientError::SendTimeout(limit))?
            .map_err(ClientError::Io)?;
        Ok(())
    }

    /// The response is out. What is left of the request's body stands between this request and the next.
    async fn fate(&mut self) -> Fate {
        let body = &mut self.client.body;
        if self.keep_alive
            && (body.is_read()
                || body
                    .discard(self.client.reader, self.client.read_alarm)
                    .await)
        {
            return Fate::KeepAlive;
        }
        if body.is_read() {
            Fate::Close
        } else {
            Fate::Linger
        }
    }

    async fn log(&mut self) {
        self.exchange.tally.body_bytes_received = self.client.body.received_bytes;
        self.exchange.stage = Stage::Log;
        let plan = Rc::clone(&self.plan);
        for step in &plan.log {
            // The exchange is over: a failure is in the log and changes nothing.
            let _ = step
                .run(Hook::Log, self.exchange, &mut self.pinned, (0, 0, 0))
                .await;
        }
        self.pinned.release().await;
        self.worker.add_to_access_log(self.exchange);
    }
}

/// RFC 9110 §6.4.1. A status without a body is so whatever a plugin or a peer gives with it.
fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
