//! A client's connection: requests one after the other, until one side has had enough.
//!
//! While it is idle, a connection is a small task that waits for a byte. What a request needs beyond that, it borrows from
//! a workspace ([`WorkspacePool`]) while it runs.

mod h2;
mod streams;
mod workspace;

use std::any::Any;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tracing::debug;

use crate::config::Linger;
use crate::downstream::AfterResponse;
use crate::downstream::h1::Client;
use crate::flow::{self, StreamClient, Tools};
use crate::http1::{HeadError, HeadProgress, ParsedRequest, parse_request};
use crate::http2;
use crate::message::HeadLimits;
use crate::message::HeadRoom;
use crate::runtime::alarm::{Alarm, Elapsed, NO_GROUP};
use crate::service::Service;
use crate::transport::Transport;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::halves::{self, HEAD_ROOM_BYTES};
use crate::worker_context::WorkerContext;

pub use streams::StreamPool;
pub use workspace::WorkspacePool;

/// While the worker drains, an idle connection may bring one more request for this long. Closed at once, it could
/// cross a request that is already on its way, which would be lost.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// Everything that the connections of one listener are served with.
pub struct Serving {
    pub service: Rc<Service>,
    pub worker: Rc<WorkerContext>,
    /// Workspaces of the worker, the same for all its listeners.
    pub workspaces: Rc<WorkspacePool>,
    /// Tasks of the worker's HTTP/2 streams, the same for all its listeners.
    pub streams: Rc<StreamPool>,
}

/// Serves a connection to its end, and then drops the permit that counts it.
pub async fn serve<P: 'static>(
    transport: Transport,
    address: ClientAddress,
    server: ServerAddress,
    serving: Rc<Serving>,
    permit: P,
) {
    let Serving {
        service,
        worker,
        workspaces,
        ..
    } = &*serving;
    let mut connection = Box::new(Connection {
        client: Client::new(transport, address, server),
        idle_alarm: worker.idle_alarms().alarm(),
        may_be_http2: service.http2.is_some(),
        serving: Rc::clone(&serving),
    });
    connection.idle_alarm.join(service.idle_group());
    let mut wait = service.head_timeout;
    while connection.readable(wait).await {
        let after;
        (connection, after) = workspaces.serve(connection).await;
        match after {
            AfterRead::Nothing => {}
            AfterRead::Idle => {
                wait = service.idle_timeout;
                connection.may_be_http2 = false;
            }
            AfterRead::Closed => return,
            AfterRead::Http2 => return Box::pin(connection.serve_http2(Box::new(permit))).await,
        }
    }
    // The last response may not be out yet.
    let Connection {
        client, idle_alarm, ..
    } = &*connection;
    idle_alarm.join(NO_GROUP);
    let settled = client
        .writer
        .settle(idle_alarm, service.client.send_timeout);
    let _ = settled.await;
}

struct Connection {
    client: Client,
    idle_alarm: Alarm,
    /// No request has come yet that would say that it is not.
    may_be_http2: bool,
    serving: Rc<Serving>,
}

/// State of a connection when there is nothing more to do on it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterRead {
    /// Nothing had come: the connection is as it was. A new socket is taken for readable at first.
    Nothing,
    /// Waits for the next request.
    Idle,
    /// By either side.
    Closed,
    /// The client speaks HTTP/2, and has begun to.
    Http2,
}

