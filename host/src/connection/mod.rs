//! One client connection: requests one after the other, until one side has had enough.

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use crate::address::ClientAddress;
use crate::alarm::Elapsed;
use crate::flow::{self, Client, Fate};
use crate::http1::{HeadError, HeadLimits, HeadProgress, ParsedRequest, parse_request};
use crate::listener::Listener;
use crate::socket::{self, HEAD_ROOM_BYTES};
use crate::stream::Stream;
use crate::worker::Worker;

/// While the worker drains, an idle connection may bring one more request for this long. Closed at once, it could
/// cross a request that is already on its way, which would be lost.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// After the last response, so much of what still comes is read and thrown away, and for so long (nginx
/// `lingering_time`, shorter).
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub async fn serve(
    stream: Stream,
    address: ClientAddress,
    listener: Rc<Listener>,
    worker: Rc<Worker>,
) {
    let server = listener.local_address(&stream);
    let mut client = Client::new(stream, address, server, worker.alarms());
    let mut progress = HeadProgress::new();
    let mut wait = listener.head_timeout;
    let fate = loop {
        let fate = match next_request(&mut client, &mut progress, wait, &listener, &worker).await {
            Next::Request(request) => {
                let _under_way = worker.count_request();
                flow::run(&mut client, *request, &listener, &worker).await
            }
            Next::Refused(error) => {
                let _under_way = worker.count_request();
                flow::refuse(&mut client, error, &listener, &worker).await
            }
            Next::Closed => break Fate::Close,
        };
        match fate {
            Fate::KeepAlive => {
                wait = listener.idle_timeout;
                progress.recycle(mem::take(&mut client.exchange.request.headers));
            }
            Fate::Close | Fate::Linger => break fate,
        }
    };
    if fate == Fate::Linger {
        let Client {
            reader,
            writer,
            read_alarm,
            ..
        } = &mut client;
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

/// Waits for the next request, `wait` at most for its first byte.
async fn next_request(
    client: &mut Client,
    progress: &mut HeadProgress,
    wait: Duration,
    listener: &Listener,
    worker: &Worker,
) -> Next {
    if client.reader.buf.is_empty() && !first_byte(client, wait, worker).await {
        return Next::Closed;
    }
    let limits = HeadLimits {
        max_head_bytes: listener.max_head_bytes,
    };
    let Client {
        reader, read_alarm, ..
    } = client;
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
            debug!(client = %client.address, "request head not complete in {:?}", listener.head_timeout);
            Next::Closed
        }
    }
}

async fn first_byte(client: &mut Client, wait: Duration, worker: &Worker) -> bool {
    let Client {
        reader, read_alarm, ..
    } = client;
    if !worker.is_draining() {
        tokio::select! {
            biased;
            readable = read_alarm.limit(wait, reader.readable()) => return matches!(readable, Ok(Ok(()))),
            () = worker.drain_begins() => {}
        }
    }
    let readable = read_alarm
        .limit(wait.min(LAST_REQUEST_WAIT), reader.readable())
        .await;
    matches!(readable, Ok(Ok(())))
}
