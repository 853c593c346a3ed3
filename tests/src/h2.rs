//! HTTP/2 clients and origins by the `h2` crate, which shows what becomes of each frame.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::Reply;
use crate::origin::{Origin, Traffic};
use crate::runtime::runtime;

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

    /// Waits for the gateway's settings.
    pub async fn settled(&self) {
        crate::within(crate::DEADLINE, "settings", async {
            while !self.requests.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
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

/// A request to an origin, and the way of its response.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Number of the connection; 0 is the first.
    pub connection: usize,
}

/// Origin that speaks HTTP/2 without being asked, with these settings, and does with each request what `answer` says.
pub fn origin<F, R>(settings: h2::server::Builder, answer: F) -> Origin
where
    F: Fn(Asked) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        (listener, address)
    });
    let traffic = Arc::new(Traffic::default());
    let accepted = accept(listener, Arc::clone(&traffic), settings, Arc::new(answer));
    let task = runtime().spawn(accepted).abort_handle();
    Origin::of_task(address, traffic, task)
}

async fn accept<F, R>(
    listener: TcpListener,
    traffic: Arc<Traffic>,
    settings: h2::server::Builder,
    answer: Arc<F>,
) where
    F: Fn(Asked) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let connection = traffic.connections.fetch_add(1, Ordering::Relaxed);
        let (traffic, answer) = (Arc::clone(&traffic), Arc::clone(&answer));
        let settings = settings.clone();
        connections.spawn(async move {
            let Ok(mut streams) = settings.handshake::<_, Bytes>(socket).await else {
                return;
            };
            let mut answers = JoinSet::new();
            while let Some(Ok((request, respond))) = streams.accept().await {
                traffic.requests.fetch_add(1, Ordering::Relaxed);
                let is_last = request.uri().path() == "/last";
                answers.spawn(answer(Asked {
                    request,
                    respond,
                    connection,
                }));
                if is_last {
                    streams.graceful_shutdown();
                }
            }
            while answers.join_next().await.is_some() {}
        });
    }
}

/// Answers 200 with this body.
pub fn answer(mut respond: SendResponse<Bytes>, body: impl Into<Bytes>) {
    let response = http::Response::new(());
    if let Ok(mut sending) = respond.send_response(response, false) {
        // Errors show at the gateway.
        let _sent = sending.send_data(body.into(), true);
    }
}

/// Answers 200 with this body, as fast as its windows open.
pub async fn answer_all(mut respond: SendResponse<Bytes>, mut body: Bytes) {
    let is_end = body.is_empty();
    let Ok(mut sending) = respond.send_response(http::Response::new(()), is_end) else {
        return;
    };
    while !body.is_empty() {
        sending.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else {
            return;
        };
        let part = body.split_to(room.min(body.len()));
        if sending.send_data(part, body.is_empty()).is_err() {
            return;
        }
    }
}
