//! The request's body on its way to a peer, beside whatever is waited for from it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::PeerStream;
use crate::downstream::{BodyPiece, Downstream, RequestBody};
use crate::error::{ClientError, UpstreamError};
use crate::filter::{PeerSink, Taking};
use crate::message::BodySize;
use crate::runtime::PieceBudget;
use crate::runtime::alarm::Disarm;
use crate::upstream::upload::UploadSource;

/// Progress of the body for one peer; begins with what an earlier peer was sent.
pub(super) struct Upload {
    /// Bytes of the replay that were sent.
    replayed: usize,
    stage: UploadStage,
    /// Pieces that were moved in a row, also by one pump after the other.
    pieces: PieceBudget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadStage {
    Sending,
    /// All of it was appended, not all of that is sent.
    Ending,
    Done,
    /// The peer takes no more.
    Broken,
}

impl Upload {
    /// Nothing is to be sent.
    pub(super) const DONE: Self = Self {
        replayed: 0,
        stage: UploadStage::Done,
        pieces: PieceBudget::NONE,
    };

    pub(super) fn new(body: &RequestBody) -> Self {
        Self {
            replayed: 0,
            stage: match body.size {
                BodySize::None => UploadStage::Done,
                BodySize::Exact(_) | BodySize::Unknown => UploadStage::Sending,
            },
            pieces: PieceBudget::NONE,
        }
    }

    /// Whether nothing more is sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, UploadStage::Done | UploadStage::Broken)
    }

    /// Gives up what is left: the peer has answered before the body's end and takes no more of it.
    pub(super) fn break_off(&mut self) {
        self.stage = UploadStage::Broken;
    }

    /// Whether nothing that an earlier peer was sent is still to be sent.
    pub(super) fn is_past_replay(&self, body: &RequestBody) -> bool {
        self.is_over()
            || body
                .replayable_bytes()
                .is_none_or(|all| self.replayed >= all)
    }

    /// Takes what is to be sent next: [`UploadSource::next`], after what an earlier peer was sent.
    fn next_piece(
        &mut self,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<Option<BodyPiece>, UploadError> {
        let replayed = source.body.replayed_at(self.replayed);
        if let Some(piece) = replayed.map_err(UploadError::Lost)? {
            self.replayed += piece.len();
            return Ok(Some(BodyPiece::Owned(piece)));
        }
        let piece = source.next().map_err(UploadError::Client)?;
        if let Some(piece) = &piece {
            source.body.remember(piece);
        }
        if let Some(bytes) = source.body.replayable_bytes() {
            self.replayed = bytes;
        }
        Ok(piece)
    }
}

/// Moves an upload on while a peer is waited for. Dropped, it leaves the upload where it is, for another one.
pub(super) struct Pump<'p, 'c> {
    upload: &'p mut Upload,
    /// For each wait for the peer to take more.
    timeout: Duration,
    /// For errors.
    peer: &'p str,
    /// Begin of the wait for the client.
    client_since: Option<Instant>,
    _disarmed: Option<Disarm<'c>>,
}

/// State that a pump has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// All is sent.
    Done,
    /// The filters must see the next piece: [`UploadSource::filter`]. Not done here, because what is polled
    /// beside others may be dropped at any time, and a plugin's call may not.
    Filter,
}

/// Error that ended an upload early.
#[derive(Debug)]
pub(super) enum UploadError {
    Client(ClientError),
    Upstream(UpstreamError),
    /// What an earlier peer was sent is on disk and cannot be read.
    Lost(io::Error),
}