impl Connection {
    /// Waits for the first byte of a request, `wait` at most. False: the connection ends without one.
    async fn readable(&self, wait: Duration) -> bool {
        let (reader, alarm) = (&self.client.reader, &self.idle_alarm);
        let worker = &self.serving.worker;
        if !worker.is_draining() {
            let mut has_waited = false;
            let readable = poll_fn(|cx| {
                if has_waited && reader.is_readable() {
                    return Poll::Ready(true);
                }
                has_waited = true;
                match reader.poll_readable(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    // The drain has begun meanwhile, and woken those that wait.
                    Poll::Pending if worker.is_draining() => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                }
            });
            match alarm.limit(wait, readable).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(Elapsed) => return false,
            }
        }
        let readable = poll_fn(|cx| reader.poll_readable(cx));
        let wait = wait.min(LAST_REQUEST_WAIT);
        alarm.limit(wait, readable).await.is_ok()
    }

    /// Goes on by HTTP/2, which the client was known to speak (RFC 9113 §3.3).
    async fn serve_http2(self: Box<Self>, permit: Box<dyn Any>) {
        let Self {
            client, serving, ..
        } = *self;
        let (address, server) = (client.address, client.server);
        let (transport, received) = halves::rejoin(client.reader, client.writer);
        let stream_client = StreamClient::new(address, server, &transport, permit);
        h2::serve(transport, received, stream_client, serving).await;
    }

    /// Serves requests as long as bytes of the next one are there. `room` is for their heads.
    async fn requests(&mut self, tools: &mut Tools, room: &mut HeadRoom) -> AfterRead {
        let Serving {
            service, worker, ..
        } = &*self.serving;
        let _in_use = worker.heap_trim.count_workspace();
        let client = &mut self.client;
        let limits = &service.head_limits;
        let mut progress = HeadProgress::new();
        loop {
            let reader = &mut client.reader;
            let request = match parse_request(&mut reader.buf, &mut progress, limits, room) {
                Ok(None) => more_of_head(client, tools, &mut progress, limits, room, service).await,
                request => request,
            };
            let after_response = match request {
                Ok(Some(request)) => {
                    let _under_way = worker.count_request();
                    flow::run(client, tools, request, service, worker).await
                }
                Ok(None) => return AfterRead::Closed,
                Err(_) if self.may_be_http2 && is_http2(&client.reader.buf) => {
                    return AfterRead::Http2;
                }
                Err(error) => {
                    let _under_way = worker.count_request();
                    flow::refuse(client, tools, error, service, worker).await
                }
            };
            *room = tools.exchange.end();
            match after_response {
                AfterResponse::KeepAlive if client.reader.buf.is_empty() => {
                    if !worker.is_draining() {
                        // In this turn the time is known.
                        self.idle_alarm.start(service.idle_timeout);
                    }
                    return AfterRead::Idle;
                }
                // Each of those that come at once has a turn of its own.
                AfterResponse::KeepAlive => {
                    self.may_be_http2 = false;
                    tokio::task::yield_now().await;
                }
                AfterResponse::Close => return AfterRead::Closed,
                AfterResponse::Linger => {
                    linger(client, &tools.read_alarm, service.client.linger).await;
                    return AfterRead::Closed;
                }
            }
        }
    }
}

/// Whether these are the first bytes of HTTP/2.
#[cold]
fn is_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(http2::PREFACE_BEGIN)
}

/// Serves a connection whose client has chosen HTTP/2 before its first byte, to its end.
pub async fn serve_http2<P: 'static>(
    transport: Transport,
    address: ClientAddress,
    server: ServerAddress,
    serving: Rc<Serving>,
    permit: P,
) {
    let client = StreamClient::new(address, server, &transport, Box::new(permit));
    h2::serve(Rc::new(transport), BytesMut::new(), client, serving).await;
}

/// Reads the rest of the next request's head. `None`: the connection was closed, by the client or by a time-out.
async fn more_of_head(
    client: &mut Client,
    tools: &Tools,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    room: &mut HeadRoom,
    service: &Service,
) -> Result<Option<ParsedRequest>, HeadError> {
    let reader = &mut client.reader;
    let head = async {
        loop {
            if matches!(reader.fill(HEAD_ROOM_BYTES).await, Ok(0) | Err(_)) {
                return Ok(None);
            }
            match parse_request(&mut reader.buf, progress, limits, room) {
                Ok(None) => {}
                request => return request,
            }
        }
    };
    match tools.read_alarm.limit(service.head_timeout, head).await {
        Ok(request) => request,
        Err(Elapsed) => {
            debug!(client = %client.address, "request head not complete in {:?}", service.head_timeout);
            Ok(None)
        }
    }
}

async fn linger(client: &mut Client, alarm: &Alarm, limits: Linger) {
    let linger = halves::linger(&mut client.reader, &mut client.writer, limits.bytes);
    // Either way the connection ends here.
    let _ = alarm.limit(limits.time, linger).await;
}
