//! A body on its way, a chunk at a time.

use std::cell::OnceCell;

use castling_abi::HeaderMap;

use crate::buffer::Buffer;
use crate::header::{self, HeaderValue, Headers};
use crate::{error, host};

/// A chunk of a request's or a response's body. It goes on as it is unless the hook replaces it.
#[derive(Debug)]
pub struct Chunk {
    len: usize,
    last: bool,
    data: OnceCell<Option<Buffer>>,
}

impl Chunk {
    pub(crate) const fn new(len: usize, last: bool) -> Self {
        Self {
            len,
            last,
            data: OnceCell::new(),
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

    /// Sends these bytes in its place; none is allowed. [`Self::data`] stays what came.
    pub fn replace(&mut self, data: impl AsRef<[u8]>) {
        // The chunk that came is read first: the host forgets it.
        self.data();
        let data = data.as_ref();
        error::note_refusal(host::chunk_set(data), |why| {
            error::refusal(format_args!("replace({} bytes)", data.len()), why)
        });
    }
}
