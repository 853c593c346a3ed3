//! The side of a plugin's call: its body is written by the plugin, where it is not there whole, and its response collected.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use crate::error::ClientError;
use crate::message::{Piece, never_has_body};

/// Collects a response's body up to a limit.
pub struct Collector {
    method: Method,
    limit_bytes: usize,
    whole: BytesMut,
    upload: Option<Box<PluginBody>>,
}

/// A request's body that a plugin writes piece by piece.
struct PluginBody {
    /// Pieces; an empty one is the end. Without one, the plugin has given the rest up: the peer's answer is all that still comes.
    pieces: mpsc::Receiver<Bytes>,
    next: Option<Bytes>,
    has_ended: bool,
}

impl Collector {
    /// For the response to a request of this method, whose body may have so many bytes.
    pub fn new(method: &Method, limit_bytes: usize) -> Self {
        Self {
            method: method.clone(),
            limit_bytes,
            whole: BytesMut::new(),
            upload: None,
        }
    }

    /// With a request's body whose pieces come from here; an empty one is its end.
    pub fn with_body(self, pieces: mpsc::Receiver<Bytes>) -> Self {
        let upload = PluginBody {
            pieces,
            next: None,
            has_ended: false,
        };
        Self {
            upload: Some(Box::new(upload)),
            ..self
        }
    }

    pub(super) fn try_piece(&mut self) -> Piece {
        let Some(upload) = &mut self.upload else {
            return Piece::End;
        };
        if upload.next.is_none()
            && !upload.has_ended
            && let Ok(piece) = upload.pieces.try_recv()
        {
            upload.take(piece);
        }
        match upload.next.take() {
            Some(piece) => Piece::Data(piece),
            None if upload.has_ended => Piece::End,
            None => Piece::NeedMore,
        }
    }

    /// Ready when there is more of the request's body, or its end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(());
        };
        if upload.next.is_some() || upload.has_ended {
            return Poll::Ready(());
        }
        match ready!(upload.pieces.poll_recv(cx)) {
            Some(piece) => {
                upload.take(piece);
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }

    pub(super) fn is_read(&self) -> bool {
        let upload = self.upload.as_ref();
        upload.is_none_or(|upload| upload.has_ended && upload.next.is_none())
    }

    /// The body that was collected. `None`: it is larger than the limit.
    pub fn into_body(self) -> Option<Bytes> {
        (!self.is_too_large()).then(|| self.whole.freeze())
    }

    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        never_has_body(status, &self.method)
    }

    pub(super) fn send_head(&self, status: StatusCode) -> bool {
        !self.is_bodiless(status)
    }

    pub(super) fn send_data(&mut self, piece: &[u8]) {
        if !self.is_too_large() {
            self.whole.extend_from_slice(piece);
        }
    }

    /// Whether the body is larger than the limit: nothing more of it is wanted.
    pub fn is_too_large(&self) -> bool {
        self.whole.len() > self.limit_bytes
    }

    /// Fails where the body is too large: nothing more of it is wanted.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        match self.is_too_large() {
            true => Err(ClientError::Gone),
            false => Ok(()),
        }
    }

    pub(super) fn withdraw(&mut self) {
        self.whole.clear();
    }
}

impl PluginBody {
    fn take(&mut self, piece: Bytes) {
        match piece.is_empty() {
            true => self.has_ended = true,
            false => self.next = Some(piece),
        }
    }
}
