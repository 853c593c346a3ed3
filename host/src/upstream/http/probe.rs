//! A request of the gateway's own, to one peer, on a connection of its own.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{PeerStream, count_interim};
use crate::config::PeerProtocol;
use crate::error::UpstreamError;
use crate::message::{BodySize, Headers, Piece, RequestHead, Scheme};
use crate::transport::proxy_protocol::{self, Client, Facts};
use crate::transport::tls::Offer;
use crate::transport::{PeerAddress, Transport, halves};
use crate::upstream::connect::{ConnectError, To, connect};
use crate::upstream::open_connection::OpenConnection;
use crate::upstream::{Peer, Upstream};

/// Answer of a peer, with the beginning of its body.
pub(in crate::upstream) struct ProbeAnswer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Option<Headers>,
}

/// Failure of a probe.
pub(in crate::upstream) enum ProbeError {
    /// Shortage of descriptors, memory or ports, which says nothing of the peer.
    Shortage(io::Error),
    Failed(UpstreamError),
}

impl From<UpstreamError> for ProbeError {
    fn from(error: UpstreamError) -> Self {
        Self::Failed(error)
    }
}

/// Bytes of a body that are read, and pieces of it: reads and chunks. Without a bound of these, a peer that sends its body byte
/// by byte, each in a chunk, costs 6 ms of a core a check.
const BODY_BYTES: usize = 64 << 10;
const BODY_PIECES: usize = 1024;

impl Upstream {
    /// Connects to a peer as requests do, TLS and PROXY header included, at this address of it.
    pub(in crate::upstream) async fn probe_connection(
        &self,
        peer: &Peer,
        address: &PeerAddress,
        limit: Duration,
    ) -> Result<Transport, ProbeError> {
        let header = self
            .proxy_protocol
            .map(|version| proxy_protocol::write(version, Client::Nobody, &Facts::default()));
        let to = To {
            address,
            alternate: None,
            options: &self.connect_options,
            header,
            tls: peer.tls.as_ref(),
            offer: Offer::Usual,
        };
        let connected = connect(to, &self.alarms.alarm(), limit).await;
        let label = || address.to_string();
        connected.map_err(|error| match error {
            ConnectError::Shortage(cause) => ProbeError::Shortage(cause),
            ConnectError::Failed(cause) => {
                let peer = label();
                ProbeError::Failed(UpstreamError::Connect { peer, cause })
            }
            ConnectError::Handshake(cause) => {
                let peer = label();
                ProbeError::Failed(UpstreamError::Handshake { peer, cause })
            }
            ConnectError::TimedOut => {
                let (peer, after) = (label(), limit);
                ProbeError::Failed(UpstreamError::ConnectTimeout { peer, after })
            }
            ConnectError::HandshakeTimedOut => {
                let (peer, after) = (label(), limit);
                ProbeError::Failed(UpstreamError::HandshakeTimeout { peer, after })
            }
        })
    }

    /// Sends a request on a new connection and reads the answer. The caller limits the time.
    pub(in crate::upstream) async fn ask(
        &self,
        peer: &Peer,
        transport: Transport,
        request: &RequestHead,
        host: &[u8],
        body: Bytes,
    ) -> Result<ProbeAnswer, UpstreamError> {
        let speaks_http2 = match self.protocol {
            PeerProtocol::Http1 => false,
            PeerProtocol::Http2 => true,
            PeerProtocol::Auto => transport.is_http2(),
        };
        let mut stream = match speaks_http2 {
            false => {
                // Checks are not counted among the connections of requests.
                let (halves, uncounted) = (halves::split(transport), OpenConnection::default());
                PeerStream::h1(halves, &self.alarms, peer.pool.life(), uncounted)
            }
            true => self.http2_stream(peer, transport).await?,
        };
        let size = match body.len() {
            0 => BodySize::None,
            bytes => BodySize::Exact(bytes as u64),
        };
        stream.send_head(request, host, size);
        if size != BodySize::None {
            stream.send_data(body);
            stream.finish(&Headers::new());
        }
        self.read_answer(stream, request, &peer.label).await
    }

    async fn http2_stream(
        &self,
        peer: &Peer,
        transport: Transport,
    ) -> Result<PeerStream, UpstreamError> {
        let refused = |cause| UpstreamError::Preface {
            peer: peer.label.to_string(),
            cause,
        };
        let (connection, driver) = self
            .http2
            .handshake(Rc::new(transport))
            .await
            .map_err(refused)?;
        tokio::task::spawn_local(driver);
        if !connection.settled().await {
            return Err(refused(io::Error::other("it does not speak it")));
        }
        let scheme = match peer.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        };
        Ok(PeerStream::h2(connection, scheme, &self.alarms))
    }

    async fn read_answer(
        &self,
        mut stream: PeerStream,
        request: &RequestHead,
        peer: &str,
    ) -> Result<ProbeAnswer, UpstreamError> {
        let mut waiting = stream.wait();
        poll_fn(|cx| waiting.poll_flush(cx, self.settings.idle_timeout, peer)).await?;
        let (mut headers, mut interims) = (Headers::new(), 0);
        let status = loop {
            headers.clear();
            let (limits, method) = (&self.head_limits, &request.method);
            let head = poll_fn(|cx| waiting.poll_head(cx, limits, method, &mut headers, peer));
            let status = head.await?;
            if !status.is_informational() {
                break status;
            }
            count_interim(&mut interims, peer)?;
        };
        let (mut body, mut pieces) = (Vec::new(), 0);
        while !waiting.is_end() && body.len() < BODY_BYTES && pieces < BODY_PIECES {
            pieces += 1;
            let piece = waiting
                .try_piece()
                .map_err(|cause| UpstreamError::BadBody {
                    peer: peer.to_owned(),
                    cause,
                })?;
            match piece {
                Piece::Data(piece) => body.extend_from_slice(&piece),
                Piece::NeedMore => poll_fn(|cx| waiting.poll_fill(cx, peer)).await?,
                Piece::End => break,
            }
        }
        let trailers = waiting.take_trailers();
        Ok(ProbeAnswer {
            status,
            headers,
            body,
            trailers,
        })
    }
}
