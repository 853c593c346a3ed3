//! A connection to a peer.

use std::io;
use std::net::SocketAddr;
use std::vec;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::upload::Upload;
use crate::http1::{BodyDecoder, Framing, HeadProgress};
use crate::message::BodySize;
use crate::runtime::alarm::{Alarm, Alarms};
use crate::transport::halves::{self, Reader, Writer};

/// In a box for as long as it lives, with the state of the exchange that is under way on it: what goes from hand to hand
/// with each request is a pointer.
pub(super) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) progress: HeadProgress,
    pub(super) read_alarm: Alarm,
    pub(super) write_alarm: Alarm,
    /// The connection has served a request before, so it may be closed by the peer at any moment.
    pub(super) reused: bool,
    pub(super) upload: Upload,
    pub(super) response: Response,
}

/// The body of a response, as far as it has come.
pub(super) struct Response {
    pub(super) size: BodySize,
    pub(super) decoder: BodyDecoder,
    /// The peer allows another request on this connection.
    pub(super) keep_alive: bool,
    /// The peer has answered before the end of the request's body, of which nothing more can be sent.
    pub(super) upload_broken: bool,
    /// Was read for a plugin that wanted all of it, which was too much.
    pub(super) read_ahead: vec::IntoIter<Bytes>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, alarms: &Alarms) -> io::Result<Box<Self>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = halves::split(stream);
        Ok(Box::new(Self {
            reader,
            writer,
            progress: HeadProgress::new(),
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
            reused: false,
            upload: Upload::DONE,
            response: Response {
                size: BodySize::None,
                decoder: BodyDecoder::new(Framing::None),
                keep_alive: false,
                upload_broken: false,
                read_ahead: vec::IntoIter::default(),
            },
        }))
    }
}
