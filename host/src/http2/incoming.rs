//! A body that comes in on a stream, of either side.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use super::{head, io_error};
use crate::message::Headers;

/// Body on its way in. Its windows open when the next piece is asked for: whoever does so has done with the last one.
pub(super) struct Incoming {
    body: RecvStream,
    /// Bytes that were handed out and for which the windows are not open again.
    held_bytes: usize,
    is_read: bool,
    trailers: Option<Headers>,
}

impl Incoming {
    pub(super) fn new(body: RecvStream) -> Self {
        Self {
            is_read: body.is_end_stream(),
            body,
            held_bytes: 0,
            trailers: None,
        }
    }

    /// Polls for the next piece, which is not empty. `None`: the body has ended.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.release();
        while !self.is_read {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.held_bytes = piece.len();
                    self.is_read = self.body.is_end_stream();
                    return Poll::Ready(Ok(Some(piece)));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(io_error)?;
                    self.trailers = trailers.map(|fields| head::read_trailers(&fields));
                    self.is_read = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.held_bytes);
        if bytes > 0 {
            // Releasing fails only for more than was received.
            let _ = self.body.flow_control().release_capacity(bytes);
        }
    }

    /// Whether nothing is left to come.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Fields after the body, once; `None` when there were none.
    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take().filter(|trailers| !trailers.is_empty())
    }
}
