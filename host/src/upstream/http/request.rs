//! A request to one peer: it is sent, and the head of the response is waited for.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::connector::Connector;
use super::meter::Meter;
use super::pump::{Pump, Pumped, Upload, UploadError, UploadSink};
use super::{Body, MAX_INTERIMS, PeerStream};
use crate::error::{ClientError, Error, UpstreamError};
use crate::exchange::{Answer, Exchange};
use crate::message::{BodySize, KnownHeader, Upgrade, grpc};
use crate::runtime::clock;
use crate::upstream::protection::Admitted;
use crate::upstream::upload::UploadSource;
use crate::upstream::{Active, Host, ProxySettings, Upstream};

/// A try of one peer.
pub struct Try<'a> {
    upstream: &'a Rc<Upstream>,
    settings: &'a Rc<ProxySettings>,
    pub(in crate::upstream) peer: Active,
    pub(in crate::upstream) started: Instant,
    upload: Upload,
    /// `None`: the time-outs of its single waits bound it.
    pub(in crate::upstream) deadline: Option<Box<Deadline>>,
}

/// End of the time that a try has until its response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Deadline {
    pub at: Instant,
    /// Time that there was, for the error.
    pub after: Duration,
    /// Whether it is of all tries together.
    pub is_last: bool,
    /// End of the time of all tries, and that time.
    pub of_all: Option<(Instant, Duration)>,
    /// The client was waited for since the time began.
    pub client_was_awaited: bool,
}

/// Bound of a wait for a peer.
#[derive(Clone, Copy)]
enum Bound {
    /// A time-out of the settings.
    Timeout,
    /// The client's own deadline.
    Client,
    Deadline,
}

pub enum TryError {
    Client(ClientError),
    /// A plugin on the body's way has failed.
    Filter(Error),
    /// A plugin on the body's way has answered.
    Answered(Answer),
    /// A limit of the upstream's connections is reached.
    Overflow(&'static str),
    /// Shortage of descriptors, memory or ports, for a connection.
    Shortage(io::Error),
    /// The body is kept on disk and cannot be read to be sent again.
    BodyLost(io::Error),
    /// `sent`: the peer may have seen the request.
    Upstream {
        cause: UpstreamError,
        sent: bool,
    },
}

/// Interim responses that a request has passed on. In a box: few have any, and each request's future has room for it.
#[derive(Default)]
struct Interims {
    count: usize,
    /// End of the wait for the response that follows them.
    ends: Option<Instant>,
}

impl Interims {
    /// Rest of a wait of this time, which began with the first of them.
    fn left(&mut self, all: Duration) -> Duration {
        let now = clock::now();
        let ends = *self.ends.get_or_insert(now + all);
        ends.saturating_duration_since(now)
    }
}

/// Times that a request goes once more to a peer that has not taken it: its connections may all be about to end.
const MAX_REFUSALS: u32 = 3;

/// Event that came first.
enum Event {
    Pumped(Result<Pumped, UploadError>),
    Head(Result<StatusCode, UpstreamError>),
    /// Time of the try is up, and it was the client that took it.
    ClientIsSlow,
}

impl<'a> Try<'a> {
    pub(in crate::upstream) fn new(
        upstream: &'a Rc<Upstream>,
        settings: &'a Rc<ProxySettings>,
        peer: Active,
        started: Instant,
    ) -> Self {
        Self {
            upstream,
            settings,
            peer,
            started,
            upload: Upload::DONE,
            deadline: None,
        }
    }

