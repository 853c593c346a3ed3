//! The response on its way to the client: its head, and its body piece by piece, through the filters.

use bytes::Bytes;

use super::outlet::Outlet;
use super::pipeline::{Pipeline, ResponseBody};
use crate::error::Error;
use crate::filter::ResponseBodyFilter;
use crate::message::{BodySize, Piece};
use crate::runtime::PieceBudget;
use crate::upstream;

impl<'a> Pipeline<'a> {
    /// Sends the response, whose head is in the exchange.
    pub async fn send(&mut self, body: ResponseBody) -> Result<(), Error> {
        if self.exchange.request().upgrade.is_some()
            && let Some(upgrade) = self.switches_to()
        {
            return Box::pin(self.go_on(upgrade, body)).await;
        }
        let past_filters = self.past_filters;
        let (filters, is_filtered) = self.outlet().begin_body(past_filters);
        match body {
            ResponseBody::Here(body) => {
                let mut outlet = self.outlet();
                outlet.send_whole(body, filters, is_filtered).await?;
            }
            ResponseBody::Sent => return Ok(()),
            ResponseBody::Upstream(mut body) => {
                let size = match filters {
                    Some(_) => BodySize::Unknown,
                    None => body.size(),
                };
                match self.outlet().send_head(size) {
                    true => {
                        self.relay(&mut body, filters).await?;
                        body.finish();
                    }
                    false if body.is_end() || body.size() == BodySize::None => body.finish(),
                    false => {}
                }
            }
        }
        let downstream = &mut self.downstream;
        if !downstream.finish(&self.exchange.body().trailers) && !downstream.flush_now()? {
            downstream.flush().await?;
        }
        Ok(())
    }

    /// Passes the upstream's body on, piece by piece: what is not taken by the client is not read from the peer.
    async fn relay(
        &mut self,
        body: &mut upstream::Body,
        mut filters: Option<ResponseBodyFilter<'_>>,
    ) -> Result<(), Error> {
        let mut pieces = PieceBudget::default();
        loop {
            if pieces.is_turn_over() {
                tokio::task::yield_now().await;
            }
            let (piece, last) = match body.try_piece()? {
                Piece::Data(piece) => (piece, body.is_end()),
                Piece::End => (Bytes::new(), true),
                Piece::NeedMore => {
                    // A large piece is out already.
                    if self.downstream.has_pending() && !self.downstream.flush_now()? {
                        self.downstream.flush().await?;
                    }
                    let (mut source, exchange) = self.upload_source();
                    body.fill(&mut source, exchange).await?;
                    continue;
                }
            };
            if last {
                self.exchange.body_mut().trailers = body.take_trailers().unwrap_or_default();
            }
            let (piece, last) = match &mut filters {
                // A filter may end the body earlier, which costs the peer's connection.
                Some(filters) => self.outlet().filter_piece(filters, piece, last).await?,
                None => (piece, last),
            };
            self.outlet().push(piece);
            if last {
                break;
            }
            if self.downstream.is_full() && !self.downstream.flush_now()? {
                self.downstream.flush().await?;
            }
        }
        Ok(())
    }

    #[inline]
    fn outlet(&mut self) -> Outlet<'_, 'a> {
        Outlet {
            plan: self.plan.get(),
            exchange: self.exchange,
            pinned: &mut self.pinned,
            downstream: &mut self.downstream,
            worker: self.worker,
        }
    }
}
