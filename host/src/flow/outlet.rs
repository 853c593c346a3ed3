//! The way of a response out, whatever writes it: a peer, a plugin, or the gateway itself.

use bytes::Bytes;

use super::variables::VariablesOnly;
use crate::downstream::{Downstream, SendOptions};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::filter::{self, BodySink, ResponseBodyFilter, Taking};
use crate::message::{BodySize, KnownHeader};
use crate::phase::Plan;
use crate::runtime::PieceBudget;
use crate::transport::halves::BODY_ROOM_BYTES;
use crate::wasm::PinnedInstances;
use crate::worker_context::WorkerContext;

/// Way of a response out: its head, the filters of its body, and the client's side.
pub struct Outlet<'s, 'a> {
    pub plan: &'a Plan,
    pub exchange: &'s mut Box<Exchange>,
    pub pinned: &'s mut PinnedInstances,
    pub downstream: &'s mut Downstream<'a>,
    pub worker: &'s WorkerContext,
}

impl<'a> Outlet<'_, 'a> {
    /// Begins with the body of the response whose head is in the exchange: its filters, where there are any that see it and it is
    /// to follow the head, and whether they would see it if it followed. The head then says what is true of a body that they may
    /// change.
    #[inline]
    pub fn begin_body(&mut self, past_filters: bool) -> (Option<ResponseBodyFilter<'a>>, bool) {
        let bodiless = self.downstream.is_bodiless(self.exchange.reply().status);
        let steps = &self.plan.response_body;
        let is_filtered =
            !steps.is_empty() && !past_filters && filter::is_active(steps, self.exchange);
        if is_filtered {
            filter::settle_head(self.exchange);
        }
        let filters =
            (is_filtered && !bodiless).then(|| ResponseBodyFilter::new(steps, self.exchange));
        (filters, is_filtered)
    }

    /// Appends head and body of a response that is there whole, without its end.
    pub async fn send_whole(
        &mut self,
        mut body: Bytes,
        filters: Option<ResponseBodyFilter<'_>>,
        is_filtered: bool,
    ) -> Result<(), Error> {
        let has_filters = filters.is_some();
        if let Some(filters) = filters {
            if filters.emits() {
                return Box::pin(self.stream_whole(body, filters)).await;
            }
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
    #[inline]
    pub fn send_head(&mut self, size: BodySize) -> bool {
        let has_date = self.exchange.reply().headers.contains(KnownHeader::Date);
        let date = (!has_date).then(|| self.worker.date());
        let options = SendOptions {
            size,
            date: date.as_ref(),
            keep_alive: !self.worker.is_draining(),
        };
        self.downstream.send_head(self.exchange.reply(), options)
    }

    /// Appends a piece of the body.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        self.exchange.stats_mut().body_bytes_sent += piece.len() as u64;
        self.downstream.send_data(piece);
    }

    /// Sends what was appended.
    pub async fn flush(&mut self) -> Result<(), Error> {
        match self.downstream.flush_now()? {
            true => Ok(()),
            false => Ok(self.downstream.flush().await?),
        }
    }

    /// Ends the body with its trailers.
    pub async fn finish(&mut self) -> Result<(), Error> {
        match self.downstream.finish(&self.exchange.body().trailers) {
            true => Ok(()),
            false => self.flush().await,
        }
    }

    /// Has a piece of the response's body go through its filters: what goes on in its place, and whether the body ends with
    /// it.
    pub async fn filter_piece(
        &mut self,
        filters: &mut ResponseBodyFilter<'_>,
        piece: Bytes,
        last: bool,
    ) -> Result<(Bytes, bool), Error> {
        let mut variables = VariablesOnly(&self.plan.variables);
        let mut client = ClientSink(self.downstream, PieceBudget::NONE);
        let (exchange, pinned) = (&mut *self.exchange, &mut *self.pinned);
        let io = &mut variables;
        filters
            .chunk(exchange, pinned, io, &mut client, piece, last)
            .await
    }

    /// Sends a body that is there whole as if it streamed, for filters that may make more of it than there is memory for.
    async fn stream_whole(
        &mut self,
        mut body: Bytes,
        mut filters: ResponseBodyFilter<'_>,
    ) -> Result<(), Error> {
        if !self.send_head(BodySize::Unknown) {
            return Ok(());
        }
        loop {
            let piece = body.split_to(body.len().min(BODY_ROOM_BYTES));
            let last = body.is_empty();
            let (piece, last) = self.filter_piece(&mut filters, piece, last).await?;
            self.push(piece);
            if last {
                return Ok(());
            }
            if self.downstream.is_full() {
                self.flush().await?;
            }
        }
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

/// Client that is sent parts of a response as its filters make them: one that is slow makes them wait.
struct ClientSink<'s, 'a>(&'s mut Downstream<'a>, PieceBudget);

impl BodySink for ClientSink<'_, '_> {
    fn take<'t>(&'t mut self, part: Bytes, exchange: &'t mut Exchange) -> Taking<'t> {
        let Self(downstream, pieces) = self;
        Box::pin(async move {
            // A client that takes everything at once would let a filter go on for ever.
            pieces.next().await;
            exchange.stats_mut().body_bytes_sent += part.len() as u64;
            downstream.send_data(part);
            if downstream.is_full() && !downstream.flush_now()? {
                downstream.flush().await?;
            }
            Ok(true)
        })
    }
}
