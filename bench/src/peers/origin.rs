//! The origin behind every peer: prebuilt responses, kept connections, one thread. It does as little as it can, since it
//! shares its core with the load. A load that must not wait for the thread to be given the core runs in it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::grpc;

/// The thread.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// Address of the origin of gRPC.
    pub(crate) grpc: SocketAddr,
    jobs: UnboundedSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs until the program ends. The thread has the caller's CPU affinity.
pub(crate) fn start() -> Result<Origin, String> {
    let (listener, address) = listen()?;
    let (grpc_listener, grpc) = listen()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| e.to_string())?;
    let (jobs, todo) = unbounded_channel();
    thread::spawn(move || {
        LocalSet::new().block_on(&runtime, async move {
            spawn_local(work(todo));
            if let Ok(listener) = TcpListener::from_std(grpc_listener) {
                spawn_local(grpc::accept(listener));
            }
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener).await;
            }
        });
    });
    Ok(Origin {
        address,
        grpc,
        jobs,
    })
}

fn listen() -> Result<(std::net::TcpListener, SocketAddr), String> {
    let listen = || {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|e: std::io::Error| format!("the origin cannot listen: {e}"))
}

impl Origin {
    /// Runs a task in the origin's thread, and waits for it.
    pub(super) fn run<T, F>(&self, task: impl FnOnce() -> F + Send + 'static) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (done, result) = mpsc::sync_channel(1);
        let job = move || {
            let task = task();
            // The receiver may have given up.
            spawn_local(async move { done.send(task.await) });
        };
        let gone = "the origin's thread has ended";
        self.jobs.send(Box::new(job)).map_err(|_| gone)?;
        result.recv().map_err(|_| gone.to_owned())
    }
}

async fn work(mut todo: UnboundedReceiver<Job>) {
    while let Some(job) = todo.recv().await {
        job();
    }
}

async fn accept(listener: TcpListener) {
    let responses = Rc::new(Responses::new());
    loop {
        // An error is one connection's, or want of descriptors, which the load will tell of.
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let responses = Rc::clone(&responses);
        spawn_local(async move {
            let _slower_without = socket.set_nodelay(true);
            let _closed = serve(socket, &responses).await;
        });
    }
}

/// The bytes of a response's body, by path.
pub(super) const BODIES: [(&str, usize); 4] = [
    ("/34", 34),
    ("/1k", 1 << 10),
    ("/64k", 64 << 10),
    ("/1m", 1 << 20),
];

/// Answers with the request's head as the origin has received it.
pub(super) const SEEN: &str = "/seen";

/// Text that every KiB of the bodies has once, so that there is something to substitute.
pub(super) const PHRASE: &str = "http://internal.example";

struct Responses {
    by_path: Vec<(&'static str, Vec<u8>)>,
}

impl Responses {
    fn new() -> Self {
        let by_path = BODIES.map(|(path, len)| (path, response(&body(len))));
        Self {
            by_path: by_path.into(),
        }
    }

    fn of(&self, path: &str) -> Option<&[u8]> {
        let found = self.by_path.iter().find(|(known, _)| *known == path);
        found.map(|(_, response)| &response[..])
    }
}

/// Lines of text, the phrase in the first of each KiB.
fn body(len: usize) -> Vec<u8> {
    let mut kib = format!("<a href=\"{PHRASE}/page\">a page</a>\n");
    while kib.len() < 1 << 10 {
        kib.push_str("thirty-four bytes of the gateway.\n");
    }
    kib.truncate(1 << 10);
    if len < kib.len() {
        return b"thirty-four bytes of the gateway.\n"[..len].to_vec();
    }
    kib.repeat(len >> 10).into_bytes()
}

fn response(body: &[u8]) -> Vec<u8> {
    let mut head = String::from("HTTP/1.1 200 OK\r\nServer: origin\r\n");
    head.push_str("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/html\r\n");
    let _infallible = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(mut socket: TcpStream, responses: &Responses) -> std::io::Result<()> {
    let mut buf = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        let Some(request) = Request::parse(&buf[..filled])? else {
            if filled == buf.len() {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            match socket.read(&mut buf[filled..]).await? {
                0 => return Ok(()),
                n => filled += n,
            }
            continue;
        };
        let seen = (request.path == SEEN).then(|| response(&buf[..request.head_len]));
        let answer = match &seen {
            Some(seen) => seen,
            None => responses.of(request.path).unwrap_or(NOT_FOUND),
        };
        let here = (filled - request.head_len).min(request.body_len);
        let (taken, mut missing) = (request.head_len + here, request.body_len - here);
        buf.copy_within(taken..filled, 0);
        filled -= taken;
        while missing > 0 {
            let room = missing.min(buf.len());
            match socket.read(&mut buf[..room]).await? {
                0 => return Ok(()),
                n => missing -= n,
            }
        }
        socket.write_all(answer).await?;
    }
}

struct Request<'a> {
    path: &'a str,
    head_len: usize,
    body_len: usize,
}

impl<'a> Request<'a> {
    /// None when the head is not there yet. A body that has no length is an error: no peer should send one, since the
    /// load gives lengths.
    fn parse(bytes: &'a [u8]) -> std::io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let bad = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let httparse::Status::Complete(head_len) = request.parse(bytes).map_err(|_| bad())? else {
            return Ok(None);
        };
        let mut body_len = 0;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(bad());
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).map_err(|_| bad())?;
                body_len = text.parse().map_err(|_| bad())?;
            }
        }
        Ok(Some(Self {
            path: request.path.unwrap_or_default(),
            head_len,
            body_len,
        }))
    }
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_length_and_the_phrase_once_a_kib() {
        for (_, len) in BODIES {
            let text = String::from_utf8(body(len)).unwrap();
            assert_eq!(text.len(), len);
            assert_eq!(text.matches(PHRASE).count(), len >> 10);
        }
    }

    #[test]
    fn a_request_is_known_when_its_head_is_there() {
        let whole = b"POST /34 HTTP/1.1\r\nHost: x\r\ncontent-length: 7\r\n\r\n1234567";
        assert!(Request::parse(&whole[..30]).unwrap().is_none());
        let request = Request::parse(whole).unwrap().unwrap();
        assert_eq!(
            (request.path, request.head_len + request.body_len),
            ("/34", whole.len())
        );
    }
}
