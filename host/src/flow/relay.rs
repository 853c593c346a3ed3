//! The response on its way to the client: its head, and its body piece by piece, through the filters.

use bytes::Bytes;

use super::host_io::VariablesOnly;
use super::pipeline::{Pipeline, ResponseBody};
use crate::downstream::SendOptions;
use crate::error::Error;
use crate::filter::{self, ResponseBodyFilter};
use crate::message::{BodySize, KnownHeader, Piece};
use crate::runtime::clock;
use crate::transport::halves::BODY_ROOM_BYTES;
use crate::upstream;

impl Pipeline<'_> {
    /// Sends the response, whose head is in the exchange.
    pub async fn send(&mut self, body: ResponseBody) -> Result<(), Error> {
        let bodiless = self.downstream.is_bodiless(self.exchange.reply().status);
        let steps = &self.plan.get().response_body;
        let is_filtered =
            !steps.is_empty() && !self.past_filters && filter::is_active(steps, self.exchange);
        if is_filtered {
            filter::settle_head(self.exchange);
        }
        let filters =
            (is_filtered && !bodiless).then(|| ResponseBodyFilter::new(steps, self.exchange));
        match body {
            ResponseBody::Here(body) => self.send_whole(body, filters, is_filtered).await?,
            ResponseBody::Upstream(body) => {
                let size = match filters {
                    Some(_) => BodySize::Unknown,
                    None => body.size(),
                };
                match self.send_head(size) {
                    true => self.relay(body, filters).await?,
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

    async fn send_whole(
        &mut self,
        mut body: Bytes,
        filters: Option<ResponseBodyFilter<'_>>,
        is_filtered: bool,
    ) -> Result<(), Error> {
        let has_filters = filters.is_some();
        if let Some(filters) = filters {
            body = self.filter_whole(body, filters).await?;
        }
        let follows = self.send_head(match is_filtered && !has_filters {
            // The length of what filters would have made of it is not known.
            true => BodySize::None,
            false => BodySize::Exact(body.len() as u64),
        });
        if follows {
            self.push(body);
        }
        Ok(())
    }

    /// Appends the head. Returns whether the body is to follow.
    fn send_head(&mut self, size: BodySize) -> bool {
        let has_date = self.exchange.reply().headers.contains(KnownHeader::Date);
        let date = (!has_date).then(|| self.worker.date());
        let options = SendOptions {
            size,
            date: date.as_ref(),
            keep_alive: !self.worker.is_draining(),
        };
        self.downstream.send_head(self.exchange.reply(), options)
    }

    /// Passes the upstream's body on, piece by piece: what is not taken by the client is not read from the peer.
    async fn relay(
        &mut self,
        mut body: upstream::Body,
        mut filters: Option<ResponseBodyFilter<'_>>,
    ) -> Result<(), Error> {
        let mut pieces = clock::PieceBudget::default();
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
                Some(filters) => self.filter_piece(filters, piece, last).await?,
                None => (piece, last),
            };
            self.push(piece);
            if last {
                break;
            }
            if self.downstream.is_full() && !self.downstream.flush_now()? {
                self.downstream.flush().await?;
            }
        }
        body.finish();
        Ok(())
    }

    fn push(&mut self, piece: Bytes) {
        self.exchange.stats_mut().body_bytes_sent += piece.len() as u64;
        self.downstream.send_data(piece);
    }

    /// Has a piece of the response's body go through its filters: what goes on in its place, and whether the body ends with
    /// it.
    async fn filter_piece(
        &mut self,
        filters: &mut ResponseBodyFilter<'_>,
        piece: Bytes,
        last: bool,
    ) -> Result<(Bytes, bool), Error> {
        let mut variables = VariablesOnly(self.plan.get());
        filters
            .chunk(self.exchange, &mut self.pinned, &mut variables, piece, last)
            .await
    }

    /// Has a body that is there whole go through its filters in pieces, as it would stream: a filter need not have room for all
    /// of it.
    async fn filter_whole(
        &mut self,
        mut body: Bytes,
        mut filters: ResponseBodyFilter<'_>,
    ) -> Result<Bytes, Error> {
        let mut whole = bytes::BytesMut::new();
        loop {
            let piece = body.split_to(body.len().min(BODY_ROOM_BYTES));
            let last = body.is_empty();
            let (piece, last) = self.filter_piece(&mut filters, piece, last).await?;
            whole.extend_from_slice(&piece);
            if last {
                return Ok(whole.freeze());
            }
        }
    }
}
