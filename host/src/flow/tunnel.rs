//! A response that agrees to go on with another protocol, and the bytes after it.

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
        let status = self.exchange.reply().status;
        let upgrade = self.exchange.request().upgrade;
        upgrade.filter(|upgrade| upgrade.is_agreed_by(status))
    }

    /// Settles whether the request may go on with the protocol that it asks for: its route says so.
    pub fn settle_upgrade(&mut self) -> Result<(), Error> {
        let Some(upgrade) = self.exchange.request().upgrade else {
            return Ok(());
        };
        let tunnel = self.plan.get().tunnel;
        let is_allowed = tunnel.is_some_and(|tunnel| match upgrade {
            Upgrade::WebSocket => tunnel.websocket,
            Upgrade::Connect => tunnel.connect,
        });
        let is_extended = upgrade == Upgrade::WebSocket && self.downstream.is_connect();
        if is_allowed {
            if is_extended {
                websocket::add_key(&mut self.exchange.request_mut().headers);
            }
            return Ok(());
        }
        if is_extended || upgrade == Upgrade::Connect {
            // RFC 8441 §5: such a request is nothing else.
            return Err(Error::NoTunnel);
        }
        self.exchange.request_mut().upgrade = None;
        Ok(())
    }

    /// Goes on with this protocol, as the response has agreed to.
    pub async fn go_on(&mut self, upgrade: Upgrade, body: ResponseBody) -> Result<(), Error> {
        match body {
            ResponseBody::Upstream(body) => self.tunnel(upgrade, body).await,
            // Nobody but a peer agrees to it.
            ResponseBody::Here(_) | ResponseBody::Filling(_) | ResponseBody::Sent => {
                Err(Error::NoTunnel)
            }
        }
    }

    /// Tells the client that its connection goes on with this protocol, and moves bytes until that ends.
    async fn tunnel(&mut self, upgrade: Upgrade, mut body: upstream::Body) -> Result<(), Error> {
        let Some(limits) = self.plan.get().tunnel else {
            return Err(Error::NoTunnel);
        };
        let (request, reply) = self.exchange.heads_mut();
        let is_websocket = upgrade == Upgrade::WebSocket;
        if is_websocket && !websocket::is_accepted(&request.headers, &mut reply.headers) {
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
