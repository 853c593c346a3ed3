//! The side of a sub-request, whose response a plugin gets whole.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use crate::error::ClientError;
use crate::message::never_has_body;

/// Collects a response's body up to a limit.
pub struct Collector {
    method: Method,
    limit_bytes: usize,
    whole: BytesMut,
}

impl Collector {
    /// For the response to a request of this method, whose body may have so many bytes.
    pub fn new(method: &Method, limit_bytes: usize) -> Self {
        Self {
            method: method.clone(),
            limit_bytes,
            whole: BytesMut::new(),
        }
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
