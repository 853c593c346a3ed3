//! The body of one request: limits, what was read ahead, and what could be sent again.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Downstream, KeptPieces, Settings, SpillFile};
use crate::config::Rate;
use crate::error::ClientError;
use crate::message::{BodySize, Headers, Piece};
use crate::runtime::{PieceBudget, clock};
use crate::transport::halves::BODY_ROOM_BYTES;

/// The body of one request, read piece by piece.
pub struct RequestBody {
    pub size: BodySize,
    /// 0: no limit.
    max_bytes: u64,
    read_timeout: Duration,
    rate: Rate,
    /// Time that the client was waited for in all.
    waited: Duration,
    pub received_bytes: u64,
    /// Fields after the body, once it has ended; `None` when there were none.
    trailers: Option<Box<Headers>>,
    /// Read for a plugin that wanted all of it, and not sent yet.
    ahead: KeptPieces,
    replay_limit_bytes: usize,
    /// Pieces that were sent so far, while they are few enough to be sent again to another peer.
    replay: Replay,
    /// Whether all of it was handed out.
    has_ended: bool,
}

/// Piece of the body that is to be sent next.
pub enum BodyPiece {
    /// A slice of the read buffer, which is not to be held for long.
    Borrowed(Bytes),
    Owned(Bytes),
    NeedMore,
    End,
}

enum Replay {
    Kept(KeptPieces),
    /// The body has grown too large: what was sent cannot be sent again.
    Lost,
}

/// Time-out that nobody waits for.
const ANY_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Up to this many bytes of a body are kept to be sent again.
const REPLAY_LIMIT_BYTES: usize = 64 * 1024;

impl RequestBody {
    #[inline]
    pub fn new(size: BodySize, settings: &Settings) -> Self {
        Self {
            max_bytes: settings.max_body_bytes,
            read_timeout: settings.body_timeout,
            rate: settings.body_rate,
            ..Self::unlimited(size)
        }
    }

    /// Lets the body come at any rate, with at most so long between two pieces: the messages of a call of gRPC come when
    /// there are some. `None`: it may be silent for any time.
    pub fn come_slowly(&mut self, timeout: Option<Duration>) {
        self.rate = Rate::NONE;
        self.read_timeout = timeout.unwrap_or(ANY_TIME);
    }

    /// A body that is there whole. It can be sent again as often as need be.
    pub fn held(bytes: Bytes) -> Self {
        let mut body = Self::unlimited(match bytes.len() {
            0 => BodySize::None,
            len => BodySize::Exact(len as u64),
        });
        body.hold(bytes);
        body
    }

    /// A body that a plugin writes, of this size: for [`super::Collector::with_body`].
    pub fn streamed(size: BodySize) -> Self {
        Self::unlimited(size)
    }

    #[inline]
    fn unlimited(size: BodySize) -> Self {
        Self {
            size,
            max_bytes: 0,
            read_timeout: Duration::ZERO,
            rate: Rate::NONE,
            waited: Duration::ZERO,
            received_bytes: 0,
            trailers: None,
            ahead: KeptPieces::default(),
            replay_limit_bytes: REPLAY_LIMIT_BYTES,
            replay: Replay::Kept(KeptPieces::default()),
            has_ended: false,
        }
    }

    /// Waits until all of it is there; `None` when it is longer than this. Either way it can be sent afterwards, from
    /// its beginning.
    pub async fn read_whole(
        &mut self,
        downstream: &mut Downstream<'_>,
        limit_bytes: usize,
        send_timeout: Duration,
    ) -> Result<Option<Bytes>, ClientError> {
        downstream.invite(send_timeout).await?;
        let mut pieces = PieceBudget::default();
        loop {
            pieces.next().await;
            if self.ahead.bytes() > limit_bytes {
                return Ok(None);
            }
            match self.receive(downstream)? {
                Piece::Data(data) => self.hold_copy(&data),
                Piece::NeedMore => self.fill(downstream).await?,
                Piece::End => break,
            }
        }
        Ok(Some(self.ahead.join()))
    }

    /// Waits until so many bytes of it are there, or all: these bytes, and whether they are all. It can be sent afterwards, from its
    /// beginning.
    pub async fn peek(
        &mut self,
        downstream: &mut Downstream<'_>,
        most_bytes: usize,
        send_timeout: Duration,
    ) -> Result<(Bytes, bool), ClientError> {
        downstream.invite(send_timeout).await?;
        let mut pieces = PieceBudget::default();
        while self.ahead.bytes() < most_bytes {
            pieces.next().await;
            match self.receive(downstream)? {
                Piece::Data(data) => self.hold_copy(&data),
                Piece::NeedMore => self.fill(downstream).await?,
                Piece::End => break,
            }
        }
        let held_bytes = self.ahead.bytes();
        let is_whole = held_bytes <= most_bytes && downstream.is_read();
        let bytes = self.ahead.join().slice(..held_bytes.min(most_bytes));
        Ok((bytes, is_whole))
    }

