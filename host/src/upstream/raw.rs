//! Connections to peers for plugins, which speak on them what they like.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::Upstream;
use super::connect::{ConnectError, To, connect};
use super::peer::Active;
use crate::balancer::{Choice, Tried};
use crate::exchange::Exchange;
use crate::transport::Transport;
use crate::transport::tls::Offer;

/// A connection that a plugin has made. It counts as a request under way at its peer, and closes when it is dropped.
pub struct RawConnection {
    transport: Transport,
    received: BytesMut,
    _active: Active,
}

impl Upstream {
    /// Connects to a peer, by TLS where the upstream has it; in all within the time. Where one cannot be connected to, another is tried, as
    /// many as requests try. The error is a line for the plugin.
    pub async fn connect_raw(self: &Rc<Self>, limit: Duration) -> Result<RawConnection, String> {
        let connected = timeout(limit, self.connect_any(limit)).await;
        connected.unwrap_or_else(|_| Err(format!("not connected in {limit:?}")))
    }

    async fn connect_any(self: &Rc<Self>, limit: Duration) -> Result<RawConnection, String> {
        let (mut exchange, mut tried) = (Exchange::idle(), Tried::default());
        let mut last = "no peer is available".to_owned();
        for _ in 0..self.settings.tries.max(1) {
            let choice = self.balancer.choose(&tried, None, &mut exchange);
            let peer = match choice.map_err(|error| error.to_string())? {
                Choice::Peer(peer) => peer,
                Choice::Full => {
                    return Err("all peers have as many requests as they may".to_owned());
                }
                Choice::Nobody => return Err(last),
            };
            tried.insert(&peer);
            let to = To {
                address: &peer.address,
                alternate: None,
                options: &self.connect_options,
                header: None,
                tls: peer.tls.as_ref(),
                offer: Offer::Nothing,
            };
            let limit = limit.min(self.settings.connect_timeout);
            match connect(to, &self.alarms.alarm(), limit).await {
                Ok(transport) => {
                    return Ok(RawConnection {
                        transport,
                        received: BytesMut::new(),
                        _active: peer,
                    });
                }
                Err(error) => last = format!("{}: {}", peer.label, text(&error)),
            }
        }
        Err(last)
    }
}

fn text(error: &ConnectError) -> String {
    match error {
        ConnectError::TimedOut | ConnectError::HandshakeTimedOut => "timed out".to_owned(),
        ConnectError::Shortage(cause) | ConnectError::Failed(cause) => cause.to_string(),
        ConnectError::Handshake(cause) => format!("TLS: {cause}"),
    }
}

impl RawConnection {
    /// Reads what is there, at least a byte and at most so many; nothing: the peer has ended. The error is a line for the plugin.
    pub async fn read(&mut self, most: usize, limit: Duration) -> Result<Bytes, String> {
        if self.received.is_empty() {
            let filled = timeout(limit, self.fill(most)).await;
            match filled {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("nothing to read in {limit:?}")),
            }
        }
        let len = self.received.len().min(most);
        Ok(self.received.split_to(len).freeze())
    }

    async fn fill(&mut self, most: usize) -> io::Result<()> {
        loop {
            self.received.reserve(most.clamp(1, READ_BYTES));
            match self.transport.try_read(&mut self.received) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.transport.poll_read_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of it. The error is a line for the plugin.
    pub async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), String> {
        match timeout(limit, self.write_all(bytes)).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not written in {limit:?}")),
        }
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.transport.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.transport.poll_write_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        poll_fn(|cx| self.transport.poll_sealed(cx)).await;
        Ok(())
    }
}

const READ_BYTES: usize = 16 << 10;
