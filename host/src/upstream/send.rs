//! Requests to an upstream: the tries, until a peer's response has begun.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use castling_abi::PeerOutcome;
use http::StatusCode;

use super::connection::Connection;
use super::response::{Body, read_head};
use super::upload::{Sink, Upload, UploadError, UploadPause, UploadSource};
use super::{Active, Host, Upstream, upload_filter};
use crate::balancer::Tried;
use crate::error::{ClientError, Error, UpstreamError, is_shortage};
use crate::exchange::{Answer, Exchange};
use crate::http1::{self, ParsedResponse};
use crate::message::{BodySize, KnownHeader};
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::runtime::clock;
use crate::transport::halves::Writer;
use crate::wasm::MaybeFuture;

/// Outcome of a request that was to go to an upstream.
pub enum Proxied {
    /// A peer has answered. The response's head is in the exchange.
    Response(Body),
    /// A plugin on the way of the request's body has answered in its place.
    Answer(Answer),
}

/// Sends the request to one peer after the other until one answers. `now`: when it was about to be sent.
pub async fn send(
    upstream: &Rc<Upstream>,
    exchange: &mut Box<Exchange>,
    source: &mut UploadSource<'_, '_>,
    now: Instant,
) -> Result<Proxied, Error> {
    let mut started = now;
    if source.filter.is_some() {
        if let Some(answer) = upload_filter::begin(source, exchange).await? {
            return Ok(Proxied::Answer(answer));
        }
        started = Instant::now();
    }
    let mut tries = Tries::new(upstream, started);
    while let Some(one) = tries.next(exchange).await? {
        let result = one.run(exchange, source).await;
        tries.settle(&one, &result, exchange).await;
        match result {
            Ok((connection, status)) => {
                exchange.stats_mut().upstream = Some((tries.started, tries.ended));
                exchange.reply_mut().status = status;
                let body = Body::new(connection, Rc::clone(upstream), one.peer, tries.ended);
                return Ok(Proxied::Response(body));
            }
            Err(error) => {
                if let Some(answer) = tries.failed(error, exchange, source)? {
                    return Ok(Proxied::Answer(answer));
                }
            }
        }
    }
    exchange.stats_mut().upstream = Some((tries.started, tries.ended));
    Err(tries.into_error())
}

/// The tries of one request: which peer is next, what its outcome means, and what is left when none has answered.
struct Tries<'a> {
    upstream: &'a Rc<Upstream>,
    tried: Tried,
    /// Tries that may still be made.
    left: u32,
    started: Instant,
    /// End of the last try.
    ended: Instant,
    last_error: Option<UpstreamError>,
}

impl<'a> Tries<'a> {
    fn new(upstream: &'a Rc<Upstream>, started: Instant) -> Self {
        Self {
            upstream,
            tried: Tried::default(),
            left: upstream.tries,
            started,
            ended: started,
            last_error: None,
        }
    }

    /// The next try, counted as active for its peer; `None` when none is left.
    async fn next(&mut self, exchange: &mut Box<Exchange>) -> Result<Option<Try<'a>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (upstream, tried) = (self.upstream, &mut self.tried);
        let balancer = &upstream.balancer;
        let policy = balancer.plugin_policy();
        let result = match policy.map(|it| it.choose(balancer, exchange, tried)) {
            Some(MaybeFuture::Ready(result)) => Some(result),
            Some(MaybeFuture::Pending(result)) => Some(result.await),
            None => None,
        };
        let Some(peer) = balancer.choose(tried, result)? else {
            return Ok(None);
        };
        tried.insert(&peer);
        exchange.stats_mut().tries += 1;
        exchange.context_mut().peer.set(&peer.label);
        Ok(Some(Try {
            upstream,
            peer,
            // A plugin takes its time to choose; else the clock would show the same.
            started: policy.map_or(self.ended, |_| clock::now()),
        }))
    }

    /// Notes how a try has ended: for the peer, the metrics, and the policy if it wants to know.
    async fn settle<T>(
        &mut self,
        one: &Try<'_>,
        result: &Result<(T, StatusCode), TryError>,
        exchange: &mut Box<Exchange>,
    ) {
        self.ended = clock::now();
        let (outcome, took) = (outcome(result), self.ended.duration_since(one.started));
        exchange.stats_mut().upstream_status = result.as_ref().ok().map(|(_, status)| *status);
        self.upstream.metrics.tried(outcome, took);
        one.peer.note(outcome, self.ended);
        let balancer = &self.upstream.balancer;
        if let Some(policy) = balancer.plugin_policy() {
            match policy.done(balancer, exchange, &one.peer, outcome, took) {
                MaybeFuture::Ready(_) => {}
                MaybeFuture::Pending(result) => drop(result.await),
            }
        }
    }

    /// Decides what comes after a try that has failed: an answer of a plugin, the end, or with `None` the next try.
    fn failed(
        &mut self,
        error: TryError,
        exchange: &Exchange,
        source: &UploadSource<'_, '_>,
    ) -> Result<Option<Answer>, Error> {
        match error {
            TryError::Client(error) => Err(error.into()),
            TryError::Filter(error) => Err(error),
            // Another peer would fare no better.
            TryError::Shortage(cause) => Err(Error::Shortage {
                upstream: self.upstream.name.to_string(),
                cause,
            }),
            TryError::Answered(answer) => Ok(Some(answer)),
            TryError::Upstream { cause, sent } => {
                // RFC 9110 §9.2.2: what may be sent again when it is not known whether the first was worked on.
                let is_repeatable =
                    exchange.request().method.is_idempotent() && source.body.can_replay();
                if sent && !is_repeatable {
                    self.left = 0;
                }
                // A time-out says more than a refusal that came after it.
                if !self
                    .last_error
                    .as_ref()
                    .is_some_and(UpstreamError::is_timeout)
                {
                    self.last_error = Some(cause);
                }
                Ok(None)
            }
        }
    }

    /// The error of tries of which none has answered.
    fn into_error(self) -> Error {
        // At least one peer was chosen: an upstream has one, and `tries` is at least 1.
        let cause = self
            .last_error
            .expect("every try that does not return leaves its error");
        Error::Upstream {
            upstream: self.upstream.name.to_string(),
            cause,
        }
    }
}

