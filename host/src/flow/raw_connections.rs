//! Connections and streamed calls that plugins have made for one request. They close with it.

use std::cell::Cell;
use std::time::Duration;

use castling_abi::MOST_CONNECTIONS;

use super::calls_made::count_more;
use super::streamed_calls::StreamedCalls;
use crate::exchange::PluginKey;
use crate::upstream::RawConnection;
use crate::wasm::{IoResult, RawDone, RawWork};
use crate::worker_context::WorkerContext;

/// Connections by number, each with its plugin, and calls. Few requests have any, so they are in a box.
#[derive(Default)]
pub(super) struct RawConnections(Option<Box<Open>>);

#[derive(Default)]
struct Open {
    connections: Vec<Slot>,
    calls: StreamedCalls,
}

type Slot = (PluginKey, Option<RawConnection>);

impl RawConnections {
    /// Calls with streamed bodies, which end with the request as its connections do.
    pub(super) fn streamed_calls(&mut self) -> &mut StreamedCalls {
        &mut self.0.get_or_insert_default().calls
    }

    /// Does what a plugin has asked for; `made`: calls out of the request so far.
    pub(super) async fn perform(
        &mut self,
        worker: &WorkerContext,
        made: &Cell<usize>,
        key: PluginKey,
        work: RawWork,
    ) -> IoResult {
        let done = match work {
            RawWork::Connect {
                upstream,
                limit,
                calls_limit,
            } => {
                if self.open() >= MOST_CONNECTIONS {
                    return IoResult::Raw(RawDone::TooMany);
                }
                if !count_more(made, 1, calls_limit) {
                    return IoResult::TooManyCalls;
                }
                self.connect(worker, key, &upstream, limit).await
            }
            RawWork::Read {
                connection,
                most,
                limit,
            } => match self.find(key, connection).and_then(Option::as_mut) {
                None => RawDone::NoSuch,
                Some(open) => match open.read(most, limit).await {
                    Ok(bytes) => RawDone::Read(bytes),
                    Err(error) => RawDone::Failed(error),
                },
            },
            RawWork::Write {
                connection,
                bytes,
                limit,
            } => match self.find(key, connection).and_then(Option::as_mut) {
                None => RawDone::NoSuch,
                Some(open) => match open.write(&bytes, limit).await {
                    Ok(()) => RawDone::Written,
                    Err(error) => RawDone::Failed(error),
                },
            },
            RawWork::Close { connection } => {
                match self.find(key, connection).and_then(Option::take) {
                    Some(_) => RawDone::Written,
                    None => RawDone::NoSuch,
                }
            }
        };
        IoResult::Raw(done)
    }

    async fn connect(
        &mut self,
        worker: &WorkerContext,
        key: PluginKey,
        upstream: &str,
        limit: Duration,
    ) -> RawDone {
        let Some(upstream) = worker.upstream_named(upstream) else {
            return RawDone::Failed(format!("there is no upstream {upstream}"));
        };
        match upstream.connect_raw(limit).await {
            Ok(connection) => {
                let slots = &mut self.0.get_or_insert_default().connections;
                let free = slots.iter().position(|(_, open)| open.is_none());
                let slot = (key, Some(connection));
                RawDone::Connected(match free {
                    Some(idx) => {
                        slots[idx] = slot;
                        idx
                    }
                    None => {
                        slots.push(slot);
                        slots.len() - 1
                    }
                })
            }
            Err(error) => RawDone::Failed(error),
        }
    }

    /// Connections that are open.
    fn open(&self) -> usize {
        let slots = self.0.iter().flat_map(|open| open.connections.iter());
        slots.filter(|(_, open)| open.is_some()).count()
    }

    fn find(&mut self, key: PluginKey, connection: usize) -> Option<&mut Option<RawConnection>> {
        let (of, slot) = self.0.as_mut()?.connections.get_mut(connection)?;
        (*of == key).then_some(slot)
    }
}