    /// Keeps a piece to be sent later. What is in memory anyway can be sent again, too.
    pub fn hold(&mut self, piece: Bytes) {
        self.ahead.push(piece);
        self.raise_replay_limit();
    }

    /// Keeps at most so many bytes to be sent again, of a body of which nothing was sent yet.
    pub fn replay_up_to(&mut self, limit_bytes: usize) {
        self.replay_limit_bytes = limit_bytes;
        if !self.ahead.is_empty() {
            self.raise_replay_limit();
        }
    }

    /// Keeps so many bytes more on disk, of a body of which nothing was sent yet. One that says that it is longer is not begun to be
    /// written, unless it is filtered: who knows then how long it becomes.
    #[cold]
    pub fn spill_up_to(&mut self, limit_bytes: usize, is_filtered: bool, file: &Rc<SpillFile>) {
        let most = self.replay_limit_bytes.saturating_add(limit_bytes);
        let is_too_long = match self.size {
            BodySize::Exact(bytes) => bytes > most as u64,
            BodySize::None | BodySize::Unknown => false,
        };
        if let Replay::Kept(pieces) = &mut self.replay
            && (is_filtered || !is_too_long)
        {
            pieces.allow_spill(file, most);
        }
    }

    fn hold_copy(&mut self, data: &[u8]) {
        self.ahead.push_copy(data);
        self.raise_replay_limit();
    }

    fn raise_replay_limit(&mut self) {
        let held_bytes = self.ahead.bytes().saturating_add(BODY_ROOM_BYTES);
        self.replay_limit_bytes = self.replay_limit_bytes.max(held_bytes);
    }

    /// Holds what has come already, as far as it could be sent again.
    pub fn hold_buffered(&mut self, downstream: &mut Downstream<'_>) -> Result<(), ClientError> {
        while self.ahead.bytes() < REPLAY_LIMIT_BYTES {
            match self.receive(downstream)? {
                Piece::Data(data) => self.hold_copy(&data),
                Piece::NeedMore | Piece::End => break,
            }
        }
        Ok(())
    }

    /// Whether all of it has come, and none of it was sent.
    pub fn is_held(&self, downstream: &Downstream<'_>) -> bool {
        let nothing_sent = matches!(&self.replay, Replay::Kept(pieces) if pieces.is_empty());
        downstream.is_read() && nothing_sent
    }

    /// Takes what is held, to be filtered.
    pub fn take_held(&mut self) -> KeptPieces {
        std::mem::take(&mut self.ahead)
    }

    /// Whether what was handed out last is all that there is.
    pub fn is_end(&self, downstream: &Downstream<'_>) -> bool {
        self.ahead.is_empty() && downstream.is_read()
    }

    /// Holds the body to another limit, where there is one. Refuses at once what says that it is too large.
    pub fn limit(&mut self, max_bytes: Option<u64>) -> Result<(), ClientError> {
        if let Some(max_bytes) = max_bytes {
            self.max_bytes = max_bytes;
        }
        if self.exceeds(self.received_bytes) {
            return Err(ClientError::BodyTooLarge(self.max_bytes));
        }
        self.check_announced()
    }

    /// Refuses at once what says that it is too large.
    pub fn check_announced(&self) -> Result<(), ClientError> {
        match self.size {
            BodySize::Exact(bytes) if self.exceeds(bytes) => {
                Err(ClientError::BodyTooLarge(self.max_bytes))
            }
            _ => Ok(()),
        }
    }

    /// Takes what has come of it, without waiting.
    fn receive(&mut self, downstream: &mut Downstream<'_>) -> Result<Piece, ClientError> {
        let piece = downstream.try_piece()?;
        match &piece {
            Piece::Data(data) => {
                self.received_bytes += data.len() as u64;
                if self.exceeds(self.received_bytes) {
                    return Err(ClientError::BodyTooLarge(self.max_bytes));
                }
            }
            Piece::End => self.note_trailers(downstream),
            Piece::NeedMore => {}
        }
        Ok(piece)
    }

