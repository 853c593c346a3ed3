//! Connects to an address, by TLS where it is to be, whatever is spoken there.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};

use crate::error::is_shortage;
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::transport::tls::{Offer, PeerTls};
use crate::transport::{PeerAddress, Socket, Transport};

/// Address that is connected to, and what goes before HTTP.
pub(super) struct To<'a> {
    pub address: &'a PeerAddress,
    /// Bytes that go before all else, also before TLS.
    pub header: Option<Vec<u8>>,
    pub tls: Option<&'a PeerTls>,
    /// Protocols that TLS offers.
    pub offer: Offer,
}

pub(super) enum ConnectError {
    TimedOut,
    /// Shortage of descriptors or memory, which is nothing about the address.
    Shortage(io::Error),
    Failed(io::Error),
    /// The address is connected to, and TLS with it failed.
    Handshake(io::Error),
    HandshakeTimedOut,
}

/// Makes a connection, and the handshake on it, both within this limit.
pub(super) async fn connect(
    to: To<'_>,
    alarm: &Alarm,
    limit: Duration,
) -> Result<Transport, ConnectError> {
    let To {
        address,
        header,
        tls,
        offer,
    } = to;
    // Read where it is needed: nearly all connections are made in less than a millisecond, and most have no TLS.
    let begun = tls.map(|_| Instant::now());
    let opened = alarm.limit(limit, open(address)).await;
    let socket = match opened.map_err(|Elapsed| ConnectError::TimedOut)? {
        Ok(socket) => socket,
        Err(cause) if is_shortage(&cause) => return Err(ConnectError::Shortage(cause)),
        Err(cause) => return Err(ConnectError::Failed(cause)),
    };
    if let Some(header) = header {
        // A new socket has room for it.
        match socket.try_write(&header) {
            Ok(written) if written == header.len() => {}
            Ok(_) => return Err(ConnectError::Failed(ErrorKind::WriteZero.into())),
            Err(cause) => return Err(ConnectError::Failed(cause)),
        }
    }
    let (Some(tls), Some(begun)) = (tls, begun) else {
        return Ok(Transport::new(socket));
    };
    let rest = limit.saturating_sub(begun.elapsed());
    // In a box: a request is not to keep room for a handshake.
    let handshake = Box::pin(tls.connect(&socket, offer));
    match alarm.limit(rest, handshake).await {
        Ok(Ok(tls)) => Ok(Transport::with_tls(socket, tls)),
        Ok(Err(cause)) => Err(ConnectError::Handshake(cause)),
        Err(Elapsed) => Err(ConnectError::HandshakeTimedOut),
    }
}

/// A connected socket.
async fn open(address: &PeerAddress) -> io::Result<Socket> {
    match address {
        PeerAddress::Inet(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
        // In a box: a request is not to keep room for the rare kind.
        PeerAddress::Unix(path) => Ok(Box::pin(open_unix(path)).await?.into()),
    }
}

/// Connects to a Unix socket. The kernel refuses at once (EAGAIN) where the listener's queue is full, which for TCP it tries
/// again by itself: so here, until whoever waits has waited for long enough.
async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Pause before the queue of a Unix socket is asked for room again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    use tokio::net::TcpListener;
    use tokio::runtime::LocalOptions;

    use super::*;
    use crate::runtime::alarm::{self, Alarms};

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test)
    }

    async fn connected(address: &PeerAddress, limit: Duration) -> Result<Transport, ConnectError> {
        let to = To {
            address,
            header: None,
            tls: None,
            offer: Offer::Usual,
        };
        connect(to, &Alarms::new(alarm::FINE).alarm(), limit).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_listens_is_connected_to_and_what_does_not_is_refused() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().into();
            assert!(connected(&address, LONG).await.is_ok());
            drop(listener);
            let refused = connected(&address, LONG).await;
            assert!(matches!(refused, Err(ConnectError::Failed(_))));
        });
    }

    #[test]
    fn a_unix_socket_is_connected_to_or_is_not_there() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("peer.sock");
            let address = PeerAddress::Unix(path.clone());
            let missing = connected(&address, LONG).await;
            assert!(matches!(missing, Err(ConnectError::Failed(_))));
            let listener = UnixListener::bind(&path).unwrap();
            assert!(connected(&address, LONG).await.is_ok());
            drop(listener);
            let refused = connected(&address, LONG).await;
            assert!(matches!(refused, Err(ConnectError::Failed(_))));
        });
    }

    #[test]
    fn a_full_queue_of_a_unix_socket_is_waited_for() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("peer.sock");
            let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            listen(&listener, 0).unwrap();
            let _fills_the_queue = UnixStream::connect(&path).unwrap();
            let address = PeerAddress::Unix(path);
            let full = connected(&address, Duration::from_millis(30)).await;
            assert!(matches!(full, Err(ConnectError::TimedOut)));
            let waits = connected(&address, LONG);
            let makes_room = async {
                tokio::time::sleep(2 * FULL_QUEUE_PAUSE).await;
                let _first = rustix::net::accept(&listener).unwrap();
            };
            let (connected, ()) = tokio::join!(waits, makes_room);
            assert!(connected.is_ok());
        });
    }
}
