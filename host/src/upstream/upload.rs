//! The request's body on its way from the client to a peer.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::pieces::Pieces;
use super::upload_filter::UploadFilter;
use crate::config::Rate;
use crate::error::{ClientError, UpstreamError};
use crate::http1::{self, BodyDecoder, Decoded, Framing, ReplyTo};
use crate::message::{BodySize, Headers, Protocol};
use crate::runtime::alarm::Alarm;
use crate::runtime::clock;
use crate::service::Service;
use crate::transport::halves::{BODY_ROOM_BYTES, Ended, Reader, Writer};
use crate::wasm::{PinnedInstances, Step};

/// Who an exchange is for, and the body that it sends.
pub struct ClientSide<'a, 'b> {
    /// None for a call of a plugin's, whose body is there whole.
    pub wire: Option<&'a mut Wire<'b>>,
    pub body: &'a mut RequestBody,
    /// Instances of the request's plugins, for those that filter the body. Without them it is not filtered.
    pub pinned: Option<&'a mut PinnedInstances>,
}

/// A client's connection while one of its requests is served.
pub struct Wire<'a> {
    pub reader: &'a mut Reader,
    pub writer: &'a mut Writer,
    pub read_alarm: &'a Alarm,
    pub write_alarm: &'a Alarm,
    pub protocol: Protocol,
    pub service: &'a Service,
    /// The client has ended its direction of the connection.
    pub half_closed: bool,
}

impl Wire<'_> {
    /// Ready when the client has left: at once where it has reset the connection, and after the listener's `half_close`
    /// where it has ended its direction. Limited by the read alarm, which nothing else uses once the request is read.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.service.half_close;
        if !self.half_closed {
            match ready!(self.reader.poll_ended(cx)) {
                Ended::Reset => return Poll::Ready(()),
                Ended::InOrder if limit.is_zero() => return Poll::Ready(()),
                Ended::InOrder => self.half_closed = true,
            }
        }
        self.read_alarm.poll_elapsed(limit, cx)
    }
}

impl ClientSide<'_, '_> {
    /// Does `work` while the client is there; `None` when it leaves. One that still sends its body is: reading that tells.
    pub async fn while_there<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let _disarmed = self.wire.as_ref().map(|wire| wire.read_alarm.disarmed());
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_left(cx).map(|()| None),
        })
        .await
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.wire {
            Some(wire) if self.body.is_read() => wire.poll_left(cx),
            _ => Poll::Pending,
        }
    }

    /// Passes an interim response on to the client (RFC 9110 §15.2). HTTP/1.0 knows none, and a plugin's call has no client.
    pub(super) async fn pass_interim(
        &mut self,
        status: StatusCode,
        headers: &mut Headers,
        send_timeout: Duration,
    ) -> Result<(), ClientError> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        if wire.protocol == Protocol::Http10 {
            return Ok(());
        }
        headers.remove_hop_by_hop_of_response();
        wire.service.marks.add_to_response(headers);
        let to = ReplyTo {
            method: &Method::GET,
            protocol: wire.protocol,
            keep_alive: true,
            date: &[0; 29],
        };
        let out = wire.writer.small();
        http1::write_response_head(out, status, headers, BodySize::None, &to);
        let flushed = wire.writer.flush(wire.write_alarm, send_timeout).await;
        flushed.map_err(|_| ClientError::SendTimeout(send_timeout))??;
        Ok(())
    }
}

/// The body of one request, read piece by piece.
pub struct RequestBody {
    pub size: BodySize,
    decoder: BodyDecoder,
    /// 0: no limit.
    max_bytes: u64,
    read_timeout: Duration,
    rate: Rate,
    /// How long the client was waited for in all.
    waited: Duration,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    pub received_bytes: u64,
    /// Was read for a plugin that wanted all of it, and not sent yet.
    ahead: Pieces,
    /// The plugins on its way to a peer.
    pub(super) filter: Option<Box<UploadFilter>>,
    replay_limit_bytes: usize,
    /// What was sent so far, while that is little enough to send it again to another peer.
    replay: Replay,
}

/// What there is to send next.
enum Piece {
    /// A slice of the read buffer, which is not to be held for long.
    Borrowed(Bytes),
    Owned(Bytes),
    NeedMore,
    /// There is a piece, which the filters must see first.
    Unfiltered,
    End,
}

/// Up to this many bytes of a body are kept to be sent again.
const REPLAY_LIMIT_BYTES: usize = 64 * 1024;

