//! Where a response ends, for the client of the open loop.

/// A response that is being read.
#[derive(Debug)]
pub(super) enum Reading {
    Head(Vec<u8>),
    /// Bytes that are still to come, and whether the connection ends with them.
    Body {
        missing: usize,
        closes: bool,
    },
    /// Chunks, of which nothing is looked at but the end; the last bytes that have come.
    Chunks {
        tail: Vec<u8>,
        closes: bool,
    },
}

/// How a body of chunks ends. The origin's bodies have nothing like it in them.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Result of one more piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NotYet,
    /// The response is whole, and was a 200.
    Done {
        closes: bool,
    },
    /// A response that this client does not read: another status, no length, more bytes than were announced.
    Bad,
}

impl Reading {
    pub(super) fn begin() -> Self {
        Self::Head(Vec::new())
    }

    /// Whether no byte has come yet.
    pub(super) fn is_untouched(&self) -> bool {
        matches!(self, Self::Head(bytes) if bytes.is_empty())
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> Progress {
        match self {
            Self::Body { missing, closes } => match missing.checked_sub(piece.len()) {
                Some(0) => Progress::Done { closes: *closes },
                Some(rest) => {
                    *missing = rest;
                    Progress::NotYet
                }
                None => Progress::Bad,
            },
            Self::Chunks { tail, closes } => {
                tail.extend_from_slice(&piece[piece.len().saturating_sub(LAST_CHUNK.len())..]);
                tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
                match tail == LAST_CHUNK {
                    true => Progress::Done { closes: *closes },
                    false => Progress::NotYet,
                }
            }
            Self::Head(bytes) if bytes.is_empty() => match Head::parse(piece) {
                Ok(Some(head)) => self.behind(&head, piece),
                Ok(None) => {
                    bytes.extend_from_slice(piece);
                    Progress::NotYet
                }
                Err(()) => Progress::Bad,
            },
            Self::Head(bytes) => {
                bytes.extend_from_slice(piece);
                let bytes = std::mem::take(bytes);
                match Head::parse(&bytes) {
                    Ok(Some(head)) => self.behind(&head, &bytes),
                    Ok(None) => {
                        *self = Self::Head(bytes);
                        Progress::NotYet
                    }
                    Err(()) => Progress::Bad,
                }
            }
        }
    }

    fn behind(&mut self, head: &Head, have: &[u8]) -> Progress {
        let closes = head.closes;
        let Some(body_len) = head.body_len else {
            *self = Self::Chunks {
                tail: Vec::new(),
                closes,
            };
            // Where there is but the last chunk, the line break before it is the head's.
            return self.take(&have[head.len - 2..]);
        };
        match (head.len + body_len).checked_sub(have.len()) {
            Some(0) => Progress::Done { closes },
            Some(missing) => {
                *self = Self::Body { missing, closes };
                Progress::NotYet
            }
            None => Progress::Bad,
        }
    }
}

struct Head {
    len: usize,
    /// None: it comes in chunks.
    body_len: Option<usize>,
    closes: bool,
}

impl Head {
    /// None when it is not whole yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(len) = response.parse(bytes).map_err(drop)? else {
            return Ok(None);
        };
        if response.code != Some(200) {
            return Err(());
        }
        let mut body_len = None;
        let (mut chunked, mut closes) = (false, false);
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                body_len = std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|text| text.parse().ok());
            }
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = header.value.eq_ignore_ascii_case(b"chunked");
            }
            if header.name.eq_ignore_ascii_case("connection") {
                closes = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        if body_len.is_some() == chunked {
            return Err(()); // neither, or both
        }
        Ok(Some(Self {
            len,
            body_len,
            closes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

    #[test]
    fn a_response_may_come_in_any_pieces() {
        for cut in 0..REPLY.len() {
            let mut reading = Reading::begin();
            if cut > 0 {
                assert_eq!(reading.take(&REPLY[..cut]), Progress::NotYet, "{cut}");
            }
            assert_eq!(
                reading.take(&REPLY[cut..]),
                Progress::Done { closes: true },
                "{cut}"
            );
        }
    }

    #[test]
    fn chunks_end_with_the_last() {
        let reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let empty = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        for whole in [&reply[..], empty] {
            for cut in 1..whole.len() {
                let mut reading = Reading::begin();
                assert_eq!(reading.take(&whole[..cut]), Progress::NotYet, "{cut}");
                let done = Progress::Done { closes: false };
                assert_eq!(reading.take(&whole[cut..]), done, "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_good_response_is_bad() {
        for reply in [
            &b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            b"what?\r\n\r\n",
        ] {
            assert_eq!(Reading::begin().take(reply), Progress::Bad);
        }
    }
}
