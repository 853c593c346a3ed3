//! Bodies that are made while they are sent and compared while they are read, so that 64 MiB take no memory.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};

/// Any body that the tests send.
pub type AnyBody = BoxBody<Bytes, BodyError>;

/// Why a body could not be sent to its end.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// These bytes, with a Content-Length.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// No bytes.
pub fn empty() -> AnyBody {
    full(Bytes::new())
}

/// Bytes without end that repeat with a period.
#[derive(Clone, Debug)]
pub struct Stuff {
    twice: Bytes,
    period: usize,
}

impl Stuff {
    /// Bytes without a pattern. The period is a prime, so that a piece that is lost, doubled or moved shows.
    pub fn noise() -> Self {
        const PERIOD: usize = 65_521;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = (0..PERIOD).map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        });
        Self::repeating(&bytes.collect::<Vec<u8>>())
    }

    /// This unit, again and again.
    pub fn repeating(unit: &[u8]) -> Self {
        assert!(!unit.is_empty());
        Self {
            twice: Bytes::from(unit.repeat(2)),
            period: unit.len(),
        }
    }

    /// At most `limit` of the bytes from `offset` on; at least one.
    fn piece(&self, offset: u64, limit: u64) -> Bytes {
        let start = usize::try_from(offset % self.period as u64).expect("less than the period");
        let len = usize::try_from(limit).map_or(self.period, |limit| limit.min(self.period));
        self.twice.slice(start..start + len)
    }

    /// A body of the bytes from `from` on, `len` of them, with a Content-Length.
    pub fn sized(&self, from: u64, len: u64) -> AnyBody {
        Generated {
            stuff: self.clone(),
            next: from,
            end: from + len,
            sized: true,
        }
        .boxed()
    }

    /// Body without a Content-Length: it is sent in chunks.
    pub fn chunked(&self, from: u64, len: u64) -> AnyBody {
        Generated {
            stuff: self.clone(),
            next: from,
            end: from + len,
            sized: false,
        }
        .boxed()
    }

    /// Compares what is read with the bytes from `from` on.
    pub fn expect(&self, from: u64) -> Compare {
        Compare {
            stuff: self.clone(),
            from,
            next: from,
        }
    }
}

struct Generated {
    stuff: Stuff,
    next: u64,
    end: u64,
    sized: bool,
}

impl Body for Generated {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let left = self.end - self.next;
        if left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.stuff.piece(self.next, left);
        self.next += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.end
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact(self.end - self.next)
        } else {
            SizeHint::default()
        }
    }
}

/// Compares bytes as they come.
#[derive(Debug)]
pub struct Compare {
    stuff: Stuff,
    from: u64,
    next: u64,
}

impl Compare {
    /// `Err` says where the bytes differ, counted from the body's begin.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let expected = self.stuff.piece(self.next, bytes.len() as u64);
            let (head, rest) = bytes.split_at(expected.len());
            if head != expected {
                let differs = head
                    .iter()
                    .zip(&expected)
                    .take_while(|(a, b)| a == b)
                    .count();
                return Err(format!("byte {} differs", self.compared() + differs as u64));
            }
            self.next += head.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// How many bytes were compared.
    pub fn compared(&self) -> u64 {
        self.next - self.from
    }

    /// Reads a body to its end and compares it; it must be `len` bytes long.
    pub async fn whole<B>(mut self, body: B, len: u64) -> Result<(), String>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let mut body = std::pin::pin!(body);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| format!("after {} bytes: {error}", self.compared()))?;
            if let Some(data) = frame.data_ref() {
                self.push(data)?;
            }
        }
        if self.compared() == len {
            Ok(())
        } else {
            Err(format!("{} bytes, not {len}", self.compared()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_compares_equal_and_a_changed_byte_does_not() {
        let stuff = Stuff::noise();
        crate::block_on(async {
            assert_eq!(
                stuff
                    .expect(77)
                    .whole(stuff.sized(77, 300_000), 300_000)
                    .await,
                Ok(())
            );
            let shifted = stuff
                .expect(78)
                .whole(stuff.chunked(77, 300_000), 300_000)
                .await;
            assert!(shifted.is_err());
            let short = stuff
                .expect(77)
                .whole(stuff.chunked(77, 299_999), 300_000)
                .await;
            assert_eq!(short, Err("299999 bytes, not 300000".to_owned()));
        });
    }
}
