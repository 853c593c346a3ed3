//! The request's body, as it is taken for a peer.

use crate::downstream::{BodyPiece, Downstream, RequestBody};
use crate::error::{ClientError, Error};
use crate::exchange::{Answer, Exchange};
use crate::filter::{PeerSink, RequestBodyFilter};
use crate::message::BodySize;
use crate::wasm::PinnedInstances;

/// The other side of an upstream's exchange: the body that it sends, and who waits for the response.
pub struct UploadSource<'a, 'c> {
    pub downstream: &'a mut Downstream<'c>,
    pub body: &'a mut RequestBody,
    /// The plugins on the body's way.
    pub filter: &'a mut Option<Box<RequestBodyFilter>>,
    /// Instances of the request's plugins, for those that filter the body. Without them it is not filtered.
    pub pinned: Option<&'a mut PinnedInstances>,
}

impl UploadSource<'_, '_> {
    /// Takes what is to be sent next, without waiting. `None`: there is a piece, which the filters must see first
    /// ([`Self::filter`]).
    pub(super) fn next(&mut self) -> Result<Option<BodyPiece>, ClientError> {
        match self.filter {
            None => self.body.next(self.downstream).map(Some),
            Some(filter) => filter.next(self.body, self.downstream),
        }
    }

    /// Has the filters see the piece that is due. An answer of one of them ends the exchange. The peer takes what they send on
    /// before they are through with it.
    pub(super) async fn filter(
        &mut self,
        exchange: &mut Box<Exchange>,
        peer: &mut dyn PeerSink,
    ) -> Result<Option<Answer>, Error> {
        let pinned = self.pinned.as_deref_mut();
        match self.filter {
            None => Ok(None),
            Some(filter) => {
                filter
                    .pass(self.body, self.downstream, pinned, exchange, peer)
                    .await
            }
        }
    }

    /// Settles what the peers are told of the length of a body that is filtered: that of what the filters make of it where all
    /// of it is there and they hold it in memory, none else. An answer of a filter ends the exchange.
    pub(super) async fn settle_size(
        &mut self,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Answer>, Error> {
        self.body.hold_buffered(self.downstream)?;
        let emits = self.filter.as_ref().is_some_and(|filter| filter.emits());
        if emits || !self.body.is_held(self.downstream) {
            self.body.size = BodySize::Unknown;
            return Ok(None);
        }
        let Some(mut filter) = self.filter.take() else {
            return Ok(None);
        };
        let pinned = self.pinned.as_deref_mut();
        filter
            .pass_whole(self.body, self.downstream, pinned, exchange)
            .await
    }
}