fn outcome<T>(result: &Result<T, TryError>) -> PeerOutcome {
    match result {
        Ok(_) => PeerOutcome::Responded,
        // Nothing that the peer could help.
        Err(
            TryError::Client(_)
            | TryError::Filter(_)
            | TryError::Answered(_)
            | TryError::Shortage(_),
        ) => PeerOutcome::Cancelled,
        Err(TryError::Upstream { cause, .. }) if cause.is_timeout() => PeerOutcome::TimedOut,
        Err(TryError::Upstream { cause, .. }) if cause.never_connected() => {
            PeerOutcome::ConnectFailed
        }
        Err(TryError::Upstream { .. }) => PeerOutcome::Broken,
    }
}

/// Interim responses of a peer that one request passes on.
const MAX_INTERIMS: usize = 32;

/// A try of one peer.
struct Try<'a> {
    upstream: &'a Rc<Upstream>,
    peer: Active,
    started: Instant,
}

enum TryError {
    Client(ClientError),
    /// A plugin on the body's way has failed.
    Filter(Error),
    /// A plugin on the body's way has answered.
    Answered(Answer),
    /// Shortage of descriptors or memory, for a connection.
    Shortage(io::Error),
    /// `sent`: the peer may have seen the request.
    Upstream {
        cause: UpstreamError,
        sent: bool,
    },
}

impl From<UploadError> for TryError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Client(error) => Self::Client(error),
            UploadError::Upstream(cause) => Self::Upstream { cause, sent: true },
        }
    }
}

impl From<UpstreamError> for TryError {
    fn from(cause: UpstreamError) -> Self {
        let sent = !cause.never_connected();
        Self::Upstream { cause, sent }
    }
}

