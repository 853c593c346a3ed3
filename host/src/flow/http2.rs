//! Requests that come by HTTP/2: what is of their streams, around the way that all requests go.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::Tools;
use super::pipeline::Pipeline;
use crate::downstream::{Downstream, RequestBody, SendOptions, h2};
use crate::error::reply;
use crate::exchange::Answer;
use crate::http2::{HeadError, ReceivedRequest, ServerStream};
use crate::message::{BodySize, HeadRoom, Headers, ReplyHead, Scheme};
use crate::service::Service;
use crate::transport::Transport;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::tls::TlsInfo;
use crate::worker_context::WorkerContext;

/// Client of a connection, as its streams share it.
pub struct StreamClient {
    pub address: ClientAddress,
    /// The gateway's end.
    pub server: ServerAddress,
    pub scheme: Scheme,
    /// `None`: the connection is plain.
    pub tls: Option<Arc<TlsInfo>>,
    _permit: Box<dyn Any>,
}

impl StreamClient {
    /// `permit` counts the connection: it is dropped when the last of its streams has ended.
    pub fn new(
        address: ClientAddress,
        server: ServerAddress,
        transport: &Transport,
        permit: Box<dyn Any>,
    ) -> Self {
        let scheme = match transport.is_tls() {
            true => Scheme::Https,
            false => Scheme::Http,
        };
        Self {
            address,
            server,
            scheme,
            tls: transport.tls_info(),
            _permit: permit,
        }
    }
}

/// Serves the request of a stream. Always leaves a line in the access log, whatever happened. `room` is for its head.
pub async fn run_stream(
    mut stream: Box<ServerStream>,
    client: &StreamClient,
    tools: &mut Tools,
    room: &mut HeadRoom,
    service: &Service,
    worker: &WorkerContext,
) {
    let ReceivedRequest {
        mut head,
        size,
        expects_continue,
        dropped_fields,
    } = match stream.take_head(room) {
        Ok(request) => request,
        Err(error) => {
            let refused = refuse(stream, error, client, tools, service, worker);
            return Box::pin(refused).await;
        }
    };
    if dropped_fields > 0 {
        service.metrics.dropped_fields.add(dropped_fields as f64);
    }
    head.scheme = client.scheme;
    head.headers.remove_hop_by_hop();
    let marks = &service.client.marks;
    let address = marks.claims.settle(&mut head, client.address, marks);
    let alarms = h2::Alarms {
        read: &tools.read_alarm,
        write: &tools.write_alarm,
    };
    let session = h2::Session::new(stream, alarms, &service.client, expects_continue);
    let exchange = &mut tools.exchange;
    let (server, tls) = (client.server.clone(), client.tls.clone());
    exchange.begin(head, address, server, tls, &service.name);
    let calls = Cell::new(0);
    let body = RequestBody::new(size, &service.client);
    let downstream = Downstream::H2(session);
    let mut pipeline = Pipeline::new(exchange, downstream, body, &calls, service, worker);
    pipeline.serve().await;
    match pipeline.has_last_hooks() {
        true => pipeline.run_last_hooks().await,
        false => pipeline.log(),
    }
}

/// Answers a head that is not taken. There is no request, so no plugin sees it.
async fn refuse(
    stream: Box<ServerStream>,
    error: HeadError,
    client: &StreamClient,
    tools: &mut Tools,
    service: &Service,
    worker: &WorkerContext,
) {
    let Answer {
        status,
        mut headers,
        body,
    } = reply::plain(error.status());
    service.client.marks.set_server(&mut headers);
    debug!(client = %client.address, status = status.as_u16(), "request refused: {error}");
    let exchange = &mut tools.exchange;
    let (server, tls) = (client.server.clone(), client.tls.clone());
    exchange.begin_unread(client.address, server, tls, &service.name);
    exchange.reply_mut().status = status;
    exchange.stats_mut().body_bytes_sent = body.len() as u64;
    service.count(exchange, &service.router.unrouted.requests);
    let alarms = h2::Alarms {
        read: &tools.read_alarm,
        write: &tools.write_alarm,
    };
    let session = h2::Session::new(stream, alarms, &service.client, false);
    answer(session, ReplyHead { status, headers }, body, &worker.date()).await;
    worker.add_to_access_log(exchange);
}

async fn answer(session: h2::Session<'_>, head: ReplyHead, body: Bytes, date: &[u8; 29]) {
    let mut downstream = Downstream::H2(session);
    let options = SendOptions {
        size: BodySize::Exact(body.len() as u64),
        date: Some(date),
        keep_alive: true,
    };
    if downstream.send_head(&head, options) {
        downstream.send_data(body);
    }
    downstream.finish(&Headers::new());
    // The client has left where it fails.
    let _ = downstream.flush().await;
}
