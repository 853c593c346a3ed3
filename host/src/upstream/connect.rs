//! Connects to an address, by TLS where it is to be, whatever is spoken there.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, UnixStream};

use super::alternate::Alternate;
use crate::config::{self, TcpKeepalive};
use crate::error::is_shortage;
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::transport::tls::{Offer, PeerTls};
use crate::transport::{PeerAddress, Socket, Transport, keep_alive, put_off_port};

/// Address that is connected to, and what goes before HTTP.
pub(super) struct To<'a> {
    pub address: &'a PeerAddress,
    /// Address that is tried beside it. `None`: no other is.
    pub alternate: Option<&'a Alternate>,
    pub options: &'a Options,
    /// Bytes that go before all else, also before TLS.
    pub header: Option<Vec<u8>>,
    pub tls: Option<&'a PeerTls>,
    /// Protocols that TLS offers.
    pub offer: Offer,
}

/// Options of the sockets that connections are made with, those of TCP.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Probes of silent connections. `None`: none.
    keepalive: Option<TcpKeepalive>,
    /// Addresses that connections come from. Empty: the kernel chooses.
    source: Vec<IpAddr>,
    /// Time after which another address is tried beside one that has not answered. Zero: none is.
    pub attempt_delay: Duration,
}

pub(super) enum ConnectError {
    TimedOut,
    /// Shortage here, of descriptors, memory or ports, or a source address that is not this host's: nothing about the address.
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
        alternate,
        options,
        header,
        tls,
        offer,
    } = to;
    // Read where it is needed: nearly all connections are made in less than a millisecond, and most have no TLS.
    let begun = tls.map(|_| Instant::now());
    let pair = alternate.and_then(|alternate| Some((alternate, alternate.order(address)?)));
    let opened = match pair {
        None => alarm.limit(limit, open(address, options)).await,
        // In a box: a request is not to keep room for the rare kind.
        Some((alternate, order)) => {
            let opened = Box::pin(alternate.open(order, options));
            alarm.limit(limit, opened).await
        }
    };
    let socket = match opened.map_err(|Elapsed| ConnectError::TimedOut)? {
        Ok(socket) => socket,
        Err(error) => return Err(error),
    };
    if let Some(header) = header {
        // A new socket has room for it.
        match socket.try_write(&header) {
            Ok(written) if written == header.len() => {}
            Ok(_) => return Err(ConnectError::Failed(ErrorKind::WriteZero.into())),
            Err(cause) => return Err(cause.into()),
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

impl From<io::Error> for ConnectError {
    fn from(cause: io::Error) -> Self {
        match is_shortage(&cause) {
            true => Self::Shortage(cause),
            false => Self::Failed(cause),
        }
    }
}

impl Options {
    pub fn of(config: &config::Upstream) -> Self {
        Self {
            keepalive: config.tcp_keepalive,
            source: config.source_address.clone(),
            attempt_delay: config.happy_eyeballs,
        }
    }

    /// The default, with this delay.
    #[cfg(test)]
    pub fn delayed(attempt_delay: Duration) -> Self {
        Self {
            attempt_delay,
            ..Self::default()
        }
    }

    /// A socket for a connection to this address.
    fn socket(&self, to: SocketAddr) -> Result<TcpSocket, ConnectError> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        if let Some(keepalive) = &self.keepalive {
            keep_alive(&socket, keepalive)?;
        }
        if !self.source.is_empty() {
            self.bind(&socket, to)?;
        }
        Ok(socket)
    }

    /// Has a connection to this address come from ours of its family. A family that has none is the address's failure: a name
    /// may have peers of both.
    fn bind(&self, socket: &TcpSocket, to: SocketAddr) -> Result<(), ConnectError> {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
        let source = *self.source.iter().find(of_family).ok_or_else(|| {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("source_address has no address of {family}");
            ConnectError::Failed(io::Error::new(ErrorKind::AddrNotAvailable, what))
        })?;
        put_off_port(socket)?;
        socket.bind((source, 0).into()).map_err(|error| {
            let what = format!("from {source} to {to}: {error}");
            let told = io::Error::new(error.kind(), what);
            let unavailable = [ErrorKind::AddrNotAvailable, ErrorKind::AddrInUse];
            match unavailable.contains(&error.kind()) || is_shortage(&error) {
                true => ConnectError::Shortage(told),
                false => ConnectError::Failed(told),
            }
        })
    }
}

/// A connected socket.
async fn open(address: &PeerAddress, options: &Options) -> Result<Socket, ConnectError> {
    match address {
        PeerAddress::Inet(address) => open_inet(*address, options).await,
        // In a box: a request is not to keep room for the rare kind.
        PeerAddress::Unix(path) => Ok(Box::pin(open_unix(path)).await?.into()),
    }
}

pub(super) async fn open_inet(
    address: SocketAddr,
    options: &Options,
) -> Result<Socket, ConnectError> {
    let connected = options.socket(address)?.connect(address).await;
    Ok(connected.map_err(|error| refused(error, address))?.into())
}

/// Error of a connection to this address that was not made.
#[cold]
fn refused(error: io::Error, to: SocketAddr) -> ConnectError {
    let is_ours = match error.kind() {
        ErrorKind::AddrInUse => true,
        ErrorKind::AddrNotAvailable => has_address_for(to),
        _ => false,
    };
    match is_ours {
        true => {
            let what = format!("to {to}: no local port is free: {error}");
            ConnectError::Shortage(io::Error::new(error.kind(), what))
        }
        false => error.into(),
    }
}

/// Whether this host has an address to reach this one from. The kernel says the same of a host without (IPv6 that is turned
/// off) as of one whose ports are all in use, but for datagrams, of which none is sent.
fn has_address_for(to: SocketAddr) -> bool {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let connected = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| rustix::net::connect(&socket, &to));
    connected != Err(Errno::ADDRNOTAVAIL)
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

    use rustix::net::{SocketAddrUnix, bind, listen, socket, sockopt};
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
        connected_with(&Options::default(), address, limit).await
    }

    async fn connected_with(
        options: &Options,
        address: &PeerAddress,
        limit: Duration,
    ) -> Result<Transport, ConnectError> {
        let to = To {
            address,
            alternate: None,
            options,
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
    fn connections_come_from_the_address_of_the_family() {
        run(async {
            let source = [127, 0, 0, 7].into();
            let options = Options {
                attempt_delay: Duration::ZERO,
                source: vec![source],
                keepalive: None,
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().into();
            let _both = [
                connected_with(&options, &address, LONG).await.ok().unwrap(),
                connected_with(&options, &address, LONG).await.ok().unwrap(),
            ];
            for _ in 0..2 {
                let (_, from) = listener.accept().await.unwrap();
                assert_eq!(from.ip(), source);
            }
            let error = |options: Options, address: &'static str| async move {
                let address = PeerAddress::try_from(address.to_owned()).unwrap();
                match connected_with(&options, &address, LONG).await {
                    Err(ConnectError::Failed(error)) => format!("theirs: {error}"),
                    Err(ConnectError::Shortage(error)) => format!("ours: {error}"),
                    _ => "another outcome".to_owned(),
                }
            };
            let other_family = error(options, "[::1]:80").await;
            let said = "theirs: source_address has no address of IPv6";
            assert_eq!(other_family, said, "a name may have both");
            let foreign = Options {
                attempt_delay: Duration::ZERO,
                // TEST-NET-1, RFC 5737.
                source: vec![[192, 0, 2, 1].into()],
                keepalive: None,
            };
            let why = error(foreign, "127.0.0.1:80").await;
            let said = "ours: from 192.0.2.1 to 127.0.0.1:80: ";
            assert!(why.starts_with(said), "{why}");
        });
    }

    #[test]
    fn ports_that_are_out_are_ours_to_answer_for() {
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        let is_ours = |errno: Errno| {
            let error = refused(io::Error::from(errno), to);
            matches!(error, ConnectError::Shortage(_))
        };
        for ours in [
            Errno::ADDRNOTAVAIL,
            Errno::ADDRINUSE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::MFILE,
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for theirs in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::TIMEDOUT] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }

    #[test]
    fn silent_connections_are_probed_where_that_is_wanted() {
        let of = |keepalive| Options {
            attempt_delay: Duration::ZERO,
            keepalive,
            source: Vec::new(),
        };
        run(async {
            let address = "127.0.0.1:80".parse().unwrap();
            let silent = of(None).socket(address).ok().unwrap();
            assert!(!sockopt::socket_keepalive(&silent).unwrap());
            let keepalive = TcpKeepalive {
                idle_seconds: 60,
                interval_seconds: 10,
                count: 5,
            };
            let probed = of(Some(keepalive)).socket(address).ok().unwrap();
            assert!(sockopt::socket_keepalive(&probed).unwrap());
            let idle = sockopt::tcp_keepidle(&probed).unwrap();
            let interval = sockopt::tcp_keepintvl(&probed).unwrap();
            assert_eq!((idle.as_secs(), interval.as_secs()), (60, 10));
            assert_eq!(sockopt::tcp_keepcnt(&probed).unwrap(), 5);
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
