//! A response that agrees to go on with another protocol, and the bytes after it.

use http::StatusCode;
use tracing::debug;

use super::pipeline::{Pipeline, ResponseBody};
use super::websocket;
use crate::error::Error;
use crate::message::Upgrade;
use crate::upstream::{self, Moved, TunnelEnd};

impl Pipeline<'_> {
    /// Protocol that the response agrees to go on with.
    #[inline]
    pub fn switches_to(&self) -> Option<Upgrade> {
        let is_agreed = self.exchange.reply().status == StatusCode::SWITCHING_PROTOCOLS;
        self.exchange.request().upgrade.filter(|_| is_agreed)
    }

    /// Settles whether the request may go on with the protocol that it asks for: its route says so.
    pub fn settle_upgrade(&mut self) -> Result<(), Error> {
        if self.exchange.request().upgrade.is_none() {
            return Ok(());
        }
        let is_connect = self.downstream.is_connect();
        if self.plan.get().tunnel.is_some() {
            if is_connect {
                websocket::add_key(&mut self.exchange.request_mut().headers);
            }
            return Ok(());
        }
        self.exchange.request_mut().upgrade = None;
        match is_connect {
            // RFC 8441 §5: such a request is nothing else.
            true => Err(Error::NoTunnel),
            false => Ok(()),
        }
    }

    /// Goes on with this protocol, as the response has agreed to.
    pub async fn go_on(&mut self, upgrade: Upgrade, body: ResponseBody) -> Result<(), Error> {
        match body {
            ResponseBody::Upstream(body) => self.tunnel(upgrade, body).await,
            // Nobody but a peer agrees to it.
            ResponseBody::Here(_) | ResponseBody::Sent => Err(Error::NoTunnel),
        }
    }

    /// Tells the client that its connection goes on with this protocol, and moves bytes until that ends.
    async fn tunnel(&mut self, upgrade: Upgrade, mut body: upstream::Body) -> Result<(), Error> {
        let Some(limits) = self.plan.get().tunnel else {
            return Err(Error::NoTunnel);
        };
        let (request, reply) = self.exchange.heads_mut();
        if !websocket::is_accepted(&request.headers, &mut reply.headers) {
            return Err(body.refused_key());
        }
        self.downstream.switch(self.exchange.reply(), upgrade);
        let mut moved = Moved::default();
        let ended = body.tunnel(&mut self.downstream, limits, &mut moved).await;
        self.body.received_bytes += moved.from_client;
        self.exchange.stats_mut().body_bytes_sent += moved.from_peer;
        match ended? {
            TunnelEnd::Ended => {}
            end @ (TunnelEnd::Idle | TunnelEnd::TooLong) => {
                let path = self.exchange.request().target.path();
                debug!(path, "tunnel ended: {end:?}");
            }
        }
        Ok(())
    }
}
