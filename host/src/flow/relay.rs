//! The response on its way to the client: its head, and its body piece by piece, through the filters.

use bytes::Bytes;

use super::filling::Filling;
use super::outlet::Outlet;
use super::pipeline::{Pipeline, ResponseBody};
use crate::error::{ClientError, Error};
use crate::filter::ResponseBodyFilter;
use crate::message::{BodySize, Headers, Piece};
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
            ResponseBody::Filling(mut filling) => {
                let size = match filters {
                    Some(_) => BodySize::Unknown,
                    None => filling.size(),
                };
                if self.outlet().send_head(size) {
                    Box::pin(self.relay_filling(&mut filling, filters)).await?;
                }
            }
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

    /// Passes a body on that is being stored: a client that is slow does not hold it up.
    async fn relay_filling(
        &mut self,
        filling: &mut Filling,
        mut filters: Option<ResponseBodyFilter<'_>>,
    ) -> Result<(), Error> {
        let mut pieces = PieceBudget::default();
        loop {
            pieces.next().await;
            let mut trailers = Headers::new();
            let (piece, last) = match filling.try_piece(&mut trailers)? {
                Piece::Data(piece) => (piece, false),
                Piece::End => (Bytes::new(), true),
                Piece::NeedMore => {
                    if self.downstream.has_pending() && !self.downstream.flush_now()? {
                        self.downstream.flush().await?;
                    }
                    let more = self.downstream.while_there(Box::pin(filling.more()));
                    more.await.ok_or(ClientError::Gone)?;
                    continue;
                }
            };
            if last {
                self.exchange.body_mut().trailers = trailers;
            }
            let (piece, last) = match &mut filters {
                Some(filters) => self.outlet().filter_piece(filters, piece, last).await?,
                None => (piece, last),
            };
            self.outlet().push(piece);
            if last {
                return Ok(());
            }
            if self.downstream.is_full() && !self.downstream.flush_now()? {
                self.downstream.flush().await?;
            }
        }
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
