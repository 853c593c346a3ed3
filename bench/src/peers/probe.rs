//! Single requests: whether a peer answers, and with what.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::certificates::NAME;
use super::front::Front;
use super::grpc;
use super::socket::Socket;

/// Response of a peer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) status: u16,
    /// The status line and the headers, in lower case.
    pub(super) head: String,
    /// Bytes as on the wire, with HTTP/1: chunks with their sizes.
    pub(super) body: String,
    /// Trailers, each on a line; of HTTP/2 alone.
    pub(super) trailers: String,
}

/// Sends one request by HTTP/1 without TLS, on a connection of its own.
pub(crate) fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reply, String> {
    get_http1(Front::Plain, address, path, headers)
}

/// Sends one request on a connection of its own.
pub(super) fn get_http1(
    front: Front,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reply, String> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut socket = Socket::connect(front, address, PATIENCE)?;
        socket.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        socket.read_to_end(&mut reply)?;
        Ok(reply)
    };
    let reply = exchange().map_err(|e| e.to_string())?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("no whole response")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Reply {
        status: status.ok_or_else(|| format!("no status in {head}"))?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
        trailers: String::new(),
    })
}

/// Sends one request by HTTP/2 on a connection of its own; with gRPC a call, whatever the path.
pub(super) fn get_http2(
    front: Front,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reply, String> {
    let socket = Socket::connect(front, address, PATIENCE).map_err(|e| e.to_string())?;
    let short = socket.tcp().set_read_timeout(Some(POLL));
    short.map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let mut request = http::Request::builder();
    let mut body = None;
    if front == Front::Grpc {
        request = request.method("POST").uri(uri(front, grpc::PATH));
        for (name, value) in grpc::HEADERS {
            request = request.header(name, value);
        }
        body = Some(Bytes::from_static(&grpc::MESSAGE));
    } else {
        request = request.uri(uri(front, path));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let reply = runtime.block_on(exchange(Polled { socket, begun }, request, body));
    reply.map_err(|e| e.to_string())
}

fn uri(front: Front, path: &str) -> String {
    format!("{}://{NAME}{path}", front.scheme())
}

async fn exchange(
    socket: Polled,
    request: http::Request<()>,
    body: Option<Bytes>,
) -> Result<Reply, h2::Error> {
    let (mut client, connection) = h2::client::handshake(socket).await?;
    let mut connection = std::pin::pin!(connection);
    let reply = async move {
        let (response, mut sending) = client.send_request(request, body.is_none())?;
        if let Some(body) = body {
            sending.send_data(body, true)?;
        }
        let (head, mut body) = response.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(Reply {
            status: head.status.as_u16(),
            head: format!("http/2 {}{}", head.status.as_u16(), lines(&head.headers)),
            body: String::from_utf8_lossy(&bytes).into_owned(),
            trailers: lines(&trailers),
        })
    };
    let mut reply = std::pin::pin!(reply);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
            return Poll::Ready(reply);
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // A connection that ended well has brought the reply, or an error of it.
            Poll::Ready(Ok(())) => reply.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn lines(headers: &HeaderMap) -> String {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        format!("\r\n{name}: {value}")
    };
    headers.iter().map(line).collect()
}

/// A blocking socket with a short time-out, asked again and again: enough for one request, and no runtime has to know of TLS.
struct Polled {
    socket: Socket,
    begun: Instant,
}

impl AsyncRead for Polled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        match this.socket.read(buf.initialize_unfilled()) {
            Ok(read) => {
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())
                    && this.begun.elapsed() < PATIENCE =>
            {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Polled {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.get_mut().socket.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.get_mut().socket.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Header of every request of the benchmark, so that all cases send the same.
pub(crate) const KEY: (&str, &str) = ("x-api-key", "s3cret");

const PATIENCE: Duration = Duration::from_secs(20);

/// How long a read of [`Polled`] blocks.
const POLL: Duration = Duration::from_millis(5);
