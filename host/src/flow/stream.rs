//! A response that a `content` hook writes piece by piece: the relay's way out, with the hook in the place of a peer.

use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use super::outlet::Outlet;
use crate::error::{Error, PluginFault};
use crate::filter::ResponseBodyFilter;
use crate::message::BodySize;
use crate::runtime::PieceBudget;
use crate::transport::halves::BODY_ROOM_BYTES;

/// A response that has begun, while the hook that writes it runs.
pub struct Stream<'p> {
    /// The plugin whose hook it is.
    plugin: Arc<str>,
    state: State,
    /// Filters of its body; `None`: no plugin sees it.
    filters: Option<ResponseBodyFilter<'p>>,
    /// Bytes that are still to come, where the head has told the length.
    left: Option<u64>,
    pieces: PieceBudget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Pieces are sent.
    Open,
    /// The head is out, and no body follows it: pieces are thrown away.
    Bodiless,
    /// The response is out to its end, since a filter has ended it or answered in its place: pieces are thrown away.
    Ended,
}

impl<'p> Stream<'p> {
    /// Sends the head, which has passed its filters and is in the exchange. `replaced`: body of a filter's response that has taken
    /// the place of this one; it is sent whole.
    pub async fn begin(
        plugin: Arc<str>,
        length: Option<u64>,
        replaced: Option<Bytes>,
        outlet: &mut Outlet<'_, 'p>,
    ) -> Result<Box<Self>, Error> {
        let (filters, is_filtered) = outlet.begin_body(false);
        let mut stream = Box::new(Self {
            plugin,
            state: State::Ended,
            filters: None,
            left: length,
            pieces: PieceBudget::default(),
        });
        if let Some(body) = replaced {
            outlet.send_whole(body, filters, is_filtered).await?;
            outlet.finish().await?;
            return Ok(stream);
        }
        let size = match (is_filtered, length) {
            // The length of what filters would have made of it is not known.
            (true, _) if filters.is_none() => BodySize::None,
            (true, _) | (false, None) => BodySize::Unknown,
            (false, Some(bytes)) => BodySize::Exact(bytes),
        };
        stream.state = match outlet.send_head(size) {
            true => State::Open,
            false => State::Bodiless,
        };
        stream.filters = filters;
        // The head goes at once: the first piece may be long in coming, and clients of event streams wait for the head.
        outlet.flush().await?;
        Ok(stream)
    }

    /// Whether further pieces would be sent.
    pub fn is_wanted(&self) -> bool {
        self.state == State::Open
    }

    /// Sends a piece, once it has passed the filters. Ready when the socket has taken it, so that no more than one piece is here.
    /// False: it goes beyond the length, and nothing of it is sent.
    pub async fn write(
        &mut self,
        mut piece: Bytes,
        outlet: &mut Outlet<'_, 'p>,
    ) -> Result<bool, Error> {
        if !self.is_wanted() {
            return Ok(true);
        }
        if let Some(left) = &mut self.left {
            match left.checked_sub(piece.len() as u64) {
                Some(after) => *left = after,
                None => return Ok(false),
            }
        }
        while self.is_wanted() && !piece.is_empty() {
            // Parts are as large as those of a peer: a filter need not have room for more.
            let part = piece.split_to(piece.len().min(BODY_ROOM_BYTES));
            self.send(part, outlet).await?;
        }
        Ok(true)
    }

    async fn send(&mut self, part: Bytes, outlet: &mut Outlet<'_, 'p>) -> Result<(), Error> {
        // A client that takes everything at once would let the hook go on for ever.
        self.pieces.next().await;
        let (part, last) = match &mut self.filters {
            Some(filters) => outlet.filter_piece(filters, part, false).await?,
            None => (part, false),
        };
        outlet.push(part);
        match last {
            true => self.finish(outlet).await,
            false => outlet.flush().await,
        }
    }

    /// Ends the response: the hook has returned that it is whole.
    pub async fn end(mut self: Box<Self>, outlet: &mut Outlet<'_, 'p>) -> Result<(), Error> {
        match (self.state, self.left) {
            (State::Ended, _) => return Ok(()),
            (State::Bodiless, _) => {}
            (State::Open, Some(missing @ 1..)) => return Err(self.fell_short(missing)),
            (State::Open, Some(0) | None) => {
                if let Some(filters) = &mut self.filters {
                    let (rest, _) = outlet.filter_piece(filters, Bytes::new(), true).await?;
                    outlet.push(rest);
                }
            }
        }
        self.finish(outlet).await
    }

    async fn finish(&mut self, outlet: &mut Outlet<'_, 'p>) -> Result<(), Error> {
        self.state = State::Ended;
        outlet.finish().await
    }

    fn fell_short(&self, missing: u64) -> Error {
        let plugin = &*self.plugin;
        error!(
            plugin,
            hook = "content",
            "plugin {plugin} ended its response {missing} bytes before the length that it has told"
        );
        Error::Plugin {
            plugin: plugin.to_owned(),
            what: PluginFault::Failed,
        }
    }
}
