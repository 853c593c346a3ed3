//! Bounds of frames that cost the gateway work and bring a client nothing.

use std::cell::Cell;
use std::mem;
use std::time::Instant;

use h2::Reason;

use crate::runtime::clock;

/// Allowance of a client for frames that carry neither a request nor a body: pings, settings, priorities, windows, empty data,
/// resets. Each takes a token; time, requests and what the client is sent bring some back. A client that has none left floods
/// (CVE-2019-9512 and its kin, CVE-2023-44487), and its connection ends.
pub(super) struct Allowance {
    control: Bucket,
    resets: Bucket,
    is_used_up: Cell<bool>,
}

/// Tokens that refill with time.
struct Bucket {
    tokens: Cell<u32>,
    most: u32,
    per_second: u32,
    /// When it was last refilled.
    since: Cell<Instant>,
}

/// Reader of the heads of frames in a stream of bytes that comes in pieces.
#[derive(Default)]
pub(super) struct FrameHeads {
    head: [u8; HEAD_BYTES],
    /// Bytes of the next head that have come.
    head_len: usize,
    /// Bytes of the frame's payload that are still to come.
    payload_left: usize,
    /// A field block has begun, and the frame with its end has not.
    is_in_block: bool,
    /// The payload that is to come is of a field block.
    is_of_block: bool,
    /// The first frame has come.
    has_begun: bool,
}

/// Frame whose head alone says that the connection has to end. The codec would end it as well, but with PROTOCOL_ERROR whatever it
/// is, and it takes settings that come late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where its head begins in the bytes that were looked at; 0 where it has begun before.
    pub(super) at: usize,
    pub(super) reason: Reason,
}

/// Length, type, flags, stream (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;

/// Control frames at once, and as many a second for as long as it likes: a client that pings or opens windows eagerly stays far
/// below.
const CONTROL_FRAMES: u32 = 2000;
const CONTROL_FRAMES_A_SECOND: u32 = 100;

/// Resets of streams at once and a second, as nghttp2 bounds them (`nghttp2_option_set_stream_reset_rate_limit`: 1000 and 33).
const RESETS: u32 = 500;
const RESETS_A_SECOND: u32 = 33;

/// Control frames that a request may bring with it: a reset, a ping, windows of stream and connection.
const CONTROL_FRAMES_A_REQUEST: u32 = 4;

/// A client may open windows twice for each frame of data that it gets, and for each so many bytes.
const CONTROL_FRAMES_A_PIECE: u32 = 4;
const BYTES_A_CONTROL_FRAME: u64 = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Default for Allowance {
    fn default() -> Self {
        Self {
            control: Bucket::new(CONTROL_FRAMES, CONTROL_FRAMES_A_SECOND),
            resets: Bucket::new(RESETS, RESETS_A_SECOND),
            is_used_up: Cell::new(false),
        }
    }
}

impl Allowance {
    pub(super) fn is_used_up(&self) -> bool {
        self.is_used_up.get()
    }

    /// A response has reached its end: its client may reset another.
    pub(super) fn responded(&self) {
        self.resets.add(1);
    }

    /// A piece of a body was handed over to be sent.
    pub(super) fn sent(&self, bytes: u64) {
        if bytes > 0 {
            let windows = u32::try_from(bytes / BYTES_A_CONTROL_FRAME).unwrap_or(u32::MAX);
            self.control
                .add(windows.saturating_add(CONTROL_FRAMES_A_PIECE));
        }
    }

    fn frame(&self, kind: u8, flags: u8, length: usize) {
        let is_allowed = match kind {
            HEADERS => {
                self.control.add(CONTROL_FRAMES_A_REQUEST);
                true
            }
            DATA if length > 0 || flags & END_STREAM != 0 => true,
            RST_STREAM => self.resets.take(),
            _ => self.control.take(),
        };
        if !is_allowed {
            self.is_used_up.set(true);
        }
    }
}

