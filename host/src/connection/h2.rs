//! A client's connection over HTTP/2: one task for its frames, and one for each of its streams ([`StreamPool`](super::StreamPool)).
//!
//! The connection's task runs after those of its streams, which have woken it: so what they have written leaves at once.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tracing::debug;

use super::streams::StreamJob;
use super::{LAST_REQUEST_WAIT, Serving};
use crate::flow::StreamClient;
use crate::http2::ServerConnection;
use crate::runtime::alarm::{Alarm, NO_GROUP};
use crate::runtime::clock;
use crate::transport::Transport;

/// Serves a connection to its end. `received`: what was read of it before. The permit that counts it is dropped when the last of
/// its streams has ended.
pub async fn serve(
    transport: Rc<Transport>,
    received: BytesMut,
    client: StreamClient,
    serving: Rc<Serving>,
) {
    let service = &serving.service;
    let Some(http2) = &service.http2 else {
        return;
    };
    let idle_alarm = serving.worker.idle_alarms().alarm();
    let handshake = Box::pin(http2.handshake(transport, received));
    let connection = match idle_alarm.limit(service.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            debug!(client = %client.address, "HTTP/2: no connection: {error}");
            return;
        }
        Err(_) => {
            debug!(client = %client.address, "HTTP/2: no preface in {:?}", service.head_timeout);
            return;
        }
    };
    let mut connection = Box::new(Connection {
        connection,
        client: Rc::new(client),
        idle_alarm,
        busy_alarm: serving.worker.idle_alarms().alarm(),
        busy: Busy::No,
        written_bytes: 0,
        drains_since: None,
        opened: clock::now(),
        serving,
    });
    poll_fn(|cx| clock::with_cached_now(|| connection.poll(cx))).await;
}

struct Connection {
    connection: ServerConnection,
    client: Rc<StreamClient>,
    /// Limits the time without a stream.
    idle_alarm: Alarm,
    /// Limits what [`Busy`] says.
    busy_alarm: Alarm,
    busy: Busy,
    /// Bytes written when the alarm was armed.
    written_bytes: u64,
    /// When the client was told to begin no more streams.
    drains_since: Option<Instant>,
    opened: Instant,
    serving: Rc<Serving>,
}

/// Reason why a connection that has streams waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    No,
    /// The client takes nothing of what is written.
    Writing,
    /// A head has begun to come.
    Head,
    /// Frames of its end are written.
    Ending,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.look_for_drain();
            match self.connection.poll_stream(cx) {
                Poll::Ready(Some(stream)) => self.serving.streams.dispatch(StreamJob {
                    stream,
                    client: Rc::clone(&self.client),
                    serving: Rc::clone(&self.serving),
                }),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if self.connection.is_flooded() && self.busy != Busy::Ending {
            self.serving.service.metrics.floods.inc();
        }
        if self.poll_busy(cx).is_ready() {
            return Poll::Ready(());
        }
        self.poll_idle(cx)
    }

    /// Tells the client once when the worker drains or the connection is old enough.
    fn look_for_drain(&mut self) {
        if self.drains_since.is_some() {
            return;
        }
        let now = clock::now();
        let is_old = |age| now.duration_since(self.opened) >= age;
        let is_old = self.serving.service.client.max_age.is_some_and(is_old);
        if is_old || self.serving.worker.is_draining() {
            self.connection.begin_drain();
            self.idle_alarm.disarm();
            self.drains_since = Some(now);
        }
    }

    /// Ready when the client has kept the connection waiting for too long.
    fn poll_busy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let service = &self.serving.service;
        let (busy, limit) = match () {
            () if self.connection.is_ending() => (Busy::Ending, END_TIME),
            () if self.connection.is_blocked() => (Busy::Writing, service.client.send_timeout),
            () if self.connection.is_within_head() => (Busy::Head, service.head_timeout),
            () => (Busy::No, Duration::ZERO),
        };
        let written_bytes = self.connection.written_bytes();
        let has_progressed = busy == Busy::Writing && written_bytes != self.written_bytes;
        if busy != self.busy || has_progressed {
            self.busy_alarm.disarm();
            (self.busy, self.written_bytes) = (busy, written_bytes);
        }
        if busy == Busy::No {
            return Poll::Pending;
        }
        let elapsed = self.busy_alarm.poll_elapsed(limit, cx);
        if elapsed.is_ready() {
            debug!(client = %self.client.address, "HTTP/2: connection ended after {limit:?}: {busy:?}");
        }
        elapsed
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.has_streams() {
            self.idle_alarm.join(NO_GROUP);
            self.idle_alarm.disarm();
            return Poll::Pending;
        }
        let service = &self.serving.service;
        self.idle_alarm.join(service.idle_group());
        let limit = match self.drains_since {
            Some(_) => service.idle_timeout.min(LAST_REQUEST_WAIT),
            None => service.idle_timeout,
        };
        if self.idle_alarm.poll_elapsed(limit, cx).is_pending() {
            return Poll::Pending;
        }
        self.idle_alarm.disarm();
        if self.connection.is_ending() {
            return Poll::Pending;
        }
        self.connection.end_idle();
        // The frames that say so are written in the next turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Longest time in which a client is told that its connection ends.
const END_TIME: Duration = Duration::from_secs(1);
