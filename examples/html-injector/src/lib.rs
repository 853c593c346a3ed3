//! Puts a text into HTML pages that come compressed, while they stream: a script before `</head>`, say. Nothing is held back but what
//! could be the begin of that tag, so pages may be of any length; they go on without compression.
//!
//! ```toml
//! [plugins.inject]
//! wasm = "html_injector.wasm"
//! config = { before = "</head>", text = "<script src=/banner.js></script>" }
//! limits = { instances = 512 }   # a page has an instance of its own while it streams
//! ```

use std::io::Write;

use castling_sdk::prelude::*;
use flate2::write::MultiGzDecoder;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Injector {
    /// Tag, whatever its case.
    before: String,
    text: String,
}

/// Page that is being decoded, into what is not sent yet.
#[derive(Default)]
struct Page {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    is_done: bool,
}

/// Compressed bytes that are decoded at once: they become 1032 times as many at most.
const PIECE_BYTES: usize = 512;

#[plugin(state = Page, state_in = "instance")]
impl Injector {
    fn configure(config: Self) -> Result<Self> {
        if config.before.is_empty() {
            bail!("config.before: expected a tag");
        }
        Ok(config)
    }

    fn response_headers(&self, page: &mut Page, _: &Request, reply: &mut Reply) {
        let begins = |name, with: &[u8]| {
            let value = reply.header(name);
            let begin = value
                .as_ref()
                .and_then(|it| it.as_bytes().get(..with.len()));
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with))
        };
        let is_html = begins("content-type", b"text/html");
        let coding = reply.header_all("content-encoding");
        let is_gzip = matches!(&coding[..], [one] if one.as_bytes().eq_ignore_ascii_case(b"gzip"));
        // A part of a page is none.
        if !is_html || !is_gzip || reply.status() == 206 {
            return reply.skip_body();
        }
        // Length and ranges are gone and the ETag is weak, since a filter looks at the body.
        reply.remove_header("content-encoding");
        page.decoder = Some(MultiGzDecoder::new(Vec::new()));
    }

    fn response_body(&self, page: &mut Page, _: &Request, chunk: &mut Chunk) -> Result<()> {
        let Some(decoder) = &mut page.decoder else {
            return Ok(());
        };
        for piece in chunk.data().chunks(PIECE_BYTES) {
            decoder.write_all(piece)?;
            decoder.flush()?;
            self.pass(decoder.get_mut(), &mut page.is_done, chunk)?;
        }
        if chunk.is_last() {
            decoder.try_finish()?;
            self.pass(decoder.get_mut(), &mut page.is_done, chunk)?;
            chunk.emit(decoder.get_ref())?;
        }
        chunk.replace("");
        Ok(())
    }
}

impl Injector {
    /// Sends on what is decoded, but the end that the tag could begin in.
    fn pass(&self, decoded: &mut Vec<u8>, is_done: &mut bool, chunk: &Chunk) -> Result<()> {
        let tag = self.before.as_bytes();
        let is_tag = |bytes: &[u8]| bytes.eq_ignore_ascii_case(tag);
        if !*is_done && let Some(at) = decoded.windows(tag.len()).position(is_tag) {
            chunk.emit(decoded.drain(..at).collect::<Vec<_>>())?;
            chunk.emit(&self.text)?;
            *is_done = true;
        }
        let held = if *is_done { 0 } else { tag.len() - 1 };
        let sent = decoded.len().saturating_sub(held);
        chunk.emit(decoded.drain(..sent).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
