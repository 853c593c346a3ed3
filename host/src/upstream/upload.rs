//! The request's body, as it is taken for a peer.

use bytes::Bytes;

use super::upload_filter::UploadFilter;
use crate::downstream::{BodyPiece, Downstream, RequestBody};
use crate::error::ClientError;
use crate::wasm::PinnedInstances;

/// The other side of an upstream's exchange: the body that it sends, and who waits for the response.
pub struct UploadSource<'a, 'c> {
    pub downstream: &'a mut Downstream<'c>,
    pub body: &'a mut RequestBody,
    /// The plugins on the body's way.
    pub filter: &'a mut Option<Box<UploadFilter>>,
    /// Instances of the request's plugins, for those that filter the body. Without them it is not filtered.
    pub pinned: Option<&'a mut PinnedInstances>,
}

/// Next thing that an upload has to send.
pub(super) enum UploadPiece {
    Body(BodyPiece),
    /// There is a piece, which the filters must see first.
    Unfiltered,
}

impl UploadSource<'_, '_> {
    /// Takes what is to be sent next, without waiting.
    pub(super) fn next(&mut self) -> Result<UploadPiece, ClientError> {
        let (body, downstream) = (&mut *self.body, &mut *self.downstream);
        let Some(filter) = self.filter else {
            return body.next(downstream).map(UploadPiece::Body);
        };
        if let Some(passed) = filter.take_passed() {
            return Ok(UploadPiece::Body(BodyPiece::Owned(passed)));
        }
        if filter.is_due() {
            return Ok(UploadPiece::Unfiltered);
        }
        if filter.is_ended() {
            return Ok(UploadPiece::Body(BodyPiece::End));
        }
        let piece = match body.next(downstream)? {
            BodyPiece::Borrowed(data) | BodyPiece::Owned(data) => data,
            BodyPiece::End => Bytes::new(),
            BodyPiece::NeedMore => return Ok(UploadPiece::Body(BodyPiece::NeedMore)),
        };
        filter.put(piece, body.is_end(downstream));
        Ok(UploadPiece::Unfiltered)
    }
}
