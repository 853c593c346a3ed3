//! A connection to a peer.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::alarm::{Alarm, Alarms};
use crate::http1::HeadProgress;
use crate::socket::{self, Reader, Writer};

pub(super) struct Connection {
    pub(super) peer_idx: usize,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) progress: HeadProgress,
    pub(super) read_alarm: Alarm,
    pub(super) write_alarm: Alarm,
    /// It has served a request before, so it may be closed by the peer at any moment.
    pub(super) reused: bool,
}

impl Connection {
    pub(super) async fn open(
        peer_idx: usize,
        address: SocketAddr,
        alarms: &Alarms,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = socket::split(stream);
        Ok(Self {
            peer_idx,
            reader,
            writer,
            progress: HeadProgress::new(),
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
            reused: false,
        })
    }
}
