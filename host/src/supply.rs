//! Does what plugins wait for: whole bodies, calls out, delays.

use std::net::{Ipv4Addr, SocketAddr};

use bytestring::ByteString;
use castling_abi::HeaderMap;
use futures_util::future::join_all;
use http::Version;

use crate::error::{ClientError, Error};
use crate::exchange::{Exchange, Stage};
use crate::flow::Source;
use crate::http1::RequestHead;
use crate::listener::Listener;
use crate::upstream::{self, ClientSide, RequestBody, Wire};
use crate::wasm::{self, BodyRefused, Call, CallResponse, Demand, Supply};
use crate::worker::Worker;

/// What a hook's demands are served from.
pub struct Supplier<'a, 'b> {
    /// The response, once there is one.
    pub source: Option<&'a mut Source>,
    pub wire: &'a mut Wire<'b>,
    pub body: &'a mut RequestBody,
    /// Calls out that the request has made so far.
    pub calls: &'a mut usize,
    pub worker: &'a Worker,
    pub listener: &'a Listener,
}

impl wasm::Supplier for Supplier<'_, '_> {
    async fn supply(&mut self, demand: Demand) -> Result<Supply, Error> {
        match demand {
            Demand::Body {
                of: HeaderMap::Request,
                limit_bytes,
            } => self.request_body(limit_bytes).await,
            Demand::Body {
                of: HeaderMap::Response,
                limit_bytes,
            } => self.response_body(limit_bytes).await,
            Demand::Calls(calls) => {
                let limit = calls
                    .iter()
                    .map(|call| call.calls_limit)
                    .min()
                    .unwrap_or_default();
                if *self.calls + calls.len() > limit {
                    return Ok(Supply::TooManyCalls);
                }
                *self.calls += calls.len();
                let worker = self.worker;
                let results = join_all(calls.into_iter().map(|call| call_out(worker, call)));
                self.while_client_stays(results).await.map(Supply::Calls)
            }
            Demand::Delay(duration) => {
                self.while_client_stays(tokio::time::sleep(duration))
                    .await?;
                Ok(Supply::Delayed)
            }
        }
    }
}

impl Supplier<'_, '_> {
    async fn request_body(&mut self, limit_bytes: usize) -> Result<Supply, Error> {
        if self.source.is_some() {
            return Ok(Supply::Body(Err(BodyRefused::NotNow)));
        }
        let whole = self
            .body
            .read_whole(self.wire, limit_bytes, self.listener.send_timeout)
            .await?;
        Ok(Supply::Body(whole.ok_or(BodyRefused::TooLarge)))
    }

    /// A body that was read whole takes the place of the one that streams.
    async fn response_body(&mut self, limit_bytes: usize) -> Result<Supply, Error> {
        let Some(source) = &mut self.source else {
            return Ok(Supply::Body(Err(BodyRefused::NotNow)));
        };
        let whole = match source {
            Source::Here(body) => (body.len() <= limit_bytes).then(|| body.clone()),
            Source::Upstream(body) => {
                let mut client = ClientSide {
                    wire: Some(self.wire),
                    body: self.body,
                };
                body.read_whole(&mut client, limit_bytes).await?
            }
        };
        if let Some(whole) = &whole
            && let Source::Upstream(streamed) =
                std::mem::replace(*source, Source::Here(whole.clone()))
        {
            streamed.finish();
        }
        Ok(Supply::Body(whole.ok_or(BodyRefused::TooLarge)))
    }

    async fn while_client_stays<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut client = ClientSide {
            wire: Some(self.wire),
            body: self.body,
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = client.left() => Err(ClientError::Gone.into()),
        }
    }
}

/// One call, over the upstream's kept connections and with its balancing. The error is a line for the plugin.
async fn call_out(worker: &Worker, call: Call) -> Result<CallResponse, String> {
    let timeout = call.timeout;
    let sent = send(worker, call);
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, sent)
            .await
            .map_err(|_| format!("no response in {timeout:?}"))?,
        None => sent.await,
    }
}

async fn send(worker: &Worker, call: Call) -> Result<CallResponse, String> {
    let upstream = worker
        .upstream_named(&call.upstream)
        .ok_or_else(|| format!("there is no upstream {}", call.upstream))?;
    let mut exchange = Exchange::idle();
    exchange.begin(head(&call)?, NOBODY, &exchange.listener.clone());
    exchange.stage = Stage::Balance;
    let mut body = RequestBody::held(call.body);
    let mut client = ClientSide {
        wire: None,
        body: &mut body,
    };
    let text = |error: Error| error.to_string();
    let mut response = upstream::exchange(upstream, &mut exchange, &mut client)
        .await
        .map_err(text)?;
    let whole = response
        .read_whole(&mut client, call.limit_bytes)
        .await
        .map_err(text)?;
    let body = whole.ok_or_else(|| {
        format!(
            "its body is longer than limits.body of {} bytes",
            call.limit_bytes
        )
    })?;
    response.finish();
    let reply = std::mem::take(&mut exchange.reply);
    Ok(CallResponse {
        status: reply.status,
        headers: reply.headers,
        body,
    })
}

fn head(call: &Call) -> Result<RequestHead, String> {
    // Checked when the call was made.
    let target = ByteString::try_from(call.target.clone())
        .map_err(|_| "its target is not text".to_owned())?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (ByteString::from(path), Some(ByteString::from(query))),
        None => (target.clone(), None),
    };
    let headers = call.headers.clone();
    Ok(RequestHead {
        method: call.method.clone(),
        path,
        query,
        version: Version::HTTP_11,
        headers,
    })
}

/// A call is nobody's request; its balancing sees this client.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
