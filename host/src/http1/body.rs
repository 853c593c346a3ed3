//! Reading a body.

use bytes::{Buf as _, Bytes, BytesMut};

use super::head::has_blank_line;
use super::limits::{MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES};
use super::trailers::parse_trailers;
use super::{BodyError, Framing};
use crate::message::{Headers, Piece};

/// Cuts a body into the pieces that were read, without a copy.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of chunk extensions and padding so far.
    extension_bytes: usize,
    trailers: Option<Headers>,
}

impl BodyDecoder {
    pub fn new(length: Framing) -> Self {
        let state = match length {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(remaining) => State::Sized { remaining },
            Framing::Chunked => State::Line(Line::FIRST),
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extension_bytes: 0,
            trailers: None,
        }
    }

    /// Takes the next piece off the front of `buf`. Call it until it is not [`Piece::Data`], then read more.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Piece, BodyError> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                State::Line(_) => {
                    self.read_lines(buf)?;
                    if matches!(self.state, State::Line(_)) {
                        return Ok(Piece::NeedMore);
                    }
                }
                State::Trailers { scanned } => {
                    if !self.read_trailers(scanned, buf)? {
                        return Ok(Piece::NeedMore);
                    }
                }
                State::Sized { .. } | State::Chunk { .. } | State::UntilClose if buf.is_empty() => {
                    return Ok(Piece::NeedMore);
                }
                State::Sized { remaining } => {
                    let (data, remaining) = take(buf, remaining);
                    self.state = match remaining {
                        0 => State::End,
                        remaining => State::Sized { remaining },
                    };
                    return Ok(Piece::Data(data));
                }
                State::Chunk { remaining } => {
                    let (data, remaining) = take(buf, remaining);
                    self.state = match remaining {
                        0 => State::Line(Line::DataEnd),
                        remaining => State::Chunk { remaining },
                    };
                    return Ok(Piece::Data(data));
                }
                State::UntilClose => return Ok(Piece::Data(buf.split().freeze())),
            }
        }
    }

    /// The connection ended: the right end for [`Framing::UntilClose`], too early for the others (RFC 9112 §8).
    pub fn finish_at_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End => Ok(()),
            State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            State::Sized { .. } | State::Line(_) | State::Chunk { .. } | State::Trailers { .. } => {
                Err(BodyError::Truncated)
            }
        }
    }

    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// The fields after a chunked body, once; `None` when there were none. Without those that may not stand there.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take()
    }

    /// Reads what stands between the bytes of two chunks.
    fn read_lines(&mut self, buf: &mut BytesMut) -> Result<(), BodyError> {
        let mut read = 0;
        while let (State::Line(line), Some(&b)) = (self.state, buf.get(read)) {
            if matches!(line, Line::Padding { .. } | Line::Extension { .. }) {
                self.extension_bytes += 1;
                if self.extension_bytes > MAX_EXTENSION_BYTES {
                    return Err(BodyError::ExtensionsTooLong);
                }
            }
            self.state = line.next(b)?;
            read += 1;
        }
        buf.advance(read);
        Ok(())
    }

    /// Reads the trailer section, whole. False: it is not all there.
    fn read_trailers(&mut self, scanned: usize, buf: &mut BytesMut) -> Result<bool, BodyError> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::End;
            return Ok(true);
        }
        let window = &buf[..buf.len().min(MAX_TRAILER_BYTES)];
        // Two bytes back, as the blank line may lie across two reads.
        if !has_blank_line(&window[scanned.saturating_sub(2)..]) {
            if window.len() == MAX_TRAILER_BYTES {
                return Err(BodyError::TrailersTooLarge);
            }
            self.state = State::Trailers {
                scanned: window.len(),
            };
            return Ok(false);
        }
        let (section_bytes, trailers) = parse_trailers(window)?;
        buf.advance(section_bytes);
        self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        self.state = State::End;
        Ok(true)
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Sized {
        remaining: u64,
    },
    UntilClose,
    Line(Line),
    Chunk {
        remaining: u64,
    },
    /// Bytes that are known to hold no blank line.
    Trailers {
        scanned: usize,
    },
    End,
}

