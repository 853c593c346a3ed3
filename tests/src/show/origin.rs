//! An origin that costs little: one thread, one pass over each head, one write for each answer.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::load::number;
use super::tunnels::AGREED;
use crate::origin::Origin;
use crate::tls::websocket_accept;

/// Answers with the request's `x-id`, the marks that the gateway's plugins have left in it, and this name.
pub(crate) fn marking(name: &str, resets: Option<Arc<Resets>>) -> Origin {
    let name: Arc<str> = name.into();
    serving(move |socket| {
        let (name, resets) = (Arc::clone(&name), resets.clone());
        async move { serve(socket, &name, resets.as_deref()).await }
    })
}

/// Agrees to go on with a WebSocket, and sends back what comes until it ends.
pub(crate) fn echoing() -> Origin {
    serving(echo)
}

/// Runs this for each connection, all in one thread.
fn serving<F, R>(serve: F) -> Origin
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = std::io::Result<()>> + 'static,
{
    let (address_known, address) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an epoll instance");
        let accept = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let bound: SocketAddr = listener.local_addr().expect("a bound socket");
            // The receiver may have panicked meanwhile.
            let _ = address_known.send(bound);
            while let Ok((socket, _)) = listener.accept().await {
                let served = serve(socket);
                tokio::task::spawn_local(async move {
                    // The gateway may close at any time: what it did is for the client to judge.
                    let _ended = served.await;
                });
            }
        };
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                () = accept => {}
                // Also when the other end is dropped.
                _ = stopped => {}
            }
        });
    });
    let address = address.recv().expect("the origin's thread");
    Origin::of_thread(address, stop)
}

/// Which requests are reset: 1% of the ids; half of them the first time only, so that another try is answered.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    /// Ids of the half that is answered at the next try, and that were reset.
    once: Mutex<HashSet<u64>>,
}

/// Fate that [`Resets`] gives a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    ResetOnce,
    ResetAlways,
}

impl Resets {
    pub(crate) fn fate(id: u64) -> Fate {
        // Other digits than those that choose traps.
        match (id / 100 % 100, id / 10_000 % 2) {
            (0, 0) => Fate::ResetOnce,
            (0, _) => Fate::ResetAlways,
            _ => Fate::Answered,
        }
    }

    fn resets(&self, id: u64) -> bool {
        match Self::fate(id) {
            Fate::Answered => false,
            Fate::ResetAlways => true,
            Fate::ResetOnce => {
                let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
                // The id is not seen a third time.
                !once.remove(&id) && once.insert(id)
            }
        }
    }
}

async fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut received = Vec::with_capacity(1024);
    while !received.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&received).to_ascii_lowercase();
    // The key is of base64, in which case counts.
    let at = head
        .find("sec-websocket-key: ")
        .map(|at| at + "sec-websocket-key: ".len());
    let key = at.and_then(|at| received.get(at..at + 24));
    let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
    let agreed = AGREED.replace("ACCEPT", &websocket_accept(&key));
    socket.write_all(agreed.as_bytes()).await?;
    let mut piece = vec![0; 4096];
    loop {
        match socket.read(&mut piece).await? {
            0 => return socket.shutdown().await,
            bytes => socket.write_all(&piece[..bytes]).await?,
        }
    }
}

async fn serve(mut socket: TcpStream, name: &str, resets: Option<&Resets>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut received = Vec::with_capacity(4096);
    let mut answer = Vec::with_capacity(512);
    loop {
        let Some(request) = parse(&received) else {
            if socket.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if resets.is_some_and(|resets| resets.resets(number(request.id))) {
            return SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        let mark = if request.filtered { " @mark@" } else { "" };
        let Request {
            id,
            early,
            access,
            len,
            ..
        } = request;
        let body_len = id.len() + early.len() + access.len() + name.len() + mark.len() + 3;
        answer.clear();
        std::io::Write::write_fmt(
            &mut answer,
            format_args!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_len}\r\n\r\n{id} {early} {access} {name}{mark}"
            ),
        )?;
        received.drain(..len);
        socket.write_all(&answer).await?;
    }
}

struct Request<'a> {
    id: &'a str,
    early: &'a str,
    access: &'a str,
    filtered: bool,
    /// Head and body.
    len: usize,
}

/// None: more must come. What cannot be read as it should is answered with marks that nobody takes for right.
fn parse(received: &[u8]) -> Option<Request<'_>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head_len)) = request.parse(received) else {
        return None;
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .unwrap_or("none")
    };
    let len = head_len + header("content-length").parse::<usize>().unwrap_or(0);
    if received.len() < len {
        return None;
    }
    Some(Request {
        id: header("x-id"),
        early: header("x-early"),
        access: header("x-access"),
        filtered: request.path == Some("/filtered"),
        len,
    })
}