    /// Takes what is to be sent next, without waiting.
    pub fn next(&mut self, downstream: &mut Downstream<'_>) -> Result<BodyPiece, ClientError> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(BodyPiece::Owned(piece));
        }
        Ok(match self.receive(downstream)? {
            Piece::Data(data) => BodyPiece::Borrowed(data),
            Piece::NeedMore => BodyPiece::NeedMore,
            Piece::End => BodyPiece::End,
        })
    }

    fn note_trailers(&mut self, downstream: &mut Downstream<'_>) {
        if let Some(trailers) = downstream.take_trailers() {
            self.trailers = Some(Box::new(trailers));
        }
    }

    /// Fields after the body, to be sent after it; empty before its end.
    pub fn trailers(&self) -> &Headers {
        const NONE: &Headers = &Headers::new();
        self.trailers.as_deref().unwrap_or(NONE)
    }

    /// Lends the trailers to the filters of the body's last piece: [`Self::give_trailers`] takes them back.
    pub fn lend_trailers(&mut self, downstream: &mut Downstream<'_>) -> Headers {
        self.note_trailers(downstream);
        self.trailers
            .take()
            .map(|trailers| *trailers)
            .unwrap_or_default()
    }

    /// Takes trailers back that were lent.
    pub fn give_trailers(&mut self, trailers: Headers) {
        self.trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
    }

    /// Waits for more of it from the client.
    async fn fill(&mut self, downstream: &mut Downstream<'_>) -> Result<(), ClientError> {
        let _disarmed = downstream.watch();
        let mut since = None;
        poll_fn(|cx| self.poll_fill(cx, downstream, &mut since)).await
    }

    /// Waits for more of it from the client. `since`: begin of this wait, of which the first call takes note.
    /// [`Downstream::watch`] must outlive the calls.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut Downstream<'_>,
        since: &mut Option<Instant>,
    ) -> Poll<Result<(), ClientError>> {
        let limit = self.rate.time_for(self.received_bytes);
        let limit = limit.map(|limit| limit.saturating_sub(self.waited));
        let limit = limit.map_or(self.read_timeout, |limit| limit.min(self.read_timeout));
        let began = *since.get_or_insert_with(clock::now);
        let read = ready!(downstream.poll_fill(cx, limit));
        self.waited += clock::now() - began;
        *since = None;
        let late = |_| match limit < self.read_timeout {
            true => ClientError::BodyTooSlow(self.rate.min),
            false => ClientError::BodyTimeout(self.read_timeout),
        };
        Poll::Ready(match read.map_err(late)?? {
            0 => Err(ClientError::Gone),
            _ => Ok(()),
        })
    }

    fn exceeds(&self, bytes: u64) -> bool {
        self.max_bytes != 0 && bytes > self.max_bytes
    }

    /// Keeps a piece that is sent, to be sent again.
    pub fn remember(&mut self, piece: &BodyPiece) {
        let Replay::Kept(pieces) = &mut self.replay else {
            return;
        };
        match piece {
            BodyPiece::Owned(data) | BodyPiece::Borrowed(data)
                if pieces.is_spilled() || pieces.bytes() + data.len() > self.replay_limit_bytes =>
            {
                self.spill(data);
            }
            BodyPiece::Owned(data) => pieces.push(data.clone()),
            BodyPiece::Borrowed(data) => pieces.push_copy(data),
            BodyPiece::NeedMore => {}
            BodyPiece::End => self.has_ended = true,
        }
    }

    /// Keeps a piece on disk for which there is no memory.
    #[inline(never)]
    fn spill(&mut self, data: &[u8]) {
        if let Replay::Kept(pieces) = &mut self.replay
            && !pieces.spill(data)
        {
            self.replay = Replay::Lost;
        }
    }

    /// All that was sent, once all was; `None`: not all has come yet, or it is not in memory, or not there any more.
    pub fn copy(&mut self) -> Option<Bytes> {
        match &mut self.replay {
            _ if self.size == BodySize::None => Some(Bytes::new()),
            Replay::Kept(pieces) if self.has_ended && !pieces.is_spilled() => Some(pieces.join()),
            Replay::Kept(_) | Replay::Lost => None,
        }
    }

    /// Whether what was sent can be sent again.
    pub fn can_replay(&self) -> bool {
        matches!(self.replay, Replay::Kept(_))
    }

    /// A piece that was sent before, which begins after so many bytes; `None`: those were all, or they are not kept. An error is
    /// the disk's, and the body cannot be sent again.
    pub fn replayed_at(&mut self, bytes: usize) -> io::Result<Option<Bytes>> {
        let piece = match &self.replay {
            Replay::Kept(pieces) => pieces.at(bytes),
            Replay::Lost => Ok(None),
        };
        if piece.is_err() {
            self.replay = Replay::Lost;
        }
        piece
    }

    /// Whether some of it is kept on disk.
    #[inline]
    pub fn is_spilled(&self) -> bool {
        matches!(&self.replay, Replay::Kept(pieces) if pieces.is_spilled())
    }

    /// Keeps none of it any longer: it is not sent again.
    pub fn forget(&mut self) {
        self.replay = Replay::Lost;
    }

    /// Bytes that were sent and can be sent again; `None`: they cannot.
    pub fn replayable_bytes(&self) -> Option<usize> {
        match &self.replay {
            Replay::Kept(pieces) => Some(pieces.bytes()),
            Replay::Lost => None,
        }
    }
}