/// Owner of the next byte, between the bytes of two chunks.
#[derive(Clone, Copy, Debug)]
enum Line {
    Size {
        size: u64,
        digits: u32,
    },
    Padding {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// The LF after the CR.
    SizeEnd {
        size: u64,
    },
    DataEnd,
    /// The LF after the CR.
    DataEndLineFeed,
}

impl Line {
    const FIRST: Self = Self::Size { size: 0, digits: 0 };

    /// Moves one byte on. RFC 9112 §7.1, with CR LF exactly: a line end that only one of two neighbours sees makes two
    /// messages out of one. A byte at a time, so that it does not matter how the bytes were cut by the network.
    fn next(self, b: u8) -> Result<State, BodyError> {
        Ok(State::Line(match (self, b) {
            (Self::Size { size, digits }, _) if b.is_ascii_hexdigit() => {
                // 16 digits are 64 bits.
                if digits == 16 {
                    return Err(BodyError::ChunkSize);
                }
                Self::Size {
                    size: size << 4 | hex_value(b),
                    digits: digits + 1,
                }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(BodyError::ChunkSize),
            (
                Self::Size { size, .. } | Self::Padding { size } | Self::Extension { size },
                b'\r',
            ) => Self::SizeEnd { size },
            (Self::Size { size, .. } | Self::Padding { size }, b';') => Self::Extension { size },
            // Not in the grammar without an extension, but written by servers that reserve room for the size.
            (Self::Size { size, .. } | Self::Padding { size }, b' ' | b'\t') => {
                Self::Padding { size }
            }
            (Self::Size { .. } | Self::Padding { .. }, _) => return Err(BodyError::ChunkSize),
            // RFC 9112 §7.1.1: unknown extensions are ignored, and we know none.
            (Self::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => Self::Extension { size },
            (Self::Extension { .. }, _) => return Err(BodyError::ChunkExtension),
            (Self::SizeEnd { size: 0 }, b'\n') => return Ok(State::Trailers { scanned: 0 }),
            (Self::SizeEnd { size }, b'\n') => return Ok(State::Chunk { remaining: size }),
            (Self::DataEnd, b'\r') => Self::DataEndLineFeed,
            (Self::DataEndLineFeed, b'\n') => Self::FIRST,
            (Self::SizeEnd { .. } | Self::DataEnd | Self::DataEndLineFeed, _) => {
                return Err(BodyError::ChunkEnd);
            }
        }))
    }
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// At most `limit` bytes of the buffer, and what is left of the limit.
fn take(buf: &mut BytesMut, limit: u64) -> (Bytes, u64) {
    let len = usize::try_from(limit).map_or(buf.len(), |limit| limit.min(buf.len()));
    (buf.split_to(len).freeze(), limit - len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::limits::MAX_TRAILERS;
    use proptest::prelude::*;

    /// The body in `input`, its trailers, and what is left of the input.
    type Outcome = Result<(Vec<u8>, Option<Headers>, Vec<u8>), BodyError>;

    /// Decodes pieces as if each was a read of its own, then the end of the connection.
    fn decode<'a>(length: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut decoder = BodyDecoder::new(length);
        let mut buf = BytesMut::new();
        let mut body = Vec::new();
        for piece in pieces {
            buf.extend_from_slice(piece);
            while let Piece::Data(data) = decoder.decode(&mut buf)? {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
        }
        decoder.finish_at_eof()?;
        Ok((body, decoder.take_trailers(), buf.to_vec()))
    }

    fn chunked(input: &[u8]) -> Outcome {
        let whole = decode(Framing::Chunked, [input]);
        assert_eq!(decode(Framing::Chunked, input.chunks(1)), whole);
        whole
    }

    fn chunked_error(input: &[u8]) -> BodyError {
        chunked(input).expect_err("refused")
    }

    fn trailer(input: &str) -> Option<Headers> {
        chunked(format!("0\r\n{input}\r\n").as_bytes())
            .expect("valid")
            .1
    }

    #[test]
    fn a_sized_body_ends_where_it_says() {
        assert_eq!(
            decode(Framing::Length(3), [&b"ab"[..], b"cGET"]),
            Ok((b"abc".to_vec(), None, b"GET".to_vec()))
        );
        assert_eq!(
            decode(Framing::Length(3), [&b"ab"[..]]),
            Err(BodyError::Truncated)
        );
        let mut decoder = BodyDecoder::new(Framing::Length(3));
        assert_eq!(
            decoder.decode(&mut BytesMut::from("a")),
            Ok(Piece::Data("a".into()))
        );
        assert_eq!(decoder.decode(&mut BytesMut::new()), Ok(Piece::NeedMore));
    }

    #[test]
    fn no_body_ends_at_once() {
        for length in [Framing::None, Framing::Length(0)] {
            assert!(BodyDecoder::new(length).is_end());
            assert_eq!(
                decode(length, [&b"GET"[..]]),
                Ok((vec![], None, b"GET".to_vec()))
            );
        }
    }

    #[test]
    fn a_body_until_close_ends_at_the_end_of_the_connection() {
        assert_eq!(
            decode(Framing::UntilClose, [&b"ab"[..], b"", b"c"]),
            Ok((b"abc".to_vec(), None, vec![]))
        );
    }

    #[test]
    fn chunks_are_joined_and_the_next_message_is_left() {
        let input = b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n1 \r\nz\r\n000\r\n\r\nGET /";
        assert_eq!(
            chunked(input),
            Ok((b"abc0123456789z".to_vec(), None, b"GET /".to_vec()))
        );
    }

    #[test]
    fn a_chunked_body_that_stops_is_truncated() {
        let input = b"3\r\nabc\r\n0\r\na: b\r\n\r\n";
        for end in 0..input.len() {
            assert_eq!(chunked_error(&input[..end]), BodyError::Truncated, "{end}");
        }
    }

    #[test]
    fn chunk_sizes_are_hex_digits_that_fit() {
        for bad in [
            "\r\n",
            ";a\r\n",
            " 3\r\n",
            "+3\r\n",
            "-3\r\n",
            "0x3\r\n",
            "3g\r\n",
            "3 3\r\n",
            "3\0\r\n",
            "3\u{b}\r\n",
        ] {
            assert_eq!(
                chunked_error(bad.as_bytes()),
                BodyError::ChunkSize,
                "{bad:?}"
            );
        }
        assert_eq!(
            chunked_error(b"00000000000000003\r\n"),
            BodyError::ChunkSize
        );
        assert_eq!(
            chunked_error(b"10000000000000003\r\n"),
            BodyError::ChunkSize
        );
        assert_eq!(
            chunked_error(b"ffffffffffffffff\r\nabc"),
            BodyError::Truncated
        );
    }

    #[test]
    fn a_bare_line_feed_or_carriage_return_ends_no_line() {
        assert_eq!(chunked_error(b"3\nabc\r\n0\r\n\r\n"), BodyError::ChunkSize);
        assert_eq!(
            chunked_error(b"3;a\nabc\r\n0\r\n\r\n"),
            BodyError::ChunkExtension
        );
        assert_eq!(chunked_error(b"3\rabc"), BodyError::ChunkEnd);
        assert_eq!(chunked_error(b"3;a\rabc"), BodyError::ChunkEnd);
        assert_eq!(chunked_error(b"3\r\nabc\n0\r\n\r\n"), BodyError::ChunkEnd);
        assert_eq!(
            chunked_error(b"3\r\nabcd\r\n0\r\n\r\n"),
            BodyError::ChunkEnd
        );
        assert_eq!(chunked_error(b"3\r\nabc\r0\r\n\r\n"), BodyError::ChunkEnd);
        assert_eq!(chunked_error(b"0\r\na: b\n\r\n"), BodyError::Trailers);
        assert_eq!(chunked_error(b"0\r\na: b\r\n\n"), BodyError::Trailers);
        assert_eq!(chunked_error(b"0\r\na: b\n\n"), BodyError::Trailers);
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
        assert!(chunked(format!("{}0\r\n\r\n", chunk.repeat(16)).as_bytes()).is_ok());
        assert_eq!(
            chunked_error(chunk.repeat(17).as_bytes()),
            BodyError::ExtensionsTooLong
        );
        assert_eq!(
            chunked_error("1".to_owned().as_bytes()),
            BodyError::Truncated
        );
        assert_eq!(
            chunked_error(format!("1{}", " ".repeat(20_000)).as_bytes()),
            BodyError::ExtensionsTooLong
        );
    }

    #[test]
    fn trailers_are_kept_unless_they_frame_route_or_authenticate() {
        assert_eq!(trailer(""), None);
        let trailers = trailer("Grpc-Status: 0\r\nContent-Length: 5\r\nX-Sum: a\r\n").expect("two");
        let names: Vec<_> = trailers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"grpc-status"[..], b"x-sum"]);
        for name in [
            "Transfer-Encoding",
            "host",
            "Authorization",
            "X-Forwarded-For",
            "Connection",
        ] {
            assert_eq!(trailer(&format!("{name}: x\r\n")), None, "{name}");
        }
    }

    #[test]
    fn trailers_are_bounded_in_number_and_size() {
        assert_eq!(
            trailer(&"a: b\r\n".repeat(MAX_TRAILERS))
                .expect("all")
                .len(),
            MAX_TRAILERS
        );
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS + 1));
        assert_eq!(chunked_error(many.as_bytes()), BodyError::TrailersTooLarge);
        let large = format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_TRAILER_BYTES));
        assert_eq!(chunked_error(large.as_bytes()), BodyError::TrailersTooLarge);
    }

    #[test]
    fn malformed_trailers_are_refused() {
        for bad in [
            "a : b",
            "a",
            ": b",
            " a: b",
            "a: b\r\n c",
            "a: \0",
            "a: b\rc",
        ] {
            let input = format!("0\r\n{bad}\r\n\r\n");
            assert_eq!(
                chunked_error(input.as_bytes()),
                BodyError::Trailers,
                "{bad:?}"
            );
        }
    }

    proptest! {
        /// Mostly bytes that mean something to the decoder, or it would not get far.
        #[test]
        fn any_bytes_in_any_pieces_decode_the_same(
            input in prop::collection::vec(
                prop_oneof![4 => prop::sample::select(&b"0123afF;= \t\r\n:"[..]), 1 => any::<u8>()], 0..200),
            cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let whole = decode(Framing::Chunked, [&input[..]]);
            prop_assert_eq!(&decode(Framing::Chunked, input.chunks(1)), &whole);
            prop_assert_eq!(&decode(Framing::Chunked, cut(&input, cuts)), &whole);
        }

        #[test]
        fn a_valid_body_in_any_pieces_is_what_was_sent(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            cuts in prop::collection::vec(0..700_usize, 0..8),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\nx: y\r\n\r\nrest");
            let (body, trailers, rest) = decode(Framing::Chunked, cut(&input, cuts)).expect("valid");
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(trailers.map(|it| it.len()), Some(1));
            prop_assert_eq!(rest, b"rest");
        }
    }

    fn cut(input: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.extend([0, input.len()]);
        cuts.retain(|&at| at <= input.len());
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|ends| &input[ends[0]..ends[1]])
            .collect()
    }
}