impl<'p, 'c> Pump<'p, 'c> {
    pub(super) fn new(
        upload: &'p mut Upload,
        from: &Downstream<'c>,
        timeout: Duration,
        peer: &'p str,
    ) -> Self {
        Self {
            upload,
            timeout,
            peer,
            client_since: None,
            _disarmed: from.watch(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.upload.is_over()
    }

    pub(super) fn break_off(&mut self) {
        self.upload.break_off();
    }

    /// Whether more of the body is to come from the client, now that [`Self::poll`] was pending.
    pub(super) fn waits_for_client(&self) -> bool {
        self.client_since.is_some()
    }

    /// Sends what there is to send. Pending: blocked by the client, or by the peer.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut PeerStream,
        source: &mut UploadSource<'_, '_>,
    ) -> Poll<Result<Pumped, UploadError>> {
        while self.upload.stage == UploadStage::Sending {
            if self.upload.pieces.is_turn_over() {
                ready!(pin!(tokio::task::yield_now()).poll(cx));
            }
            if stream.is_full() {
                ready!(self.poll_flush(cx, stream))?;
            }
            match self.upload.next_piece(source)? {
                Some(BodyPiece::Owned(piece) | BodyPiece::Borrowed(piece)) => {
                    stream.send_data(piece);
                }
                None => {
                    ready!(self.poll_flush(cx, stream))?;
                    return Poll::Ready(Ok(Pumped::Filter));
                }
                Some(BodyPiece::NeedMore) => {
                    ready!(self.poll_flush(cx, stream))?;
                    let (body, since) = (&mut *source.body, &mut self.client_since);
                    let filled = ready!(body.poll_fill(cx, source.downstream, since));
                    filled.map_err(UploadError::Client)?;
                }
                Some(BodyPiece::End) => {
                    stream.finish(source.body.trailers());
                    self.upload.stage = UploadStage::Ending;
                }
            }
        }
        ready!(self.poll_flush(cx, stream))?;
        self.upload.stage = UploadStage::Done;
        Poll::Ready(Ok(Pumped::Done))
    }

    fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        stream: &mut PeerStream,
    ) -> Poll<Result<(), UploadError>> {
        let flushed = stream.poll_flush(cx, self.timeout, self.peer);
        flushed.map_err(UploadError::Upstream)
    }
}

/// Peer of an upload that a filter sends parts to. The response is not read meanwhile: a peer that takes nothing until it is ends
/// the upload when its time is up.
pub(super) struct UploadSink<'p> {
    pub(super) upload: &'p mut Upload,
    pub(super) stream: &'p mut PeerStream,
    pub(super) timeout: Duration,
    pub(super) peer: &'p str,
}

impl UploadSink<'_> {
    async fn flush(&mut self) -> Result<(), UpstreamError> {
        let (timeout, peer) = (self.timeout, self.peer);
        let mut stream = self.stream.wait();
        poll_fn(|cx| stream.poll_flush(cx, timeout, peer)).await
    }
}