impl Bucket {
    fn new(most: u32, per_second: u32) -> Self {
        Self {
            tokens: Cell::new(most),
            most,
            per_second,
            since: Cell::new(clock::now()),
        }
    }

    fn add(&self, tokens: u32) {
        let sum = self.tokens.get().saturating_add(tokens);
        self.tokens.set(sum.min(self.most));
    }

    /// False: there is none.
    fn take(&self) -> bool {
        if self.tokens.get() == 0 {
            self.refill();
        }
        let left = self.tokens.get().checked_sub(1);
        self.tokens.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Gives what the time since the last refill has brought. The clock is read only when the bucket is empty.
    fn refill(&self) {
        let now = clock::now();
        let passed = now.saturating_duration_since(self.since.get());
        let brought = passed
            .as_millis()
            .saturating_mul(u128::from(self.per_second))
            / 1000;
        if brought > 0 {
            self.since.set(now);
            self.add(u32::try_from(brought).unwrap_or(u32::MAX));
        }
    }
}

impl FrameHeads {
    /// Looks through the next bytes of the stream, up to a fault.
    pub(super) fn look(&mut self, whole: &[u8], allowance: &Allowance) -> Result<(), Fault> {
        let mut bytes = whole;
        while !bytes.is_empty() {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            bytes = &bytes[skipped..];
            let at = whole.len() - bytes.len();
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_BYTES {
                let begun = self.begin_frame(allowance);
                begun.map_err(|reason| Fault { at, reason })?;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, allowance: &Allowance) -> Result<(), Reason> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        // RFC 9113 §3.4: the preface ends with settings.
        if !mem::replace(&mut self.has_begun, true) && kind != SETTINGS {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !is_length_of(kind, flags, length) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.is_of_block = matches!(kind, HEADERS | CONTINUATION);
        if self.is_of_block {
            self.is_in_block = flags & END_HEADERS == 0;
        }
        allowance.frame(kind, flags, length);
        self.payload_left = length;
        self.head_len = 0;
        Ok(())
    }

    /// Whether a field block has begun to come and has not ended.
    pub(super) fn is_within_head(&self) -> bool {
        self.is_in_block || self.is_of_block && self.payload_left > 0
    }
}

/// Whether frames of this kind can be so long (RFC 9113 §6).
fn is_length_of(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        PRIORITY => length == 5,
        RST_STREAM | WINDOW_UPDATE => length == 4,
        SETTINGS => length.is_multiple_of(6) && (flags & ACK == 0 || length == 0),
        PING => length == 8,
        GOAWAY => length >= 8,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 0xff);
        frame
    }

    /// Reader behind the settings of the preface.
    fn begun() -> FrameHeads {
        let mut heads = FrameHeads::default();
        let settings = frame(SETTINGS, 0, 0);
        assert_eq!(heads.look(&settings, &Allowance::default()), Ok(()));
        heads
    }

    #[test]
    fn settings_come_first() {
        let first = |kind| FrameHeads::default().look(&frame(kind, 0, 8), &Allowance::default());
        let reason = Reason::PROTOCOL_ERROR;
        assert_eq!(first(PING), Err(Fault { at: 0, reason }));
        assert_eq!(first(HEADERS), Err(Fault { at: 0, reason }));
    }

    #[test]
    fn a_length_that_is_none_is_a_fault_at_its_frame() {
        let good = frame(PING, 0, 8);
        let reason = Reason::FRAME_SIZE_ERROR;
        for (kind, flags, length) in [
            (PRIORITY, 0, 4),
            (RST_STREAM, 0, 5),
            (SETTINGS, 0, 7),
            (SETTINGS, ACK, 6),
            (PING, 0, 9),
            (GOAWAY, 0, 7),
            (WINDOW_UPDATE, 0, 0),
        ] {
            let bytes = [good.clone(), frame(kind, flags, length)].concat();
            let fault = Err(Fault {
                at: good.len(),
                reason,
            });
            assert_eq!(begun().look(&bytes, &Allowance::default()), fault, "{kind}");
        }
    }

