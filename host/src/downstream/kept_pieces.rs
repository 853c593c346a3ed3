//! Bytes of a body that are kept.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// KeptPieces in their order. Small ones are gathered: a client that sends a byte at a time must not make the keeping of it
/// cost many times what it sends. Empty ones cost next to nothing, as most requests have no body.
#[derive(Default)]
pub struct KeptPieces(Option<Box<Kept>>);

#[derive(Default)]
struct Kept {
    closed: VecDeque<Bytes>,
    /// After those, and growing.
    open: BytesMut,
    bytes: usize,
}

/// A piece of this or more stands for itself.
const OWN_PIECE_BYTES: usize = 16 * 1024;

impl KeptPieces {
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |kept| kept.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Keeps a copy: what a slice of a read buffer would hold is all of the buffer.
    pub fn push_copy(&mut self, data: &[u8]) {
        let kept = self.0.get_or_insert_default();
        kept.bytes += data.len();
        kept.open.extend_from_slice(data);
        if kept.open.len() >= OWN_PIECE_BYTES {
            kept.close();
        }
    }

    /// Keeps the bytes where they lie, if they are worth a piece of their own.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < OWN_PIECE_BYTES {
            self.push_copy(&piece);
            return;
        }
        let kept = self.0.get_or_insert_default();
        kept.close();
        kept.bytes += piece.len();
        kept.closed.push_back(piece);
    }

    pub fn pop_front(&mut self) -> Option<Bytes> {
        let kept = self.0.as_mut()?;
        if kept.closed.is_empty() {
            kept.close();
        }
        let piece = kept.closed.pop_front()?;
        kept.bytes -= piece.len();
        Some(piece)
    }

    /// Bytes from this offset on, as far as they lie in one piece; `None` at the end.
    pub fn at(&self, mut offset: usize) -> Option<Bytes> {
        let kept = self.0.as_ref()?;
        for piece in &kept.closed {
            if offset < piece.len() {
                return Some(piece.slice(offset..));
            }
            offset -= piece.len();
        }
        let rest = kept.open.get(offset..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
    }

    /// All of it in one piece, and that.
    pub fn join(&mut self) -> Bytes {
        let Some(kept) = &mut self.0 else {
            return Bytes::new();
        };
        kept.close();
        if kept.closed.len() > 1 {
            let joined: Vec<Bytes> = kept.closed.drain(..).collect();
            kept.closed.push_back(Bytes::from(joined.concat()));
        }
        kept.closed.front().cloned().unwrap_or_default()
    }
}

impl Kept {
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
            let mut pieces = KeptPieces::default();
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
        let mut pieces = KeptPieces::default();
        for _ in 0..100_000 {
            pieces.push_copy(b"x");
        }
        assert!(pieces.0.as_ref().is_some_and(|kept| kept.closed.len() < 8));
        assert_eq!(pieces.join().len(), 100_000);
    }
}