impl PeerSink for UploadSink<'_> {
    fn take<'a>(&'a mut self, part: Bytes, body: &'a mut RequestBody) -> Taking<'a> {
        Box::pin(async move {
            self.upload.pieces.next().await;
            if self.upload.is_over() {
                return Ok(false);
            }
            if self.stream.is_full() && self.flush().await.is_err() {
                // The rest of what the filter makes of its piece is lost: no other peer could be sent all. The next who waits for this
                // one sees its error, or the response that has come before it.
                self.upload.break_off();
                body.forget();
                return Ok(false);
            }
            body.remember(&BodyPiece::Owned(part.clone()));
            if let Some(bytes) = body.replayable_bytes() {
                self.upload.replayed = bytes;
            }
            self.stream.send_data(part);
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Method;
    use tokio::io::AsyncReadExt;

    use super::super::tests::{begin, pair, run};
    use super::*;
    use crate::downstream::{Collector, SpillFile};
    use crate::metrics::SpillMetrics;

    fn client() -> Downstream<'static> {
        Downstream::Collect(Collector::new(&Method::POST, 0))
    }

    async fn pump(
        upload: &mut Upload,
        stream: &mut PeerStream,
        (downstream, body): (&mut Downstream<'_>, &mut RequestBody),
    ) -> Pumped {
        let mut pump = Pump::new(upload, downstream, Duration::from_secs(60), "peer");
        let mut source = UploadSource {
            downstream,
            body,
            filter: &mut None,
            pinned: None,
        };
        let pumped = poll_fn(|cx| pump.poll(cx, stream, &mut source));
        pumped.await.expect("the peer takes it")
    }

    #[test]
    fn each_peer_is_sent_all_of_the_body() {
        run(async {
            let mut body = RequestBody::held(Bytes::from_static(b"abc"));
            let mut client = client();
            for _ in 0..2 {
                let (mut stream, mut peer) = pair();
                let size = body.size;
                begin(&mut stream, &mut peer, size).await;
                let mut upload = Upload::new(&body);
                let pumped = pump(&mut upload, &mut stream, (&mut client, &mut body)).await;
                assert_eq!((pumped, upload.is_over()), (Pumped::Done, true));
                drop(stream);
                let mut seen = Vec::new();
                peer.read_to_end(&mut seen).await.unwrap();
                assert_eq!(seen, b"abc");
            }
        });
    }

    #[test]
    fn a_body_of_unknown_size_is_framed() {
        run(async {
            let mut body = RequestBody::held(Bytes::from_static(b"abc"));
            body.size = BodySize::Unknown;
            let (mut stream, mut peer) = pair();
            begin(&mut stream, &mut peer, body.size).await;
            let mut upload = Upload::new(&body);
            pump(&mut upload, &mut stream, (&mut client(), &mut body)).await;
            drop(stream);
            let mut seen = Vec::new();
            peer.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, b"3\r\nabc\r\n0\r\n\r\n");
        });
    }

    #[test]
    fn a_body_that_cannot_be_read_again_is_lost() {
        run(async {
            let file = tempfile::tempfile().unwrap();
            let same = file.try_clone().unwrap();
            let file = SpillFile::new(file.into(), 1 << 20, SpillMetrics::default());
            let mut body = RequestBody::held(Bytes::new());
            body.size = BodySize::Unknown;
            body.replay_up_to(0);
            body.spill_up_to(1 << 20, false, &Rc::new(file));
            body.remember(&BodyPiece::Owned(Bytes::from_static(b"abc")));
            assert_eq!(
                (body.is_spilled(), body.replayable_bytes()),
                (true, Some(3))
            );
            same.set_len(0).unwrap();
            let (mut stream, mut peer) = pair();
            begin(&mut stream, &mut peer, body.size).await;
            let mut upload = Upload::new(&body);
            let downstream = &mut client();
            let mut pump = Pump::new(&mut upload, downstream, Duration::from_secs(60), "peer");
            let mut source = UploadSource {
                downstream,
                body: &mut body,
                filter: &mut None,
                pinned: None,
            };
            let pumped = poll_fn(|cx| pump.poll(cx, &mut stream, &mut source)).await;
            assert!(matches!(pumped, Err(UploadError::Lost(_))), "{pumped:?}");
            assert!(!body.can_replay());
        });
    }

    #[test]
    fn what_a_dropped_pump_has_left_is_sent_by_the_next() {
        const BYTES: usize = 4 << 20;
        run(async {
            let mut body = RequestBody::held(Bytes::from(vec![b'x'; BYTES]));
            let (mut stream, mut peer) = pair();
            let size = body.size;
            begin(&mut stream, &mut peer, size).await;
            let mut upload = Upload::new(&body);
            let mut client = client();
            let blocked = pump(&mut upload, &mut stream, (&mut client, &mut body));
            let nothing = tokio::time::timeout(Duration::from_millis(1), blocked).await;
            assert!(nothing.is_err() && !upload.is_over());
            let rest = pump(&mut upload, &mut stream, (&mut client, &mut body));
            let mut seen = vec![0; BYTES];
            let (pumped, read) = tokio::join!(rest, peer.read_exact(&mut seen));
            assert_eq!((pumped, read.unwrap()), (Pumped::Done, BYTES));
        });
    }
}
