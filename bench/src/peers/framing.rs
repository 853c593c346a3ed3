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
}

/// What a piece has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NotYet,
    /// The response is whole, and was a 200.
    Done {
        closes: bool,
    },
    /// It is none that this client reads: another status, no length, more bytes than were announced.
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
            Self::Head(bytes) if bytes.is_empty() => match Head::parse(piece) {
                Ok(Some(head)) => self.behind(&head, piece.len()),
                Ok(None) => {
                    bytes.extend_from_slice(piece);
                    Progress::NotYet
                }
                Err(()) => Progress::Bad,
            },
            Self::Head(bytes) => {
                bytes.extend_from_slice(piece);
                let len = bytes.len();
                match Head::parse(bytes) {
                    Ok(Some(head)) => self.behind(&head, len),
                    Ok(None) => Progress::NotYet,
                    Err(()) => Progress::Bad,
                }
            }
        }
    }

    fn behind(&mut self, head: &Head, have: usize) -> Progress {
        let closes = head.closes;
        match (head.len + head.body_len).checked_sub(have) {
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
    body_len: usize,
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
        let mut closes = false;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                body_len = std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|text| text.parse().ok());
            }
            if header.name.eq_ignore_ascii_case("connection") {
                closes = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        let body_len = body_len.ok_or(())?;
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
