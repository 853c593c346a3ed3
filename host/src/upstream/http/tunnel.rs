//! Bytes between a client and a peer, once both have agreed to go on with another protocol.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Body, PeerStream};
use crate::config;
use crate::downstream::Downstream;
use crate::error::{ClientError, Error, UpstreamError};
use crate::message::Piece;
use crate::runtime::alarm::Alarm;

/// Bytes that a tunnel has moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    pub from_client: u64,
    pub from_peer: u64,
}

/// End of a tunnel that no side has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides have ended.
    Ended,
    Idle,
    TooLong,
}

/// A tunnel under way.
struct Tunnel<'t, 'c> {
    downstream: &'t mut Downstream<'c>,
    stream: &'t mut PeerStream,
    peer: &'t str,
    moved: &'t mut Moved,
    /// Directions that have not ended.
    client_is_open: bool,
    peer_is_open: bool,
    /// Sides that were told of the other's end.
    client_is_told: bool,
    peer_is_told: bool,
    /// Sides that have all that came for them.
    client_has_all: bool,
    peer_has_all: bool,
    /// Error of the peer's, told when the client has what came before it.
    failed: Option<UpstreamError>,
}

/// Pieces moved before others have their turn.
const PIECES: u32 = 64;

/// Time-out of waits that the tunnel's own alarms bound.
const NO_LIMIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Body {
    /// Moves bytes both ways until both sides have ended, each on its own; `moved` counts them, also where it fails. A side that does not
    /// get all that came for it is told so by a reset.
    pub async fn tunnel(
        &mut self,
        downstream: &mut Downstream<'_>,
        limits: config::Tunnel,
        moved: &mut Moved,
    ) -> Result<TunnelEnd, Error> {
        let alarms = &self.upstream.alarms;
        let (idle, total) = (alarms.alarm(), alarms.alarm());
        let _disarmed = downstream.watch();
        let mut waiting = self.stream.wait();
        let mut tunnel = Tunnel {
            downstream,
            stream: &mut waiting,
            peer: &self.peer.label,
            moved,
            client_is_open: true,
            peer_is_open: true,
            client_is_told: false,
            peer_is_told: false,
            client_has_all: false,
            peer_has_all: false,
            failed: None,
        };
        let ended = poll_fn(|cx| tunnel.poll(cx, limits, &idle, &total)).await;
        if ended.is_ok() && tunnel.client_has_all {
            tunnel.downstream.settle_tunnel();
        }
        if ended.is_ok() && tunnel.peer_has_all {
            tunnel.stream.settle_tunnel();
        }
        drop(waiting);
        ended.map_err(|error| match error {
            Failed::Client(error) => Error::Client(error),
            Failed::Peer(cause) => self.error(cause),
        })
    }

    /// Error of a peer that goes on with another protocol for somebody else's key.
    pub fn refused_key(&self) -> Error {
        let peer = self.peer.label.to_string();
        self.error(UpstreamError::UnexpectedUpgrade { peer })
    }
}

/// Failure of a side.
enum Failed {
    Client(ClientError),
    Peer(UpstreamError),
}

