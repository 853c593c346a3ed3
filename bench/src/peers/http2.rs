//! HTTP/2 for a client with one request under way on a connection: requests are bytes that are made once, and of responses
//! it reads whether the status is 200 and where they end.

use super::certificates::NAME;
use super::framing::Progress;

/// First bytes of a client: windows that no case fills, and no pushes.
pub(super) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut settings = Vec::new();
    for (setting, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, LARGEST_WINDOW)] {
        settings.extend(u16::to_be_bytes(setting));
        settings.extend(u32::to_be_bytes(value));
    }
    frame(&mut bytes, SETTINGS, 0, 0, &settings);
    let more = u32::to_be_bytes(LARGEST_WINDOW - FIRST_WINDOW);
    frame(&mut bytes, WINDOW_UPDATE, 0, 0, &more);
    bytes
}

/// Whether the peer is to keep the fields of a request in its table, as browsers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    Kept,
    /// The request can be sent again and again.
    NotKept,
}

/// A GET without a body. The stream is still to be [numbered](number).
pub(super) fn get(scheme: &str, path: &str, headers: &[(&str, &str)], fields: Fields) -> Vec<u8> {
    // RFC 7541 §6.2.1 and §6.2.2, with names of the static table (appendix A).
    let literal = match fields {
        Fields::Kept => 0x40,
        Fields::NotKept => 0x00,
    };
    let mut block = vec![0x82, if scheme == "https" { 0x87 } else { 0x86 }];
    block.push(literal | 0x04);
    text(&mut block, path);
    block.push(literal | 0x01);
    text(&mut block, NAME);
    for (name, value) in headers {
        block.push(literal);
        text(&mut block, name);
        text(&mut block, value);
    }
    let mut bytes = Vec::new();
    frame(&mut bytes, HEADERS, END_STREAM | END_HEADERS, 0, &block);
    bytes
}

/// Gives the request in these bytes its stream: 1, 3, 5 and so on.
pub(super) fn number(request: &mut [u8], stream: u32) {
    request[5..HEAD_LEN].copy_from_slice(&stream.to_be_bytes());
}

/// RFC 7541 §5.2, of less than 127 bytes, not compressed.
fn text(block: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127);
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// The peer's side of a connection, read frame by frame.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// A frame of which more is to come.
    pending: Vec<u8>,
    /// Whether the present response has begun, with a 200.
    has_begun: bool,
}

impl Conversation {
    /// Takes what has come. Frames that answer the peer's are added to `answers`.
    pub(super) fn take(&mut self, piece: &[u8], answers: &mut Vec<u8>) -> Progress {
        self.pending.extend_from_slice(piece);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        let mut progress = Progress::NotYet;
        while let Some((head, behind)) = rest.split_at_checked(HEAD_LEN) {
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, behind)) = behind.split_at_checked(len) else {
                break;
            };
            rest = behind;
            match self.read(head[3], head[4], payload, answers) {
                Progress::NotYet => {}
                Progress::Bad => return Progress::Bad,
                done @ Progress::Done { .. } => progress = done,
            }
        }
        self.pending = rest.to_vec();
        progress
    }

    fn read(&mut self, kind: u8, flags: u8, payload: &[u8], answers: &mut Vec<u8>) -> Progress {
        match kind {
            HEADERS if !self.has_begun => {
                // A table may be told to be smaller before the first field.
                let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                if first != Some(&STATUS_200) || flags & END_HEADERS == 0 {
                    return Progress::Bad;
                }
                self.has_begun = true;
            }
            HEADERS | DATA if self.has_begun => {}
            SETTINGS if flags & ACK == 0 => frame(answers, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(answers, PING, ACK, 0, payload),
            SETTINGS | PING | WINDOW_UPDATE => {}
            // RST_STREAM, GOAWAY, and what such a response has not.
            _ => return Progress::Bad,
        }
        if [HEADERS, DATA].contains(&kind) && flags & END_STREAM != 0 {
            self.has_begun = false;
            return Progress::Done { closes: false };
        }
        Progress::NotYet
    }
}

/// Length of a frame's head.
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const FIRST_WINDOW: u32 = 65_535;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// `:status: 200`, the static table's.
const STATUS_200: u8 = 0x88;

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS, then a response whose table is made smaller first, then its data in two frames.
    fn said() -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x20, STATUS_200]);
        frame(&mut bytes, DATA, 0, 1, b"hello");
        frame(&mut bytes, DATA, END_STREAM, 1, b"");
        bytes
    }

    #[test]
    fn a_response_may_come_in_any_pieces() {
        let said = said();
        for cut in 0..said.len() {
            let (mut conversation, mut answers) = (Conversation::default(), Vec::new());
            let first = conversation.take(&said[..cut], &mut answers);
            assert_eq!(first, Progress::NotYet, "{cut}");
            let last = conversation.take(&said[cut..], &mut answers);
            assert_eq!(last, Progress::Done { closes: false }, "{cut}");
            assert_eq!(answers, [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn what_is_no_good_response_is_bad() {
        for (kind, payload) in [
            (HEADERS, &[0x8d][..]),
            (DATA, b"a"),
            (3, &[0; 4]),
            (7, &[0; 8]),
        ] {
            let mut bytes = Vec::new();
            frame(&mut bytes, kind, END_HEADERS, 1, payload);
            let progress = Conversation::default().take(&bytes, &mut Vec::new());
            assert_eq!(progress, Progress::Bad, "{kind}");
        }
    }
}
