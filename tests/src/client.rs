//! The ordinary client: hyper.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::body::AnyBody;
use crate::{DEADLINE, within};

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The first value of that header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which must be JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Connection to the gateway. Dropping it closes it, also in the middle of a body.
#[derive(Debug)]
pub struct Connection {
    requests: SendRequest<AnyBody>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (requests, connection) = shaken.map_err(std::io::Error::other)?;
        let driver = tokio::spawn(async move {
            // Errors show at the request.
            let _closed = connection.await;
        });
        Ok(Self { requests, driver })
    }

    /// Sends one request and gives the response's head; its body is read from the connection later.
    pub async fn send(&mut self, request: Request<AnyBody>) -> hyper::Result<Response<Incoming>> {
        self.requests.ready().await?;
        self.requests.send_request(with_host(request)).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sends one request on a connection of its own and reads the whole response. `Err` is what hyper says of it.
pub async fn exchange(address: SocketAddr, request: Request<AnyBody>) -> Result<Reply, String> {
    let mut connection = Connection::open(address)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let response = connection
        .send(request)
        .await
        .map_err(|error| describe(&error))?;
    let (head, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("body: {}", describe(&error)))?
        .to_bytes();
    Ok(Reply {
        status: head.status,
        version: head.version,
        headers: head.headers,
        body,
    })
}

/// [`exchange`] from a test that is not async, within [`DEADLINE`]. Panics where there is no whole response.
#[track_caller]
pub fn send(address: SocketAddr, request: Request<AnyBody>) -> Reply {
    let what = format!("{} {}", request.method(), request.uri());
    let reply = crate::block_on(within(DEADLINE, &what, exchange(address, request)));
    reply.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// An error and its causes.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn with_host(mut request: Request<AnyBody>) -> Request<AnyBody> {
    let host = http::HeaderValue::from_static("test.example");
    request
        .headers_mut()
        .entry(http::header::HOST)
        .or_insert(host);
    request
}
