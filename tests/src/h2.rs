//! HTTP/2 clients by the `h2` crate, which shows what becomes of each frame.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Version};
use tokio::net::TcpStream;

use crate::client::Reply;

/// Connection of a client that knows beforehand that the gateway speaks HTTP/2.
pub struct H2Client {
    requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &h2::client::Builder::new()).await
    }

    /// Connects with these settings.
    pub async fn with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let socket = TcpStream::connect(address).await.expect("connected");
        socket.set_nodelay(true).expect("an option");
        let (requests, connection) = builder.handshake(socket).await.expect("a preface");
        let driver = tokio::spawn(async move {
            // Errors show at the request.
            let _ended = connection.await;
        });
        Self { requests, driver }
    }

    /// Begins a request. `is_end`: it has no body.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        requests.send_request(request, is_end)
    }

    /// Sends a request with this body, and reads the whole response.
    pub async fn send(&mut self, request: Request<()>, body: &[u8]) -> Result<Reply, h2::Error> {
        let (response, mut sending) = self.begin(request, body.is_empty()).await?;
        if !body.is_empty() {
            sending.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let (head, body) = response.await?.into_parts();
        let (body, _trailers) = read(body).await?;
        Ok(Reply {
            status: head.status,
            version: Version::HTTP_2,
            headers: head.headers,
            body,
        })
    }

    pub async fn get(&mut self, path: &str) -> Result<Reply, h2::Error> {
        self.send(get(path), b"").await
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Drop for H2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A GET for this path.
pub fn get(path: &str) -> Request<()> {
    let request = Request::get(format!("http://test.example{path}"));
    request.body(()).expect("a request")
}

/// Reads a body to its end, and its trailers.
pub async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok((whole.into(), body.trailers().await?))
}
