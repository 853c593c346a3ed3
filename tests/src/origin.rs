//! Origins: what stands behind the gateway. These speak ordinary HTTP through hyper; [`crate::raw_origin`] has those
//! that follow a script.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::body::{self, AnyBody};
use crate::raw_origin::RawOrigin;
use crate::runtime::runtime;

/// A running origin on an ephemeral port. Dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    runs: Runs,
}

#[derive(Debug)]
enum Runs {
    Task(AbortHandle),
    Threads(RawOrigin),
    /// A thread that ends when this is dropped.
    Thread {
        _stop: oneshot::Sender<()>,
    },
}

/// Traffic that an origin has seen.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    last: Mutex<Option<Seen>>,
}

/// A request as an origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// The request's target: path and query.
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// The first value of that header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Origin {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.traffic.connections.load(Ordering::Relaxed)
    }

    /// How many requests it has seen so far (of the origins in this module).
    pub fn requests(&self) -> usize {
        self.traffic.requests.load(Ordering::Relaxed)
    }

    /// The last request that it has read to its end (of the origins that read bodies).
    #[track_caller]
    pub fn last(&self) -> Seen {
        let last = self
            .traffic
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.clone().expect("the origin has seen a request")
    }

    /// Origin whose thread ends with the other end of `stop`. It counts nothing.
    pub(crate) fn of_thread(address: SocketAddr, stop: oneshot::Sender<()>) -> Self {
        Self {
            address,
            traffic: Arc::default(),
            runs: Runs::Thread { _stop: stop },
        }
    }

    /// Origin whose connections are served by a task.
    pub(crate) fn of_task(address: SocketAddr, traffic: Arc<Traffic>, task: AbortHandle) -> Self {
        Self {
            address,
            traffic,
            runs: Runs::Task(task),
        }
    }

    pub(crate) fn of_threads(origin: RawOrigin, traffic: Arc<Traffic>) -> Self {
        Self {
            address: origin.address(),
            traffic,
            runs: Runs::Threads(origin),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        match &self.runs {
            Runs::Task(task) => task.abort(),
            Runs::Threads(origin) => origin.stop(),
            Runs::Thread { .. } => {}
        }
    }
}

/// Answers 200 with this text.
pub fn text(text: &'static str) -> Origin {
    answering(move |_| Response::new(body::full(text)))
}

/// Reads each request to its end, then answers.
pub fn answering(answer: impl Fn(&Seen) -> Response<AnyBody> + Send + Sync + 'static) -> Origin {
    answering_after(Duration::ZERO, answer)
}

/// Answers as [`answering`] does, but every answer takes `delay`.
pub fn answering_after(
    delay: Duration,
    answer: impl Fn(&Seen) -> Response<AnyBody> + Send + Sync + 'static,
) -> Origin {
    let answer = Arc::new(answer);
    let traffic = Arc::new(Traffic::default());
    let seen_by = Arc::clone(&traffic);
    listen(traffic, move |request| {
        let (answer, traffic) = (Arc::clone(&answer), Arc::clone(&seen_by));
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await else {
                return Response::new(body::empty());
            };
            let target = head
                .uri
                .path_and_query()
                .map_or_else(|| head.uri.to_string(), ToString::to_string);
            let body = body.to_bytes();
            let seen = Seen {
                method: head.method,
                target,
                version: head.version,
                headers: head.headers,
                body,
            };
            let response = answer(&seen);
            *traffic.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            response
        }
    })
}

/// Sends each request's body back while it is read, with its `Content-Type`.
pub fn echoing() -> Origin {
    serving(|request| async move {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let mut response = Response::new(request.into_body().map_err(Into::into).boxed());
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    })
}

/// Does with each request what `answer` says; bodies stream.
pub fn serving<F, R>(answer: F) -> Origin
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    listen(Arc::new(Traffic::default()), answer)
}

fn listen<F, R>(traffic: Arc<Traffic>, answer: F) -> Origin
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let (listener, address) = runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        (listener, address)
    });
    let accepted = accept(listener, Arc::clone(&traffic), Arc::new(answer));
    let task = runtime().spawn(accepted).abort_handle();
    Origin::of_task(address, traffic, task)
}

async fn accept<F, R>(listener: TcpListener, traffic: Arc<Traffic>, answer: Arc<F>)
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    // Dropped with this future, which closes every connection.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _slower_without = socket.set_nodelay(true);
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        let (traffic, answer) = (Arc::clone(&traffic), Arc::clone(&answer));
        connections.spawn(async move {
            let service = service_fn(|request| {
                traffic.requests.fetch_add(1, Ordering::Relaxed);
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let mut protocol = hyper::server::conn::http1::Builder::new();
            // The gateway may close in the middle: what it did is for the test to judge.
            let _ended = protocol
                .half_close(true)
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}
