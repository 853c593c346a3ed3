//! Bytes that go on in the place of a chunk, piece by piece.

use castling_sdk::Result;

/// Bytes that go on, of which a full piece is sent at once: what a chunk becomes need fit neither into memory nor into `limits.body`.
pub(crate) struct Pieces<'p> {
    /// The piece that is not full yet.
    rest: &'p mut Vec<u8>,
    emit: &'p mut dyn FnMut(&[u8]) -> Result<()>,
}

impl<'p> Pieces<'p> {
    /// Bytes of the longest piece. A chunk whose replacements are about as long as what they replace fits one, which costs no more than the chunk did.
    pub(crate) const MOST_BYTES: usize = 128 * 1024;

    /// `rest` is what is left at the end, for the caller to send.
    pub(crate) fn new(rest: &'p mut Vec<u8>, emit: &'p mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        rest.clear();
        Self { rest, emit }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while bytes.len() > Self::MOST_BYTES - self.rest.len() {
            let (fitting, others) = bytes.split_at(Self::MOST_BYTES - self.rest.len());
            self.rest.extend_from_slice(fitting);
            (self.emit)(self.rest)?;
            self.rest.clear();
            bytes = others;
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_is_longer_than_one_may_be() {
        let most = Pieces::MOST_BYTES;
        for lengths in [&[1, 2][..], &[most], &[1, most], &[3 * most + 1, 5, most]] {
            let bytes: Vec<u8> = (0..lengths.iter().sum()).map(|idx| idx as u8).collect();
            let (mut sent, mut rest) = (Vec::new(), vec![7]);
            let mut emit = |piece: &[u8]| {
                assert_eq!(piece.len(), most);
                sent.extend_from_slice(piece);
                Ok(())
            };
            let mut pieces = Pieces::new(&mut rest, &mut emit);
            let mut left = &*bytes;
            for length in lengths {
                let (part, others) = left.split_at(*length);
                pieces.push(part).unwrap();
                left = others;
            }
            assert!(rest.len() <= most);
            assert!([sent, rest].concat() == bytes, "{lengths:?}");
        }
    }
}