    #[test]
    fn pings_use_the_allowance_up_and_requests_give_some_back() {
        let allowance = Allowance::default();
        let mut heads = begun();
        for _ in 0..CONTROL_FRAMES {
            assert_eq!(heads.look(&frame(PING, 0, 8), &allowance), Ok(()));
        }
        assert!(!allowance.is_used_up());
        assert_eq!(
            heads.look(&frame(HEADERS, END_HEADERS, 3), &allowance),
            Ok(())
        );
        for _ in 0..CONTROL_FRAMES_A_REQUEST {
            assert_eq!(heads.look(&frame(PING, 0, 8), &allowance), Ok(()));
        }
        assert!(!allowance.is_used_up());
        for _ in 0..CONTROL_FRAMES {
            assert_eq!(heads.look(&frame(PING, 0, 8), &allowance), Ok(()));
        }
        assert!(allowance.is_used_up());
    }

    #[test]
    fn resets_are_counted_apart_and_a_response_gives_one_back() {
        let allowance = Allowance::default();
        let mut heads = begun();
        for _ in 0..RESETS {
            assert_eq!(heads.look(&frame(RST_STREAM, 0, 4), &allowance), Ok(()));
        }
        allowance.responded();
        assert_eq!(heads.look(&frame(RST_STREAM, 0, 4), &allowance), Ok(()));
        assert!(!allowance.is_used_up());
        for _ in 0..RESETS {
            assert_eq!(heads.look(&frame(RST_STREAM, 0, 4), &allowance), Ok(()));
        }
        assert!(allowance.is_used_up());
    }

    #[test]
    fn data_costs_nothing_unless_it_is_empty() {
        let allowance = Allowance::default();
        let mut heads = begun();
        for _ in 0..2 * CONTROL_FRAMES {
            assert_eq!(heads.look(&frame(DATA, 0, 1), &allowance), Ok(()));
            assert_eq!(heads.look(&frame(DATA, END_STREAM, 0), &allowance), Ok(()));
        }
        assert!(!allowance.is_used_up());
        for _ in 0..2 * CONTROL_FRAMES {
            assert_eq!(heads.look(&frame(DATA, 0, 0), &allowance), Ok(()));
        }
        assert!(allowance.is_used_up());
    }

    #[test]
    fn a_block_lasts_until_its_end() {
        let allowance = Allowance::default();
        let mut heads = begun();
        assert_eq!(heads.look(&frame(HEADERS, 0, 2), &allowance), Ok(()));
        assert!(heads.is_within_head());
        let end = frame(CONTINUATION, END_HEADERS, 2);
        assert_eq!(heads.look(&end[..10], &allowance), Ok(()));
        assert!(heads.is_within_head());
        assert_eq!(heads.look(&end[10..], &allowance), Ok(()));
        assert!(!heads.is_within_head());
    }

    proptest! {
        #[test]
        fn pieces_of_the_stream_make_no_difference(
            frames in proptest::collection::vec((0_u8..12, any::<u8>(), 0_usize..30), 0..40),
            cuts in proptest::collection::vec(1_usize..40, 1..60),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|&(kind, flags, len)| frame(kind, flags, len)).collect();
            let (whole, pieces) = (Allowance::default(), Allowance::default());
            let at_once = begun().look(&stream, &whole);
            let mut heads = begun();
            let mut rest = &stream[..];
            let mut in_pieces = Ok(());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || in_pieces.is_err() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                in_pieces = heads.look(piece, &pieces);
                rest = after;
            }
            let reason = |looked: Result<(), Fault>| looked.map_err(|fault| fault.reason);
            prop_assert_eq!(reason(at_once), reason(in_pieces));
            prop_assert_eq!(whole.control.tokens.get(), pieces.control.tokens.get());
            prop_assert_eq!(whole.resets.tokens.get(), pieces.resets.tokens.get());
            prop_assert!(in_pieces.is_err() || heads.payload_left == 0);
        }
    }
}
