//! Connects to an address, whatever is spoken there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::error::is_shortage;
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::transport::halves::{self, Reader, Writer};

pub(super) enum ConnectError {
    TimedOut,
    /// Shortage of descriptors or memory, which is nothing about the address.
    Shortage(io::Error),
    Failed(io::Error),
}

/// Makes a connection, within this limit.
pub(super) async fn connect(
    address: SocketAddr,
    alarm: &Alarm,
    limit: Duration,
) -> Result<(Reader, Writer), ConnectError> {
    let connected = alarm.limit(limit, TcpStream::connect(address)).await;
    let connected = connected.map_err(|Elapsed| ConnectError::TimedOut)?;
    let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    match stream {
        Ok(stream) => Ok(halves::split(stream)),
        Err(cause) if is_shortage(&cause) => Err(ConnectError::Shortage(cause)),
        Err(cause) => Err(ConnectError::Failed(cause)),
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
            let connected = connect(address, &alarm, Duration::from_secs(60)).await;
            assert!(connected.is_ok());
            drop(listener);
            let refused = connect(address, &alarm, Duration::from_secs(60)).await;
            assert!(matches!(refused, Err(ConnectError::Failed(_))));
        });
    }
}
