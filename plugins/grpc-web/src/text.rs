//! Bodies in base64 (`application/grpc-web-text`), in pieces of any size. Each message may be encoded on its own, so that padding stands in the
//! midst of a body.

use castling_sdk::{Deserialize, Serialize};
use data_encoding::BASE64;

/// Decodes a body piece by piece.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Decoder {
    /// Begin of four characters that have not all come.
    rest: Vec<u8>,
}

/// Bytes that are no base64, or a body that ends within four characters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Characters that three bytes, or less with padding, are written as.
const GROUP: usize = 4;

impl Decoder {
    /// Appends what this piece decodes to. Line ends are passed over.
    pub(crate) fn push(
        &mut self,
        piece: &[u8],
        is_last: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), NotBase64> {
        let is_text = |byte: &&u8| !matches!(**byte, b'\r' | b'\n');
        self.rest.extend(piece.iter().filter(is_text));
        let whole = self.rest.len() - self.rest.len() % GROUP;
        let mut from = 0;
        while from < whole {
            // Up to the next padding, which ends what was encoded at once.
            let to = self.rest[from..whole]
                .chunks(GROUP)
                .position(|group| group.contains(&b'='))
                .map_or(whole, |at| from + (at + 1) * GROUP);
            let decoded = BASE64.decode(&self.rest[from..to]);
            out.extend(decoded.map_err(|_| NotBase64)?);
            from = to;
        }
        self.rest.drain(..whole);
        match is_last && !self.rest.is_empty() {
            true => Err(NotBase64),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(pieces: &[&[u8]]) -> Result<Vec<u8>, NotBase64> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for (i, piece) in pieces.iter().enumerate() {
            decoder.push(piece, i + 1 == pieces.len(), &mut out)?;
        }
        Ok(out)
    }

    #[test]
    fn padding_may_stand_in_the_midst() {
        assert_eq!(decoded(&[b"YQ==YmM=ZGVm"]), Ok(b"abcdef".to_vec()));
        assert_eq!(
            decoded(&[b"YQ", b"==Y", b"", b"mM=\r\n"]),
            Ok(b"abc".to_vec())
        );
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [&b"Y"[..], b"YQ=", b"Y?==", b"====", b"Y=Q="] {
            assert_eq!(decoded(&[text]), Err(NotBase64), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_the_whole(
            messages: Vec<Vec<u8>>,
            cut in 1_usize..9,
        ) {
            let text: String = messages.iter().map(|message| BASE64.encode(message)).collect();
            let mut pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            pieces.push(b"");
            prop_assert_eq!(decoded(&pieces), Ok(messages.concat()));
        }
    }
}
