//! Origins that follow a script: they stall, cut, reset and send what no server should.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::origin::{Origin, Traffic};
use crate::raw_client::RawClient;

/// Runs `script` for every connection, each in a thread of its own, with the number of the connection (0 is the first).
/// An `Err` ends the connection; so does the end of the script.
pub fn scripted(
    script: impl Fn(&mut RawClient, usize) -> Result<(), String> + Send + Sync + 'static,
) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let traffic = Arc::new(Traffic::default());
    let origin = RawOrigin {
        address: listener.local_addr().expect("a bound socket"),
        stopping: Arc::new(AtomicBool::new(false)),
        open: Arc::default(),
    };
    let (stopping, open, counted) = (
        Arc::clone(&origin.stopping),
        Arc::clone(&origin.open),
        Arc::clone(&traffic),
    );
    let script = Arc::new(script);
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            if stopping.load(Ordering::Acquire) {
                break;
            }
            let number = counted.connections.fetch_add(1, Ordering::Relaxed);
            if let Ok(also) = socket.try_clone() {
                open.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(also);
            }
            let script = Arc::clone(&script);
            std::thread::spawn(move || {
                let mut connection = RawClient::over(socket);
                // Errors show at the client's end.
                let _ended = script(&mut connection, number);
                let _closed_before = connection.socket().shutdown(std::net::Shutdown::Both);
            });
        }
    });
    Origin::of_threads(origin, traffic)
}

/// Answers each request on each connection with these bytes, without looking at more than its head.
pub fn repeating(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes = bytes.into();
    scripted(move |connection, _| {
        loop {
            connection.read_head()?;
            connection.send(&bytes);
        }
    })
}

/// Answers each connection's only request with these bytes and closes.
pub fn closing(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes = bytes.into();
    scripted(move |connection, _| {
        connection.read_head()?;
        connection.send(&bytes);
        Ok(())
    })
}

/// Reads a request's head and never answers; ends when the other side does.
pub fn stalled() -> Origin {
    scripted(|connection, _| connection.read_to_end().map(drop))
}

/// The running threads of a scripted origin.
#[derive(Debug)]
pub(crate) struct RawOrigin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl RawOrigin {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and closes every connection, which ends their scripts.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _wakes_the_accept = TcpStream::connect(self.address);
        for socket in self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _closed_before = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// An address that nobody else can take and that answers no connection.
#[derive(Debug)]
pub struct DeadAddress {
    address: SocketAddr,
    _held: Vec<Socket>,
}

impl DeadAddress {
    /// Connections are refused: the port is bound, but nobody listens.
    pub fn refusing() -> Self {
        let socket = bound();
        Self {
            address: address_of(&socket),
            _held: vec![socket],
        }
    }

    /// Connections are neither accepted nor refused: the queue is full.
    pub fn silent() -> Self {
        let listening = bound();
        listening.listen(0).expect("a bound socket");
        let address = address_of(&listening);
        let mut held = vec![listening];
        // Fill the queue and one more; the kernel drops the handshakes of all that follow.
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
            socket.set_nonblocking(true).expect("a socket of ours");
            let _in_progress = socket.connect(&SockAddr::from(address));
            held.push(socket);
        }
        Self {
            address,
            _held: held,
        }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket
        .bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
        .expect("a free port");
    socket
}

fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket());
    address.expect("a bound socket has an address")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;
    use crate::load::Load;
    use crate::{body, client, origin};

    #[test]
    fn dead_addresses_refuse_or_say_nothing() {
        let wait = Duration::from_millis(100);
        let kind = |dead: &DeadAddress| {
            TcpStream::connect_timeout(&dead.address(), wait)
                .unwrap_err()
                .kind()
        };
        assert_eq!(kind(&DeadAddress::refusing()), ErrorKind::ConnectionRefused);
        assert_eq!(kind(&DeadAddress::silent()), ErrorKind::TimedOut);
    }

    #[test]
    fn a_scripted_origin_answers_and_ends_with_its_owner() {
        let origin = repeating("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let mut client = RawClient::connect(origin.address());
        for _ in 0..2 {
            assert_eq!(
                client.send("GET / HTTP/1.1\r\n\r\n").read_reply().text(),
                "ok"
            );
        }
        assert_eq!(origin.connections(), 1);
        drop(origin);
        client.expect_close();
    }

    #[test]
    fn the_raw_client_reads_what_hyper_sends() {
        let origin = origin::echoing();
        let mut client = RawClient::connect(origin.address());
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        );
        let reply = client.read_reply();
        assert_eq!(
            (reply.header("transfer-encoding"), reply.text().as_str()),
            (Some("chunked"), "ab")
        );
    }

    #[test]
    fn load_counts_good_answers_and_tells_bad_ones() {
        let origin = origin::answering(|seen| http::Response::new(body::full(seen.target.clone())));
        let load = |target: &str| Load {
            address: origin.address(),
            clients: 3,
            requests_per_connection: 7,
            request: format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            bodies: vec!["/good".to_owned()],
        };
        let good = load("/good").start();
        good.until_more(100);
        assert_eq!(good.stop().failures, [""; 0]);
        let before = origin.requests();
        let bad = load("/bad").start();
        crate::until("bad answers", || origin.requests() > before + 10);
        let report = bad.stop();
        assert_eq!(
            (report.good, report.failures.first().map(String::as_str)),
            (0, Some("request 0: 200 \"/bad\""))
        );
        let request = http::Request::get("/x").body(body::empty()).unwrap();
        assert_eq!(client::send(origin.address(), request).text(), "/x");
    }
}
