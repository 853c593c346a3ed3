//! Connections of the load, with TLS and without.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::{Client, Load, Over};

/// A connection to the gateway.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Name that the gateway's certificates are for.
pub(crate) const NAME: &str = "show.test";

impl Client {
    pub(super) async fn connect(&self) -> io::Result<Socket> {
        connect(&self.load, self.group.over, self.source).await
    }
}

/// Connects from this address, and makes the handshake where there is one.
pub(crate) async fn connect(load: &Load, over: Over, source: Ipv4Addr) -> io::Result<Socket> {
    let (address, tls) = match (over, &load.secure) {
        (Over::Plain | Over::Http2, _) => (load.address, None),
        (Over::Tls, Some((address, tls))) => (*address, Some(tls.connector(&["http/1.1"]))),
        (Over::Http2Tls, Some((address, tls))) => (*address, Some(tls.connector(&["h2"]))),
        (Over::Tls | Over::Http2Tls, None) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Socket::Plain(socket));
    };
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    Ok(Socket::Tls(Box::new(tls.connect(name, socket).await?)))
}

impl Socket {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