/// A body that nobody wanted is read up to this, to keep the connection; a longer one costs it.
const DISCARD_LIMIT_BYTES: usize = 256 * 1024;

enum Replay {
    Kept(Pieces),
    /// It has grown too large: what was sent cannot be sent again.
    Lost,
}

/// What ended an upload early.
pub(super) enum UploadError {
    Client(ClientError),
    Upstream(UpstreamError),
}

impl RequestBody {
    #[inline]
    pub fn new(
        framing: Framing,
        max_bytes: u64,
        read_timeout: Duration,
        rate: Rate,
        expects_continue: bool,
    ) -> Self {
        Self {
            size: framing.size(),
            decoder: BodyDecoder::new(framing),
            max_bytes,
            read_timeout,
            rate,
            waited: Duration::ZERO,
            expects_continue,
            received_bytes: 0,
            ahead: Pieces::default(),
            filter: None,
            replay_limit_bytes: REPLAY_LIMIT_BYTES,
            replay: Replay::Kept(Pieces::default()),
        }
    }

    /// A body that is there whole. It can be sent again as often as need be.
    pub fn held(bytes: Bytes) -> Self {
        let length = match bytes.len() {
            0 => BodySize::None,
            len => BodySize::Exact(len as u64),
        };
        let mut body = Self::new(Framing::None, 0, Duration::ZERO, Rate::NONE, false);
        body.size = length;
        body.hold(bytes);
        body
    }

    /// Has the plugins see each piece before it is sent. A body that is there whole keeps a length, which the filters
    /// may change; for any other there is none to tell the peer.
    pub fn filter_with(&mut self, steps: &Rc<[Step]>) {
        if self.size != BodySize::None {
            self.filter = Some(Box::new(UploadFilter::new(steps)));
        }
    }

    /// Waits until all of it is there; `None` when it is longer than this. Either way it can be sent afterwards, from
    /// its beginning.
    pub async fn read_whole(
        &mut self,
        mut wire: Option<&mut Wire<'_>>,
        limit_bytes: usize,
        send_timeout: Duration,
    ) -> Result<Option<Bytes>, ClientError> {
        if let Some(wire) = &mut wire {
            self.invite(wire, send_timeout).await?;
        }
        let mut pieces = clock::PieceBudget::default();
        loop {
            pieces.next().await;
            if self.ahead.bytes() > limit_bytes {
                return Ok(None);
            }
            match self.receive(&mut wire)? {
                Decoded::Data(data) => self.hold_copy(&data),
                Decoded::NeedMore => self.fill(&mut wire).await?,
                Decoded::End => break,
            }
        }
        Ok(Some(self.ahead.join()))
    }

    /// Keeps a piece to be sent later. What is in memory anyway can be sent again, too.
    pub(super) fn hold(&mut self, piece: Bytes) {
        self.ahead.push(piece);
        self.raise_replay_limit();
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
    pub(super) fn hold_buffered(
        &mut self,
        wire: &mut Option<&mut Wire<'_>>,
    ) -> Result<(), ClientError> {
        while self.ahead.bytes() < REPLAY_LIMIT_BYTES {
            match self.receive(wire)? {
                Decoded::Data(data) => self.hold_copy(&data),
                Decoded::NeedMore | Decoded::End => break,
            }
        }
        Ok(())
    }

    /// All of it has come, and none of it was sent.
    pub(super) fn is_held(&self) -> bool {
        let nothing_sent = matches!(&self.replay, Replay::Kept(pieces) if pieces.is_empty());
        self.decoder.is_end() && nothing_sent
    }

    /// What is held, to be filtered.
    pub(super) fn take_held(&mut self) -> Pieces {
        std::mem::take(&mut self.ahead)
    }

    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.decoder.take_trailers()
    }

