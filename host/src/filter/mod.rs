//! The response's way to the client: plugins that change its head, then each chunk of its body.

use bytes::Bytes;
use castling_abi::Hook;

use crate::error::Error;
use crate::exchange::{Answer, Exchange, Stage};
use crate::wasm::{Next, PinnedInstances, Step};

/// Runs the head through its filters. An answer of one of them takes the place of the response, and the next ones see
/// that; the last such body is returned.
pub async fn head(
    steps: &[Step],
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
) -> Result<Option<Bytes>, Error> {
    exchange.stage = Stage::Reply;
    let mut replaced = None;
    for step in steps {
        match step
            .run(Hook::ResponseHeaders, exchange, pinned, (0, 0, 0))
            .await?
        {
            Next::Step | Next::Skipped | Next::Reroute => {}
            Next::Answer(Answer {
                status,
                headers,
                body,
            }) => {
                exchange.reply.status = status;
                exchange.reply.headers = headers;
                replaced = Some(body);
            }
        }
    }
    Ok(replaced)
}

/// Runs one chunk of the body through its filters; what comes out may be longer, shorter or empty. `last` is said once,
/// with the end of the body, maybe on an empty chunk.
pub async fn chunk(
    steps: &[Step],
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    chunk: Bytes,
    last: bool,
) -> Result<Bytes, Error> {
    exchange.stage = Stage::Body;
    exchange.chunk = chunk;
    for step in steps {
        if exchange.chunk.is_empty() && !last {
            break;
        }
        let before = exchange.chunk.clone();
        let len = u32::try_from(before.len()).unwrap_or(u32::MAX);
        if let Next::Skipped = step
            .run(
                Hook::ResponseBody,
                exchange,
                pinned,
                (len, u32::from(last), 0),
            )
            .await?
        {
            // The chunk goes on as it came, whatever the hook had done to it before it failed.
            exchange.chunk = before;
        }
    }
    Ok(std::mem::take(&mut exchange.chunk))
}
