//! Bytes of a body that are kept.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces in their order. Small ones are gathered: a client that sends a byte at a time must not make the keeping of it
/// cost many times what it sends.
#[derive(Default)]
pub(super) struct Pieces {
    closed: VecDeque<Bytes>,
    /// After those, and growing.
    open: BytesMut,
    bytes: usize,
}

/// A piece of this or more stands for itself.
const OWN_PIECE_BYTES: usize = 16 * 1024;

impl Pieces {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Keeps a copy: what a slice of a read buffer would hold is all of the buffer.
    pub(super) fn push_copy(&mut self, data: &[u8]) {
        self.bytes += data.len();
        self.open.extend_from_slice(data);
        if self.open.len() >= OWN_PIECE_BYTES {
            self.close();
        }
    }

    /// Keeps the bytes where they lie, if they are worth a piece of their own.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() < OWN_PIECE_BYTES {
            self.push_copy(&piece);
            return;
        }
        self.close();
        self.bytes += piece.len();
        self.closed.push_back(piece);
    }

    pub(super) fn pop_front(&mut self) -> Option<Bytes> {
        if self.closed.is_empty() {
            self.close();
        }
        let piece = self.closed.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Bytes from this offset on, as far as they lie in one piece; `None` at the end.
    pub(super) fn at(&self, mut offset: usize) -> Option<Bytes> {
        for piece in &self.closed {
            if offset < piece.len() {
                return Some(piece.slice(offset..));
            }
            offset -= piece.len();
        }
        let rest = self.open.get(offset..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
    }

    /// All of it in one piece, and that.
    pub(super) fn join(&mut self) -> Bytes {
        self.close();
        if self.closed.len() > 1 {
            let joined: Vec<Bytes> = self.closed.drain(..).collect();
            self.closed.push_back(Bytes::from(joined.concat()));
        }
        self.closed.front().cloned().unwrap_or_default()
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed
                .push_back(std::mem::take(&mut self.open).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            lengths in proptest::collection::vec((0_usize..40_000, any::<bool>()), 0..12),
            at in 0_usize..100_000,
        ) {
            let mut pieces = Pieces::default();
            let mut all = Vec::new();
            for (idx, (length, copied)) in lengths.into_iter().enumerate() {
                let piece = vec![idx as u8; length];
                all.extend_from_slice(&piece);
                match copied {
                    true => pieces.push_copy(&piece),
                    false => pieces.push(Bytes::from(piece)),
                }
            }
            prop_assert_eq!(pieces.bytes(), all.len());
            let rest = all.get(at..).unwrap_or_default();
            match pieces.at(at) {
                Some(found) => prop_assert!(!found.is_empty() && rest.starts_with(&found)),
                None => prop_assert!(rest.is_empty()),
            }
            let mut out = Vec::new();
            while let Some(piece) = pieces.pop_front() {
                out.extend_from_slice(&piece);
            }
            prop_assert!(out == all && pieces.is_empty());
        }
    }

    #[test]
    fn many_small_pieces_are_few() {
        let mut pieces = Pieces::default();
        for _ in 0..100_000 {
            pieces.push_copy(b"x");
        }
        assert!(pieces.closed.len() < 8);
        assert_eq!(pieces.join().len(), 100_000);
    }
}
