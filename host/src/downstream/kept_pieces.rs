//! Bytes of a body that are kept.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::SpillFile;
use super::spill::SpilledBody;

/// KeptPieces in their order. Small ones are gathered: a client that sends a byte at a time must not make the keeping of it
/// cost many times what it sends. Empty ones cost next to nothing, as most requests have no body.
#[derive(Default)]
pub struct KeptPieces(Option<Box<Kept>>);

#[derive(Default)]
struct Kept {
    closed: VecDeque<Bytes>,
    /// After those, and growing.
    open: BytesMut,
    /// Bytes of both.
    bytes: usize,
    /// After those, on disk; `None`: nothing may be there.
    spilled: Option<Spilled>,
}

struct Spilled {
    body: SpilledBody,
    /// Most bytes in memory and on disk together.
    limit_bytes: usize,
}

/// A piece of this or more stands for itself.
const OWN_PIECE_BYTES: usize = 16 * 1024;

impl KeptPieces {
    pub fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |kept| kept.bytes + kept.spilled_bytes())
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

    /// Lets later pieces be put into this file ([`Self::spill`]), up to so many bytes with those in memory.
    pub fn allow_spill(&mut self, file: &Rc<SpillFile>, limit_bytes: usize) {
        self.0.get_or_insert_default().spilled = Some(Spilled {
            body: SpilledBody::new(file),
            limit_bytes,
        });
    }

    /// Puts a piece on disk, where all that follow it belong, too. False: it is not kept, and what was before is of no use any
    /// more.
    #[must_use]
    pub fn spill(&mut self, piece: &[u8]) -> bool {
        let kept = self.0.as_deref_mut();
        kept.is_some_and(|kept| match &mut kept.spilled {
            Some(Spilled { body, limit_bytes }) => {
                kept.bytes + body.bytes() + piece.len() <= *limit_bytes && body.push(piece)
            }
            None => false,
        })
    }

    /// Whether some of them are on disk.
    #[inline]
    pub fn is_spilled(&self) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.spilled_bytes() > 0)
    }

    /// Bytes from this offset on, as far as they lie in one piece; `None` at the end. Only what is on disk may fail.
    pub fn at(&self, offset: usize) -> io::Result<Option<Bytes>> {
        let Some(kept) = &self.0 else {
            return Ok(None);
        };
        match (offset.checked_sub(kept.bytes), &kept.spilled) {
            (None, _) => Ok(kept.in_memory(offset)),
            (Some(offset), Some(spilled)) => spilled.body.at(offset),
            (Some(_), None) => Ok(None),
        }
    }

    /// All that is in memory in one piece, and that.
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
    fn spilled_bytes(&self) -> usize {
        let spilled = self.spilled.as_ref();
        spilled.map_or(0, |spilled| spilled.body.bytes())
    }

    fn in_memory(&self, mut offset: usize) -> Option<Bytes> {
        for piece in &self.closed {
            if offset < piece.len() {
                return Some(piece.slice(offset..));
            }
            offset -= piece.len();
        }
        let rest = self.open.get(offset..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
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
    use crate::metrics::SpillMetrics;

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
            match pieces.at(at).unwrap() {
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

    proptest! {
        #[test]
        fn what_was_spilled_comes_after_what_is_in_memory(
            lengths in proptest::collection::vec(1_usize..90_000, 1..12),
            in_memory in 0_usize..12,
            at in proptest::collection::vec(0_usize..600_000, 8),
            limit in 0_usize..2_000_000,
        ) {
            let file = tempfile::tempfile().unwrap();
            let file = SpillFile::new(file.into(), 64 << 20, SpillMetrics::default());
            let mut pieces = KeptPieces::default();
            pieces.allow_spill(&Rc::new(file), limit);
            let mut all = Vec::new();
            for (idx, length) in lengths.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|byte| (byte ^ idx) as u8).collect();
                let fits = all.len() + piece.len() <= limit;
                match idx < in_memory {
                    true => pieces.push_copy(&piece),
                    false => prop_assert_eq!(pieces.spill(&piece), fits),
                }
                if idx >= in_memory && !fits {
                    break;
                }
                all.extend_from_slice(&piece);
                prop_assert_eq!(pieces.bytes(), all.len());
            }
            for at in at {
                let rest = all.get(at..).unwrap_or_default();
                match pieces.at(at).unwrap() {
                    Some(found) => prop_assert!(!found.is_empty() && rest.starts_with(&found)),
                    None => prop_assert!(rest.is_empty()),
                }
            }
            let mut seen = Vec::new();
            while let Some(piece) = pieces.at(seen.len()).unwrap() {
                seen.extend_from_slice(&piece);
            }
            prop_assert!(seen == all);
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