    /// Returns when a response's head has come.
    ///
    /// A kept connection that turns out to be dead is no failure of the peer: the request goes once more, over a new
    /// one, if it may be sent again at all.
    pub(in crate::upstream) async fn run(
        &mut self,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<(PeerStream, StatusCode), TryError> {
        if exchange.request().upgrade == Some(Upgrade::Connect) {
            return Box::pin(self.open(exchange)).await;
        }
        let repeatable = self.settings.is_repeatable(exchange.request());
        let mut kept = match self.upstream.shares_connections(&self.peer) {
            false => self.peer.pool.take(!repeatable, self.started),
            true => None,
        };
        let mut refusals = 0;
        loop {
            let mut stream = match kept.take() {
                Some(kept) => kept,
                // In a box: a request on a kept connection is not to keep room for a new one.
                None => Box::pin(self.connector(exchange).connect()).await?,
            };
            let error = match self.send_and_receive(&mut stream, exchange, source).await {
                Ok(status) => return Ok((stream, status)),
                Err(TryError::Upstream { cause, sent }) => match cause {
                    UpstreamError::Closed { .. } | UpstreamError::Io { .. }
                        if stream.is_reused() && repeatable && source.body.can_replay() =>
                    {
                        continue;
                    }
                    UpstreamError::NotProcessed { .. }
                        if refusals < MAX_REFUSALS && source.body.can_replay() =>
                    {
                        refusals += 1;
                        continue;
                    }
                    cause => TryError::Upstream {
                        sent: sent || !source.body.can_replay(),
                        cause,
                    },
                },
                Err(error) => error,
            };
            return Err(error);
        }
    }

    /// The body of the response whose head has come on this stream, at this moment.
    /// `admitted`: counts its request until it ends.
    #[inline(always)] // 25 instructions of a request
    pub(in crate::upstream) fn into_body(
        self,
        stream: PeerStream,
        came_at: Instant,
        admitted: Option<Box<Admitted>>,
    ) -> Body {
        Body {
            stream,
            upload: self.upload,
            upstream: Rc::clone(self.upstream),
            settings: Rc::clone(self.settings),
            came_at: Some(came_at),
            peer: self.peer,
            admitted,
            meter: Meter::new(&self.settings.response, came_at),
            read_ahead: None,
        }
    }

    /// Makes connections for this exchange.
    fn connector<'c>(&'c self, exchange: &'c Exchange) -> Connector<'c> {
        Connector {
            upstream: self.upstream,
            peer: self.peer.peer(),
            exchange: Some(exchange),
            timeout: self.settings.connect_timeout,
            deadline: self.deadline.as_deref(),
        }
    }

    /// Connects to the peer, whose bytes the client gets as they are. Nothing of the request is sent.
    async fn open(
        &self,
        exchange: &mut Box<Exchange>,
    ) -> Result<(PeerStream, StatusCode), TryError> {
        let stream = self.connector(exchange).tunnel().await?;
        exchange.reply_mut().headers.clear();
        Ok((stream, StatusCode::OK))
    }

    /// The shorter of a wait and what is left until the try's deadline.
    #[inline]
    fn within_deadline(&self, wait: Duration, bound: Bound) -> (Duration, Bound) {
        let Some(deadline) = &self.deadline else {
            return (wait, bound);
        };
        match deadline.at.saturating_duration_since(clock::now()) {
            left if left < wait => (left, Bound::Deadline),
            _ => (wait, bound),
        }
    }

    async fn send_and_receive(
        &mut self,
        stream: &mut PeerStream,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<StatusCode, TryError> {
        let idle_timeout = self.settings.idle_timeout;
        self.send_head(stream, exchange, source.body.size);
        self.upload = Upload::new(source.body);
        if self.upload.is_over() {
            if !stream.post() {
                self.flush(stream, idle_timeout).await?;
            }
        } else {
            let invited = source.downstream.invite(idle_timeout).await;
            invited.map_err(TryError::Client)?;
            if let Some(status) = self.send_body(stream, exchange, source).await? {
                return Ok(status);
            }
            if let Some(deadline) = &mut self.deadline {
                deadline.restart();
            }
        }
        let (peer, limits) = (&*self.peer.label, &self.upstream.head_limits);
        let (mut after, bound) = self.time_for(exchange);
        let deadline = self.deadline.as_deref();
        let mut interims = None;
        loop {
            let (request, reply) = exchange.heads_mut();
            let (method, headers) = (&request.method, &mut reply.headers);
            let mut waiting = stream.wait();
            let head = poll_fn(
                |cx| match waiting.poll_head(cx, limits, method, headers, peer) {
                    Poll::Ready(head) => Poll::Ready(head),
                    Poll::Pending => waiting.poll_late(cx, after).map(|()| {
                        Err(match (bound, deadline) {
                            (Bound::Deadline, Some(deadline)) => deadline.error(peer),
                            (Bound::Client, _) => {
                                let peer = peer.to_owned();
                                UpstreamError::DeadlinePassed { peer, after }
                            }
                            (Bound::Timeout | Bound::Deadline, _) => {
                                waiting.retire();
                                let peer = peer.to_owned();
                                let after = self.settings.response_timeout;
                                UpstreamError::ResponseTimeout { peer, after }
                            }
                        })
                    }),
                },
            );
            let Some(status) = source.downstream.while_there(head).await else {
                return Err(TryError::Client(ClientError::Gone));
            };
            let status = status?;
            if is_final(status) {
                return Ok(status);
            }
            drop(waiting);
            Box::pin(self.pass_interim(&mut interims, status, exchange, source)).await?;
            after = interims
                .as_mut()
                .map_or(after, |interims| interims.left(after));
        }
    }

    /// Longest wait for the response, and what bounds it.
    #[inline]
    fn time_for(&self, exchange: &Exchange) -> (Duration, Bound) {
        let (request, own) = (exchange.request(), self.settings.response_timeout);
        let deadline = match self.upstream.takes_calls() {
            true => grpc::timeout(&request.headers),
            false => None,
        };
        let (wait, bound) = match deadline.filter(|deadline| *deadline < own) {
            Some(deadline) => (deadline, Bound::Client),
            None => (own, Bound::Timeout),
        };
        self.within_deadline(wait, bound)
    }

    /// Sends what was appended, where it is too much to be put off.
    async fn flush(&self, stream: &mut PeerStream, limit: Duration) -> Result<(), UpstreamError> {
        let mut waiting = stream.wait();
        poll_fn(|cx| waiting.poll_flush(cx, limit, &self.peer.label)).await
    }

    /// Passes an interim response on to the source, at most [`MAX_INTERIMS`].
    #[cold]
    #[inline(never)]
    async fn pass_interim(
        &self,
        passed: &mut Option<Box<Interims>>,
        status: StatusCode,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<(), TryError> {
        let passed = passed.get_or_insert_default();
        passed.count += 1;
        if passed.count > MAX_INTERIMS {
            return Err(TryError::from(UpstreamError::TooManyInterims {
                peer: self.label(),
                most: MAX_INTERIMS,
            }));
        }
        let headers = &mut exchange.reply_mut().headers;
        let timeout = self.settings.idle_timeout;
        let sent = source.downstream.send_interim(status, headers, timeout);
        sent.await.map_err(TryError::Client)
    }

    /// Sends the body while it looks for the response, which may come before the body's end: its status, if it has.
    async fn send_body(
        &mut self,
        stream: &mut PeerStream,
        exchange: &mut Box<Exchange>,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<Option<StatusCode>, TryError> {
        let mut interims = None;
        loop {
            let event = self.wait_sending(stream, exchange, source).await;
            match event {
                Event::Pumped(Ok(Pumped::Done)) => return Ok(None),
                Event::Pumped(Ok(Pumped::Filter)) => {
                    let mut sink = UploadSink {
                        upload: &mut self.upload,
                        stream,
                        timeout: self.settings.idle_timeout,
                        peer: &self.peer.label,
                    };
                    // In a box: few requests have filters, and all have their future.
                    match Box::pin(source.filter(exchange, &mut sink)).await {
                        Ok(None) => {}
                        Ok(Some(answer)) => return Err(TryError::Answered(answer)),
                        Err(error) => return Err(TryError::Filter(error)),
                    }
                }
                // A peer that has answered without waiting for the body may have closed its side; its answer counts.
                Event::Pumped(Err(UploadError::Upstream(UpstreamError::Io { .. }))) => {
                    self.upload.break_off();
                    return Ok(None);
                }
                Event::Pumped(Err(error)) => return Err(error.into()),
                Event::ClientIsSlow => {
                    if let Some(deadline) = &mut self.deadline {
                        deadline.restart();
                    }
                }
                Event::Head(status) => {
                    let status = status?;
                    if is_final(status) {
                        return Ok(Some(status));
                    }
                    Box::pin(self.pass_interim(&mut interims, status, exchange, source)).await?;
                }
            }
        }
    }

    async fn wait_sending(
        &mut self,
        stream: &mut PeerStream,
        exchange: &mut Exchange,
        source: &mut UploadSource<'_, '_>,
    ) -> Event {
        let (peer, limits) = (&*self.peer.label, &self.upstream.head_limits);
        let timeout = self.settings.idle_timeout;
        let (request, reply) = exchange.heads_mut();
        let (method, headers) = (&request.method, &mut reply.headers);
        let mut stream = stream.wait();
        let mut deadline = self.deadline.as_deref_mut();
        let mut pump = Pump::new(&mut self.upload, source.downstream, timeout, peer);
        poll_fn(|cx| match pump.poll(cx, &mut stream, source) {
            Poll::Ready(pumped) => Poll::Ready(Event::Pumped(pumped)),
            Poll::Pending => {
                if let Poll::Ready(head) = stream.poll_head(cx, limits, method, headers, peer) {
                    return Poll::Ready(Event::Head(head));
                }
                if let Some(deadline) = &mut deadline {
                    deadline.client_was_awaited |= pump.waits_for_client();
                    let left = deadline.at.saturating_duration_since(clock::now());
                    if stream.poll_late(cx, left).is_ready() {
                        return Poll::Ready(match deadline.is_clients_fault() {
                            true => Event::ClientIsSlow,
                            false => Event::Head(Err(deadline.error(peer))),
                        });
                    }
                }
                let reset = source.downstream.poll_reset(cx);
                reset.map(|()| Event::Pumped(Err(UploadError::Client(ClientError::Gone))))
            }
        })
        .await
    }

    #[inline]
    fn send_head(&self, stream: &mut PeerStream, exchange: &Exchange, body: BodySize) {
        let request = exchange.request();
        // A plugin's call may leave it out.
        let clients = request.headers.get(KnownHeader::Host);
        let host = match &self.upstream.host {
            Host::Client => clients.unwrap_or(self.peer.host.as_bytes()),
            Host::Peer => self.peer.host.as_bytes(),
            Host::Fixed(host) => host.as_bytes(),
        };
        stream.send_head(request, host, body);
    }

    fn label(&self) -> String {
        self.peer.label.to_string()
    }
}

impl Deadline {
    /// Whether the time of the try, and not of all, has gone by while the client was waited for: no peer could help that.
    #[cold]
    fn is_clients_fault(&self) -> bool {
        self.client_was_awaited && !self.is_last
    }

    /// Begins the time of the try anew, if the client was waited for in it.
    #[cold]
    fn restart(&mut self) {
        if !self.is_clients_fault() {
            return;
        }
        self.client_was_awaited = false;
        self.at = clock::now() + self.after;
        if let Some((at, after)) = self.of_all.filter(|(at, _)| *at <= self.at) {
            (self.at, self.after, self.is_last) = (at, after, true);
        }
    }

    /// The error of a try that has come to it.
    #[cold]
    pub(super) fn error(&self, peer: &str) -> UpstreamError {
        let (peer, after) = (peer.to_owned(), self.after);
        match self.is_last {
            true => UpstreamError::TriesTimeout { peer, after },
            false => UpstreamError::TryTimeout { peer, after },
        }
    }
}

/// Whether no other head follows. Interim responses have others behind them; with 101 the protocol is another.
fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

impl From<UploadError> for TryError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Client(error) => Self::Client(error),
            UploadError::Upstream(cause) => Self::Upstream { cause, sent: true },
            UploadError::Lost(cause) => Self::BodyLost(cause),
        }
    }
}

impl From<UpstreamError> for TryError {
    fn from(cause: UpstreamError) -> Self {
        let sent = !cause.not_processed();
        Self::Upstream { cause, sent }
    }
}