    /// Answers `Expect: 100-continue`, once, before the body is waited for.
    async fn invite(
        &mut self,
        wire: &mut Wire<'_>,
        send_timeout: Duration,
    ) -> Result<(), ClientError> {
        if !self.expects_continue {
            return Ok(());
        }
        self.expects_continue = false;
        wire.writer
            .small()
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        let flushed = wire.writer.flush(wire.write_alarm, send_timeout).await;
        flushed.map_err(|_| ClientError::SendTimeout(send_timeout))??;
        Ok(())
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

    /// Nothing of it is left on the connection, so that the next request can follow.
    pub fn is_read(&self) -> bool {
        self.decoder.is_end()
    }

    /// Reads and throws away what is left of it, up to a bound. True: the next request can follow.
    pub async fn discard(&mut self, wire: &mut Wire<'_>) -> bool {
        let mut left = DISCARD_LIMIT_BYTES;
        let mut pieces = clock::PieceBudget::default();
        loop {
            pieces.next().await;
            match self.decoder.decode(&mut wire.reader.buf) {
                Ok(Decoded::End) => return true,
                Ok(Decoded::Data(data)) if data.len() <= left => left -= data.len(),
                Ok(Decoded::Data(_)) | Err(_) => return false,
                Ok(Decoded::NeedMore) => {
                    if self.fill(&mut Some(wire)).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// The client was not asked for its body and need not send it (RFC 9110 §10.1.1).
    pub fn is_unasked(&self) -> bool {
        self.expects_continue
    }

    /// Takes what the buffer holds of it, without waiting.
    fn receive(&mut self, wire: &mut Option<&mut Wire<'_>>) -> Result<Decoded, ClientError> {
        let Some(wire) = wire else {
            return Ok(Decoded::End);
        };
        let decoded = self.decoder.decode(&mut wire.reader.buf)?;
        if let Decoded::Data(data) = &decoded {
            self.received_bytes += data.len() as u64;
            if self.exceeds(self.received_bytes) {
                return Err(ClientError::BodyTooLarge(self.max_bytes));
            }
        }
        Ok(decoded)
    }

    /// What is to be sent next, without waiting.
    fn next(&mut self, wire: &mut Option<&mut Wire<'_>>) -> Result<Piece, ClientError> {
        match &mut self.filter {
            None => return self.unfiltered(wire),
            Some(filter) => match filter.take_passed() {
                Some(passed) => return Ok(Piece::Owned(passed)),
                None if filter.is_due() => return Ok(Piece::Unfiltered),
                None if filter.is_ended() => return Ok(Piece::End),
                None => {}
            },
        }
        let piece = match self.unfiltered(wire)? {
            Piece::Borrowed(data) | Piece::Owned(data) => data,
            Piece::End => Bytes::new(),
            other @ (Piece::NeedMore | Piece::Unfiltered) => return Ok(other),
        };
        let last = self.ahead.is_empty() && self.decoder.is_end();
        if let Some(filter) = &mut self.filter {
            filter.put(piece, last);
        }
        Ok(Piece::Unfiltered)
    }

    fn unfiltered(&mut self, wire: &mut Option<&mut Wire<'_>>) -> Result<Piece, ClientError> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Piece::Owned(piece));
        }
        Ok(match self.receive(wire)? {
            Decoded::Data(data) => Piece::Borrowed(data),
            Decoded::NeedMore => Piece::NeedMore,
            Decoded::End => Piece::End,
        })
    }

    /// Reads once from the client.
    async fn fill(&mut self, wire: &mut Option<&mut Wire<'_>>) -> Result<(), ClientError> {
        let Some(wire) = wire else { return Ok(()) };
        let fill = wire.reader.fill(BODY_ROOM_BYTES);
        let limit = self.rate.time_for(self.received_bytes);
        let limit = limit.map(|limit| limit.saturating_sub(self.waited));
        let limit = limit.map_or(self.read_timeout, |limit| limit.min(self.read_timeout));
        let began = clock::now();
        let read = wire.read_alarm.limit(limit, fill).await;
        self.waited += clock::now() - began;
        let late = |_| match limit < self.read_timeout {
            true => ClientError::BodyTooSlow(self.rate.min),
            false => ClientError::BodyTimeout(self.read_timeout),
        };
        match read.map_err(late)?? {
            0 => Err(ClientError::Gone),
            _ => Ok(()),
        }
    }

    fn exceeds(&self, bytes: u64) -> bool {
        self.max_bytes != 0 && bytes > self.max_bytes
    }

    fn remember(&mut self, piece: &Piece) {
        let Replay::Kept(pieces) = &mut self.replay else {
            return;
        };
        match piece {
            Piece::Owned(data) | Piece::Borrowed(data)
                if pieces.bytes() + data.len() > self.replay_limit_bytes =>
            {
                self.replay = Replay::Lost;
            }
            Piece::Owned(data) => pieces.push(data.clone()),
            Piece::Borrowed(data) => pieces.push_copy(data),
            Piece::NeedMore | Piece::Unfiltered | Piece::End => {}
        }
    }

    pub(super) fn can_replay(&self) -> bool {
        matches!(self.replay, Replay::Kept(_))
    }
}

/// Why an upload has stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadPause {
    /// All of it is sent.
    Done,
    /// The filters must see the next piece: [`super::upload_filter::pass`]. Not done here, because what runs here may
    /// be dropped at any time, and a plugin's call may not.
    Unfiltered,
}

/// One peer's copy of the body; begins with what an earlier peer was sent.
pub(super) struct Upload {
    /// Bytes of the replay that were sent.
    replayed: usize,
    stage: UploadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadStage {
    Sending,
    /// All of it was appended, not all of that is written.
    Ending,
    Done,
}

impl Upload {
    /// Nothing is to be sent.
    pub(super) const DONE: Self = Self {
        replayed: 0,
        stage: UploadStage::Done,
    };

    pub(super) fn new(body: &RequestBody) -> Self {
        Self {
            replayed: 0,
            stage: match body.size {
                BodySize::None => UploadStage::Done,
                BodySize::Exact(_) | BodySize::Unknown => UploadStage::Sending,
            },
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == UploadStage::Done
    }

    /// Tells a client that waits for it to send its body, if this upload is to send one.
    pub(super) async fn invite(
        &self,
        client: &mut ClientSide<'_, '_>,
        send_timeout: Duration,
    ) -> Result<(), ClientError> {
        match &mut client.wire {
            Some(wire) if !self.is_done() => client.body.invite(wire, send_timeout).await,
            _ => Ok(()),
        }
    }

    /// Sends what is still to send. May be dropped and called again.
    pub(super) async fn run(
        &mut self,
        client: &mut ClientSide<'_, '_>,
        mut to: Sink<'_>,
    ) -> Result<UploadPause, UploadError> {
        let ClientSide { wire, body, .. } = client;
        let mut pieces = clock::PieceBudget::default();
        while self.stage == UploadStage::Sending {
            pieces.next().await;
            if to.writer.is_full() {
                to.flush().await.map_err(UploadError::Upstream)?;
            }
            match self.next_piece(wire, body).map_err(UploadError::Client)? {
                Piece::Owned(piece) | Piece::Borrowed(piece) => {
                    append(to.writer, body.size, piece);
                }
                Piece::Unfiltered => {
                    to.flush().await.map_err(UploadError::Upstream)?;
                    return Ok(UploadPause::Unfiltered);
                }
                Piece::NeedMore => {
                    to.flush().await.map_err(UploadError::Upstream)?;
                    body.fill(wire).await.map_err(UploadError::Client)?;
                }
                Piece::End => {
                    if body.size == BodySize::Unknown {
                        to.writer.small().extend_from_slice(http1::LAST_CHUNK);
                    }
                    self.stage = UploadStage::Ending;
                }
            }
        }
        to.flush().await.map_err(UploadError::Upstream)?;
        self.stage = UploadStage::Done;
        Ok(UploadPause::Done)
    }

    fn next_piece(
        &mut self,
        wire: &mut Option<&mut Wire<'_>>,
        body: &mut RequestBody,
    ) -> Result<Piece, ClientError> {
        if let Replay::Kept(pieces) = &body.replay
            && let Some(piece) = pieces.at(self.replayed)
        {
            self.replayed += piece.len();
            return Ok(Piece::Owned(piece));
        }
        let piece = body.next(wire)?;
        body.remember(&piece);
        if let Replay::Kept(pieces) = &body.replay {
            self.replayed = pieces.bytes();
        }
        Ok(piece)
    }
}

/// Appends one piece in the body's framing.
fn append(to: &mut Writer, size: BodySize, piece: Bytes) {
    match (size, NonZeroUsize::new(piece.len())) {
        (BodySize::Unknown, Some(len)) => {
            http1::write_chunk_head(to.small(), len);
            to.push(piece);
            to.small().extend_from_slice(http1::CHUNK_END);
        }
        (_, _) => to.push(piece),
    }
}

/// The peer's end of an upload.
pub(super) struct Sink<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) alarm: &'a Alarm,
    /// Between two writes.
    pub(super) timeout: Duration,
    /// For errors.
    pub(super) peer: &'a str,
}

impl Sink<'_> {
    pub(super) async fn flush(&mut self) -> Result<(), UpstreamError> {
        let (peer, after) = (self.peer, self.timeout);
        let flushed = self.writer.flush(self.alarm, after).await;
        let flushed = flushed.map_err(|_| UpstreamError::SendTimeout {
            peer: peer.to_owned(),
            after,
        })?;
        flushed.map_err(|cause| UpstreamError::Io {
            peer: peer.to_owned(),
            cause,
        })
    }
}