impl Try<'_> {
    /// Returns when a response's head has come.
    ///
    /// A kept connection that turns out to be dead is no failure of the peer: the request goes once more, over a new
    /// one, if it may be sent again at all.
    async fn run(
        &self,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<(Box<Connection>, StatusCode), TryError> {
        let repeatable = exchange.request().method.is_idempotent();
        let mut kept = self.peer.pool.take(!repeatable, self.started);
        loop {
            let mut connection = match kept.take() {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match self
                .send_and_receive(&mut connection, exchange, source)
                .await
            {
                Ok(head) => return Ok((connection, head)),
                Err(TryError::Upstream {
                    cause: UpstreamError::Closed { .. } | UpstreamError::Io { .. },
                    ..
                }) if connection.reused && repeatable && source.body.can_replay() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, TryError> {
        let after = self.upstream.connect_timeout;
        let alarm = self.upstream.alarms.alarm();
        let open = Connection::open(self.peer.address, &self.upstream.alarms);
        let opened = alarm.limit(after, open).await;
        let opened = opened.map_err(|Elapsed| UpstreamError::ConnectTimeout {
            peer: self.label(),
            after,
        })?;
        opened.map_err(|cause| match is_shortage(&cause) {
            true => TryError::Shortage(cause),
            false => TryError::from(UpstreamError::Connect {
                peer: self.label(),
                cause,
            }),
        })
    }

    async fn send_and_receive(
        &self,
        connection: &mut Connection,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<StatusCode, TryError> {
        let idle_timeout = self.upstream.idle_timeout;
        self.write_head(connection, exchange, source.body.size);
        connection.upload = Upload::new(source.body);
        if connection.upload.is_done() {
            let Connection {
                writer,
                write_alarm,
                ..
            } = connection;
            if !writer.post() {
                self.sink(writer, write_alarm).flush().await?;
            }
        } else {
            let invited = source.downstream.invite(idle_timeout).await;
            invited.map_err(TryError::Client)?;
            if let Some(response) = self.upload(connection, exchange, source).await? {
                return Ok(connection.begin_response(response));
            }
        }
        let Connection {
            reader,
            progress,
            read_alarm,
            ..
        } = &mut *connection;
        let after = self.upstream.response_timeout;
        let peer = &self.peer.label;
        let limits = &self.upstream.head_limits;
        let mut interims = 0;
        let head = loop {
            let (request, reply) = exchange.heads_mut();
            let (method, headers) = (&request.method, &mut reply.headers);
            let head = read_head(reader, progress, limits, method, headers, peer);
            let head = read_alarm.limit(after, head);
            let Some(head) = source.downstream.while_there(head).await else {
                return Err(TryError::Client(ClientError::Gone));
            };
            let head = head.map_err(|Elapsed| UpstreamError::ResponseTimeout {
                peer: self.label(),
                after,
            })?;
            let head = head?;
            if !head.status.is_informational() {
                break head;
            }
            Box::pin(self.pass_interim(&mut interims, head.status, exchange, source)).await?;
        };
        Ok(connection.begin_response(head))
    }

    /// Passes an interim response on to the source, at most [`MAX_INTERIMS`].
    #[cold]
    #[inline(never)]
    async fn pass_interim(
        &self,
        passed: &mut usize,
        status: StatusCode,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<(), TryError> {
        *passed += 1;
        if *passed > MAX_INTERIMS {
            return Err(TryError::from(UpstreamError::TooManyInterims {
                peer: self.label(),
                most: MAX_INTERIMS,
            }));
        }
        let headers = &mut exchange.reply_mut().headers;
        let timeout = self.upstream.idle_timeout;
        let sent = source.downstream.send_interim(status, headers, timeout);
        sent.await.map_err(TryError::Client)
    }

    /// Sends the body while it looks for the response, which may come before the body's end.
    async fn upload(
        &self,
        connection: &mut Connection,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<Option<ParsedResponse>, TryError> {
        let peer = &self.peer.label;
        let Connection {
            reader,
            writer,
            progress,
            write_alarm,
            upload,
            ..
        } = connection;
        let mut interims = 0;
        loop {
            let (request, reply) = exchange.heads_mut();
            let (method, headers) = (&request.method, &mut reply.headers);
            let limits = &self.upstream.head_limits;
            let sending = upload.run(source, self.sink(writer, write_alarm));
            let paused = tokio::select! {
                biased;
                sent = sending => match sent {
                    Ok(paused) => paused,
                    // A peer that has answered without waiting for the body may have closed its side; its answer counts.
                    Err(UploadError::Upstream(UpstreamError::Io { .. })) => return Ok(None),
                    Err(error) => return Err(error.into()),
                },
                head = read_head(reader, progress, limits, method, headers, peer) => {
                    let head = head?;
                    if !head.status.is_informational() {
                        return Ok(Some(head));
                    }
                    let passed = self.pass_interim(&mut interims, head.status, exchange, source);
                    Box::pin(passed).await?;
                    continue;
                }
            };
            match paused {
                UploadPause::Done => return Ok(None),
                UploadPause::Unfiltered => match upload_filter::pass(source, exchange).await {
                    Ok(None) => {}
                    Ok(Some(answer)) => return Err(TryError::Answered(answer)),
                    Err(error) => return Err(TryError::Filter(error)),
                },
            }
        }
    }

    fn sink<'c>(&'c self, writer: &'c mut Writer, alarm: &'c Alarm) -> Sink<'c> {
        let peer = &self.peer.label;
        Sink {
            writer,
            alarm,
            timeout: self.upstream.idle_timeout,
            peer,
        }
    }

    fn write_head(&self, connection: &mut Connection, exchange: &Exchange, body: BodySize) {
        let request = exchange.request();
        let peer = &*self.peer;
        // A plugin's call may leave it out.
        let clients = request.headers.get(KnownHeader::Host);
        let host = match &self.upstream.host {
            Host::Client => clients.unwrap_or(peer.host.as_bytes()),
            Host::Peer => peer.host.as_bytes(),
            Host::Fixed(host) => host.as_bytes(),
        };
        http1::write_request_head(
            connection.writer.small(),
            &request.method,
            &request.target,
            host,
            &request.headers,
            body,
        );
    }

    fn label(&self) -> String {
        self.peer.label.to_string()
    }
}
