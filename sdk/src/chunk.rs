//! A body on its way, a chunk at a time.

use std::cell::{Cell, OnceCell};

use castling_abi::{BODY_UNWANTED, HeaderMap};

use crate::buffer::{Buffer, status};
use crate::error::{self, Error, Result};
use crate::header::{self, HeaderValue, Headers};
use crate::host;

/// A chunk of a request's or a response's body. It goes on as it is unless the hook replaces it, or sends on other bytes in its
/// place, at once ([`Self::replace`]) or part by part ([`Self::emit`]).
#[derive(Debug)]
pub struct Chunk {
    len: usize,
    last: bool,
    data: OnceCell<Option<Buffer>>,
    /// Other bytes go on in its place.
    is_replaced: Cell<bool>,
}

impl Chunk {
    pub(crate) const fn new(len: usize, last: bool) -> Self {
        Self {
            len,
            last,
            data: OnceCell::new(),
            is_replaced: Cell::new(false),
        }
    }

    /// The bytes that came. Copied from the host at the first call; a hook that does not look costs no copy.
    pub fn data(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        let data = self
            .data
            .get_or_init(|| Buffer::read(self.len, host::chunk_get).ok());
        data.as_deref().unwrap_or_default()
    }

    /// How many bytes came; 0 is possible, for the last one above all.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes came.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the body ends here. Each body has one such chunk, unless it breaks off.
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// The first value of a trailer, a field that came after a chunked body (RFC 9110 §6.5). With the last chunk only;
    /// `None` when there is no such trailer.
    pub fn trailer(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::get(HeaderMap::Trailers, name.as_ref())
    }

    /// All trailers. With the last chunk only.
    pub fn trailers(&self) -> Headers {
        header::list(HeaderMap::Trailers, "")
    }

    /// Ends the body with this chunk: the filters after this one see it as the last, this one sees no other. What would
    /// still come is not waited for, which costs its connection.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    ///
    /// /// Lets the first line of each response pass.
    /// #[derive(Default)]
    /// struct FirstLine;
    ///
    /// #[plugin]
    /// impl FirstLine {
    ///     fn response_body(&self, _: &Request, chunk: &mut Chunk) {
    ///         let line_end = chunk.data().iter().position(|&byte| byte == b'\n');
    ///         if let Some(line_end) = line_end {
    ///             chunk.replace(chunk.data()[..=line_end].to_vec());
    ///             chunk.end();
    ///         }
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::get("/").response(200);
    /// let passed = exchange.pass_chunk("one\ntwo", false, |request, chunk| FirstLine.response_body(request, chunk));
    /// assert_eq!(passed, b"one\n");
    /// assert!(exchange.body_ended());
    /// ```
    pub fn end(&mut self) {
        error::note_refusal(host::chunk_end(), |why| {
            error::refusal(format_args!("end()"), why)
        });
    }

    /// Sends these bytes in its place; none is allowed. [`Self::data`] stays what came. After [`Self::emit`]: after what that has
    /// sent.
    pub fn replace(&mut self, data: impl AsRef<[u8]>) {
        // The chunk that came is read first: the host forgets it.
        self.data();
        self.is_replaced.set(true);
        let data = data.as_ref();
        error::note_refusal(host::chunk_set(data), |why| {
            error::refusal(format_args!("replace({} bytes)", data.len()), why)
        });
    }

    /// Sends these bytes on in its place, now, and may be called as often as there are more: what a chunk becomes need not fit into
    /// the plugin's memory. The chunk itself does not go on; what [`Self::replace`] puts in its place comes after all parts.
    ///
    /// Returns when there is room for the part where it goes: a client or a peer that is slow makes the hook wait, and with it keep
    /// its instance. A part may be as long as `limits.body`, all parts of one call together as `limits.emit` (128 MiB unless the
    /// config says otherwise), beyond which this fails with [`Error::is_limit`]. An error that [`is_unwanted`](Error::is_unwanted) says
    /// that nobody takes more of the body, because a filter after this one has ended it or the peer has answered; a hook that
    /// returns it has not failed.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    ///
    /// /// Says everything a thousand times.
    /// #[derive(Default)]
    /// struct Echo;
    ///
    /// #[plugin]
    /// impl Echo {
    ///     fn response_body(&self, _: &Request, chunk: &mut Chunk) -> Result<()> {
    ///         for _ in 0..1000 {
    ///             chunk.emit(chunk.data())?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::get("/").response(200);
    /// let passed = exchange.pass_chunk("no ", true, |request, chunk| Echo.response_body(request, chunk).unwrap());
    /// assert_eq!(passed, "no ".repeat(1000).as_bytes());
    /// ```
    pub fn emit(&self, part: impl AsRef<[u8]>) -> Result<()> {
        let part = part.as_ref();
        let refuse = |code: i32| {
            let doing = format_args!("emit({} bytes)", part.len());
            Err(error::refusal(doing, status(code)))
        };
        if !self.is_replaced.replace(true) {
            // As in `replace`.
            self.data();
            if let refused @ ..0 = host::chunk_set(&[]) {
                return refuse(refused);
            }
        }
        match host::chunk_emit(part) {
            BODY_UNWANTED => Err(Error::unwanted_body()),
            0.. => Ok(()),
            refused => refuse(refused),
        }
    }
}
