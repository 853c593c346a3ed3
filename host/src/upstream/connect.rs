//! Connects to an address, by TLS where it is to be, whatever is spoken there.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::error::is_shortage;
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::transport::tls::{Offer, PeerTls};
use crate::transport::{Socket, Transport};

/// Address that is connected to, and what goes before HTTP.
pub(super) struct To<'a> {
    pub address: SocketAddr,
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
    let connected = alarm.limit(limit, TcpStream::connect(address)).await;
    let connected = connected.map_err(|Elapsed| ConnectError::TimedOut)?;
    let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let socket = match stream {
        Ok(stream) => Socket::from(stream),
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::runtime::LocalOptions;

    use super::*;
    use crate::runtime::alarm::{self, Alarms};

    #[test]
    fn what_listens_is_connected_to_and_what_does_not_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let alarm = Alarms::new(alarm::FINE).alarm();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let to = || To {
                address,
                header: None,
                tls: None,
                offer: Offer::Usual,
            };
            let connected = connect(to(), &alarm, Duration::from_secs(60)).await;
            assert!(connected.is_ok());
            drop(listener);
            let refused = connect(to(), &alarm, Duration::from_secs(60)).await;
            assert!(matches!(refused, Err(ConnectError::Failed(_))));
        });
    }
}
