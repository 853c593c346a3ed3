//! Requests to an upstream: the tries, until a peer's response has begun.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use castling_abi::PeerOutcome;
use http::StatusCode;

use super::connection::Connection;
use super::response::{Body, read_head};
use super::upload::{Sink, Upload, UploadError, UploadPause, UploadSource};
use super::{Host, Upstream, upload_filter};
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
    /// A peer has answered. The response's head is in `exchange.reply`.
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
    let policy = upstream.balancer.plugin_policy();
    let mut tried = Tried::default();
    let mut last_error = None;
    let mut ended = started;
    for _ in 0..upstream.tries {
        let result = match policy.map(|it| it.choose(&upstream.balancer, exchange, &tried)) {
            Some(MaybeFuture::Ready(result)) => Some(result),
            Some(MaybeFuture::Pending(result)) => Some(result.await),
            None => None,
        };
        let Some((peer_idx, active)) = upstream.balancer.choose(&tried, result)? else {
            break;
        };
        tried.insert(peer_idx);
        exchange.stats.tries += 1;
        exchange
            .peer
            .set(&upstream.balancer.peers()[peer_idx].label);
        let one = Try {
            upstream,
            peer_idx,
            // A plugin takes its time to choose; else the clock would show the same.
            started: policy.map_or(ended, |_| clock::now()),
        };
        let result = one.run(exchange, source).await;
        ended = clock::now();
        let (outcome, took) = (outcome(&result), ended.duration_since(one.started));
        exchange.stats.upstream_status = result.as_ref().ok().map(|(_, status)| *status);
        upstream.metrics.tried(outcome, took);
        upstream.balancer.note(peer_idx, outcome, ended);
        if let Some(policy) = policy {
            match policy.done(&upstream.balancer, exchange, peer_idx, outcome, took) {
                MaybeFuture::Ready(_) => {}
                MaybeFuture::Pending(result) => drop(result.await),
            }
        }
        match result {
            Ok((connection, status)) => {
                exchange.stats.upstream = Some(match one.started == started {
                    true => took,
                    false => ended.duration_since(started),
                });
                exchange.reply.status = status;
                let body = Body::new(connection, Rc::clone(upstream), active, ended);
                return Ok(Proxied::Response(body));
            }
            Err(TryError::Client(error)) => return Err(error.into()),
            Err(TryError::Filter(error)) => return Err(error),
            // Another peer would fare no better.
            Err(TryError::Shortage(cause)) => {
                return Err(Error::Shortage {
                    upstream: upstream.name.to_string(),
                    cause,
                });
            }
            Err(TryError::Answered(answer)) => return Ok(Proxied::Answer(answer)),
            Err(TryError::Upstream { cause, sent }) => {
                // RFC 9110 §9.2.2: what may be sent again when it is not known whether the first was worked on.
                let again =
                    !sent || (exchange.request.method.is_idempotent() && source.body.can_replay());
                // A time-out says more than a refusal that came after it.
                if !last_error.as_ref().is_some_and(UpstreamError::is_timeout) {
                    last_error = Some(cause);
                }
                if !again {
                    break;
                }
            }
        }
    }
    exchange.stats.upstream = Some(ended.duration_since(started));
    // At least one peer was chosen: an upstream has one, and `tries` is at least 1.
    let cause = last_error.expect("every try that does not return leaves its error");
    Err(Error::Upstream {
        upstream: upstream.name.to_string(),
        cause,
    })
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
    peer_idx: usize,
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
        let repeatable = exchange.request.method.is_idempotent();
        let pool = &self.upstream.pool;
        let mut kept = pool.take(self.peer_idx, !repeatable, self.started);
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
        let peer = &self.upstream.balancer.peers()[self.peer_idx];
        let after = self.upstream.connect_timeout;
        let alarm = self.upstream.alarms.alarm();
        let open = Connection::open(self.peer_idx, peer.address, &self.upstream.alarms);
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
        let peer = &self.upstream.balancer.peers()[self.peer_idx].label;
        let limits = &self.upstream.head_limits;
        let mut interims = 0;
        let head = loop {
            let Exchange { request, reply, .. } = &mut **exchange;
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
        let headers = &mut exchange.reply.headers;
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
        let peer = &self.upstream.balancer.peers()[self.peer_idx].label;
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
            let Exchange { request, reply, .. } = &mut **exchange;
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
        let peer = &self.upstream.balancer.peers()[self.peer_idx].label;
        Sink {
            writer,
            alarm,
            timeout: self.upstream.idle_timeout,
            peer,
        }
    }

    fn write_head(&self, connection: &mut Connection, exchange: &Exchange, body: BodySize) {
        let request = &exchange.request;
        let peer = &self.upstream.balancer.peers()[self.peer_idx];
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
        self.upstream.balancer.peers()[self.peer_idx]
            .label
            .to_string()
    }
}