impl Tunnel<'_, '_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limits: config::Tunnel,
        idle: &Alarm,
        total: &Alarm,
    ) -> Poll<Result<TunnelEnd, Failed>> {
        let before = self.moved.from_client + self.moved.from_peer;
        let mut pieces = PIECES;
        self.poll_client(cx, &mut pieces)?;
        self.poll_peer(cx, &mut pieces)?;
        if self.client_is_told && self.peer_is_told {
            return Poll::Ready(Ok(TunnelEnd::Ended));
        }
        if pieces == 0 {
            cx.waker().wake_by_ref();
        }
        if self.moved.from_client + self.moved.from_peer != before {
            idle.disarm();
        }
        if idle.poll_elapsed(limits.idle_timeout, cx).is_ready() {
            return Poll::Ready(Ok(TunnelEnd::Idle));
        }
        let max_time = limits.max_time;
        match max_time.is_some_and(|limit| total.poll_elapsed(limit, cx).is_ready()) {
            true => Poll::Ready(Ok(TunnelEnd::TooLong)),
            false => Poll::Pending,
        }
    }

    /// Moves what the client sends, as far as the peer takes it.
    fn poll_client(&mut self, cx: &mut Context<'_>, pieces: &mut u32) -> Result<(), Failed> {
        while self.client_is_open && *pieces > 0 {
            let is_full = self.stream.is_full();
            if is_full && !self.is_flushed_to_peer(cx)? {
                return Ok(());
            }
            match self.downstream.try_piece().map_err(Failed::Client)? {
                Piece::Data(piece) => {
                    *pieces -= 1;
                    self.moved.from_client += piece.len() as u64;
                    self.stream.send_data(piece);
                }
                Piece::End => self.client_is_open = false,
                Piece::NeedMore => match self.downstream.poll_fill(cx, NO_LIMIT) {
                    Poll::Ready(Ok(Ok(0))) => self.client_is_open = false,
                    Poll::Ready(Ok(Ok(_))) => {}
                    Poll::Ready(Ok(Err(error))) => return Err(Failed::Client(error.into())),
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                },
            }
        }
        if self.is_flushed_to_peer(cx)? && !self.client_is_open && !self.peer_is_told {
            self.peer_is_told = true;
            self.stream
                .end_tunnel()
                .map_err(|cause| self.peer_error(cause))?;
        }
        Ok(())
    }

    fn is_flushed_to_peer(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let flushed = self.stream.poll_flush(cx, NO_LIMIT, self.peer);
        self.peer_has_all = flushed.is_ready();
        match flushed.map_err(Failed::Peer) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Moves what the peer sends, as far as the client takes it.
    fn poll_peer(&mut self, cx: &mut Context<'_>, pieces: &mut u32) -> Result<(), Failed> {
        while self.peer_is_open && *pieces > 0 {
            if self.downstream.is_full() && !self.is_flushed_to_client(cx)? {
                return Ok(());
            }
            let peer = self.peer;
            let piece = self.stream.try_piece().map_err(|cause| {
                let peer = peer.to_owned();
                Failed::Peer(UpstreamError::BadBody { peer, cause })
            })?;
            match piece {
                Piece::Data(piece) => {
                    *pieces -= 1;
                    self.moved.from_peer += piece.len() as u64;
                    self.downstream.send_data(piece);
                }
                Piece::End => self.peer_is_open = false,
                Piece::NeedMore => match self.stream.poll_fill(cx, peer) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        self.peer_is_open = false;
                        self.failed = Some(error).filter(|it| !self.is_end(it));
                    }
                    Poll::Pending => break,
                },
            }
        }
        if self.is_flushed_to_client(cx)? && !self.peer_is_open && !self.client_is_told {
            if let Some(error) = self.failed.take() {
                return Err(Failed::Peer(error));
            }
            self.client_is_told = true;
            self.downstream.end_tunnel().map_err(Failed::Client)?;
        }
        Ok(())
    }

    /// Whether an error is no more than an end: a peer that has been told of the client's end owes nobody the words of TLS.
    fn is_end(&self, error: &UpstreamError) -> bool {
        let is_eof = |cause: &io::Error| cause.kind() == ErrorKind::UnexpectedEof;
        self.peer_is_told && matches!(error, UpstreamError::Io { cause, .. } if is_eof(cause))
    }

    fn is_flushed_to_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let flushed = self.downstream.poll_flush(cx, NO_LIMIT);
        self.client_has_all = flushed.is_ready();
        match flushed.map_err(Failed::Client) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn peer_error(&self, cause: io::Error) -> Failed {
        let peer = self.peer.to_owned();
        Failed::Peer(UpstreamError::Io { peer, cause })
    }
}
