//! One client connection: requests one after the other, until one side has had enough.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tracing::debug;

use crate::alarm::{Alarm, Elapsed};
use crate::exchange::Exchange;
use crate::flow::{self, Fate};
use crate::gateway::Gateway;
use crate::http1::{HeadError, HeadLimits, HeadProgress, ParsedRequest, parse_request};
use crate::listener::Listener;
use crate::socket::{self, HEAD_ROOM_BYTES, Reader, Writer};

/// What a request needs of its connection.
pub struct Connection {
    pub reader: Reader,
    pub writer: Writer,
    pub read_alarm: Alarm,
    pub write_alarm: Alarm,
    /// Used for one request after the other.
    pub exchange: Box<Exchange>,
    pub address: SocketAddr,
}

/// While the worker drains, an idle connection may bring one more request for this long. Closed at once, it could
/// cross a request that is already on its way, which would be lost.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// After the last response, so much of what still comes is read and thrown away, and for so long (nginx
/// `lingering_time`, shorter).
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    listener: Rc<Listener>,
    gateway: Rc<Gateway>,
) {
    let (reader, writer) = socket::split(stream);
    let mut connection = Connection {
        reader,
        writer,
        read_alarm: gateway.alarms().alarm(),
        write_alarm: gateway.alarms().alarm(),
        exchange: Exchange::idle(),
        address,
    };
    let mut progress = HeadProgress::new();
    let mut wait = listener.head_timeout;
    let fate = loop {
        let fate = match connection
            .next_request(&mut progress, wait, &listener, &gateway)
            .await
        {
            Next::Request(request) => {
                let _under_way = gateway.count_request();
                flow::run(&mut connection, *request, &listener, &gateway).await
            }
            Next::Refused(error) => {
                let _under_way = gateway.count_request();
                flow::refuse(&mut connection, error, &listener, &gateway).await
            }
            Next::Closed => break Fate::Close,
        };
        match fate {
            Fate::KeepAlive => wait = listener.idle_timeout,
            Fate::Close | Fate::Linger => break fate,
        }
    };
    if fate == Fate::Linger {
        let Connection {
            reader,
            writer,
            read_alarm,
            ..
        } = &mut connection;
        // Either way the connection ends here.
        let _ = read_alarm
            .limit(LINGER_TIME, socket::linger(reader, writer, LINGER_BYTES))
            .await;
    }
}

enum Next {
    Request(Box<ParsedRequest>),
    Refused(HeadError),
    /// By the client, by a time-out, or because the worker drains.
    Closed,
}

impl Connection {
    /// Waits for the next request, `wait` at most for its first byte.
    async fn next_request(
        &mut self,
        progress: &mut HeadProgress,
        wait: Duration,
        listener: &Listener,
        gateway: &Gateway,
    ) -> Next {
        if self.reader.buf.is_empty() && !self.first_byte(wait, gateway).await {
            return Next::Closed;
        }
        let limits = HeadLimits {
            max_head_bytes: listener.max_head_bytes,
        };
        let Self {
            reader, read_alarm, ..
        } = self;
        let head = async {
            loop {
                match parse_request(&mut reader.buf, progress, &limits) {
                    Ok(Some(request)) => return Next::Request(Box::new(request)),
                    Err(error) => return Next::Refused(error),
                    Ok(None) => match reader.fill(HEAD_ROOM_BYTES).await {
                        Ok(0) | Err(_) => return Next::Closed,
                        Ok(_) => {}
                    },
                }
            }
        };
        match read_alarm.limit(listener.head_timeout, head).await {
            Ok(next) => next,
            Err(Elapsed) => {
                debug!(client = %self.address, "request head not complete in {:?}", listener.head_timeout);
                Next::Closed
            }
        }
    }

    async fn first_byte(&mut self, wait: Duration, gateway: &Gateway) -> bool {
        let Self {
            reader, read_alarm, ..
        } = self;
        if !gateway.is_draining() {
            tokio::select! {
                biased;
                readable = read_alarm.limit(wait, reader.readable()) => return matches!(readable, Ok(Ok(()))),
                () = gateway.drain_begins() => {}
            }
        }
        let readable = read_alarm
            .limit(wait.min(LAST_REQUEST_WAIT), reader.readable())
            .await;
        matches!(readable, Ok(Ok(())))
    }
}
