//! Open load: requests at a rate that does not wait for answers, as that of many clients does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::runtime::{block_on, runtime};

/// Requests to come.
#[derive(Clone, Debug)]
pub(super) struct OpenLoad {
    pub(super) address: SocketAddr,
    /// Requests a second, at random times.
    pub(super) rate: u32,
    pub(super) lasts: Duration,
    /// A client leaves after so long.
    pub(super) patience: Duration,
}

/// Load under way.
pub(super) struct Running {
    pub(super) begun: Instant,
    sent: JoinHandle<Vec<Sample>>,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was due.
    pub(super) at: Instant,
    pub(super) took: Duration,
    /// Status, or why there is none.
    pub(super) said: Result<u16, String>,
}

impl Sample {
    pub(super) fn is_good(&self) -> bool {
        self.said == Ok(200)
    }
}

impl OpenLoad {
    pub(super) fn start(self) -> Running {
        let begun = Instant::now();
        Running {
            begun,
            sent: runtime().spawn(send_all(self, begun)),
        }
    }
}

impl Running {
    /// Waits for its end and all its answers.
    pub(super) fn samples(self) -> Vec<Sample> {
        block_on(self.sent).expect("the load's task")
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.sent.is_finished()
    }
}

/// Connections that wait for a request.
type Idle = Arc<Mutex<Vec<TcpStream>>>;

async fn send_all(load: OpenLoad, begun: Instant) -> Vec<Sample> {
    let idle = Idle::default();
    let mut requests = JoinSet::new();
    let mut samples = Vec::new();
    let mut due = begun;
    while due < begun + load.lasts {
        tokio::time::sleep_until(due.into()).await;
        requests.spawn(one(load.address, due, load.patience, Arc::clone(&idle)));
        // Exponential gaps: clients know nothing of one another.
        let gap = -(1.0 - super::random()).ln() / f64::from(load.rate);
        due += Duration::from_secs_f64(gap);
        while let Some(done) = requests.try_join_next() {
            samples.push(done.expect("a request's task"));
        }
    }
    samples.extend(requests.join_all().await);
    samples
}

async fn one(address: SocketAddr, at: Instant, patience: Duration, idle: Idle) -> Sample {
    let asked = tokio::time::timeout(patience, ask(address, &idle)).await;
    Sample {
        at,
        took: at.elapsed(),
        said: asked.unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))),
    }
}

async fn ask(address: SocketAddr, idle: &Idle) -> Result<u16, String> {
    loop {
        let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let is_kept = kept.is_some();
        let mut socket = match kept {
            Some(socket) => socket,
            None => connect(address).await?,
        };
        match exchange(&mut socket).await {
            Ok(Some(status)) => {
                idle.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(socket);
                return Ok(status);
            }
            // Closed while it was idle: RFC 9112 §9.3.1 has clients take another.
            Ok(None) if is_kept => {}
            Ok(None) => return Err("a new connection was closed without an answer".to_owned()),
            Err(error) => return Err(error),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let socket = TcpStream::connect(address).await;
    let socket = socket.map_err(|error| format!("connect: {error}"))?;
    let _slower_without = socket.set_nodelay(true);
    Ok(socket)
}

/// Sends a request and reads its answer. None: it was closed, and not a byte came.
async fn exchange(socket: &mut TcpStream) -> Result<Option<u16>, String> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    if socket.write_all(request).await.is_err() {
        return Ok(None);
    }
    let mut received = Vec::with_capacity(512);
    loop {
        match socket.read_buf(&mut received).await {
            Ok(0) | Err(_) if received.is_empty() => return Ok(None),
            Ok(0) => return Err("cut short".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("cut short: {error}")),
        }
        if let Some(status) = whole(&received)? {
            return Ok(Some(status));
        }
    }
}

/// Status of a whole response with a Content-Length. None: more must come.
fn whole(received: &[u8]) -> Result<Option<u16>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(received);
    let head = head.map_err(|error| format!("a head that is none: {error}"))?;
    let httparse::Status::Complete(head) = head else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| {
        std::str::from_utf8(header.value)
            .ok()?
            .parse::<usize>()
            .ok()
    });
    let length = length.ok_or("a response without Content-Length")?;
    Ok((received.len() >= head + length).then_some(response.code.unwrap_or(0)))
}
