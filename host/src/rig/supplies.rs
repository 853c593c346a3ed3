//! Invented answers to what a plugin waits for.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::error::{ClientError, Error};
use crate::exchange::Exchange;
use crate::http1::Headers;
use crate::wasm::{BodyRefused, CallResponse, Demand, PinnedInstances, Supplier, Supply};

/// One byte for each demand, and one for each call out.
#[derive(Default)]
pub(super) struct Supplies(VecDeque<u8>);

impl Supplies {
    pub(super) fn new(script: &[u8]) -> Self {
        Self(script.iter().copied().collect())
    }

    /// Its lowest bits choose the case, the others the length of what comes.
    fn response(&mut self) -> Result<CallResponse, String> {
        let byte = self.0.pop_front().unwrap_or_default();
        if byte & 3 == 0 {
            return Err("no peer answered".to_owned());
        }
        let mut headers = Headers::new();
        for idx in 0..byte & 3 {
            let name = HeaderName::from_static("x-origin");
            headers.add(&name, idx.to_string().as_bytes());
        }
        Ok(CallResponse {
            status: StatusCode::OK,
            headers,
            body: body(byte),
        })
    }
}

impl Supplier for Supplies {
    async fn supply(
        &mut self,
        demand: Demand,
        _exchange: &mut Box<Exchange>,
        _pinned: &mut PinnedInstances,
    ) -> Result<Supply, Error> {
        let Some(byte) = self.0.pop_front() else {
            return Ok(Supply::NotNow);
        };
        if byte & 7 == 7 {
            return Err(ClientError::Gone.into());
        }
        if byte & 7 == 6 {
            // The guest is suspended for a round of the event loop.
            tokio::task::yield_now().await;
        }
        Ok(match demand {
            Demand::Body { .. } if byte & 7 == 0 => Supply::Body(Err(BodyRefused::TooLarge)),
            Demand::Body { .. } if byte & 7 == 1 => Supply::Body(Err(BodyRefused::NotNow)),
            Demand::Body { limit_bytes, .. } => {
                let body = body(byte);
                Supply::Body(match body.len() <= limit_bytes {
                    true => Ok(body),
                    false => Err(BodyRefused::TooLarge),
                })
            }
            Demand::Calls(_) if byte & 7 == 0 => Supply::TooManyCalls,
            Demand::Calls(calls) => Supply::Calls(calls.iter().map(|_| self.response()).collect()),
            Demand::Delay(_) => Supply::Delayed,
            Demand::Variable(_) => Supply::Computed,
        })
    }
}

/// Up to 32 KiB.
fn body(byte: u8) -> Bytes {
    Bytes::from(vec![b'b'; (1 << (byte >> 4)) - 1])
}
