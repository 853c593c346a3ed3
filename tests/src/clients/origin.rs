//! Origin of the [`Site`](super::Site): pages, a stream of events, trailers.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::body::{self, AnyBody, BodyError};
use crate::origin::{self, Origin};

/// Bytes of `/large`.
pub(super) const LARGE_BYTES: usize = 1 << 20;

/// Parts of `/page`.
const ASSETS: usize = 50;

/// Events of a stream.
const EVENTS: usize = 3;

/// Serves them until it is dropped.
pub(super) fn serving() -> Origin {
    let events = Arc::new(Events::default());
    origin::serving(move |request| {
        let events = Arc::clone(&events);
        async move {
            let path = request.uri().path().to_owned();
            let (folder, name) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
            match folder {
                "" => text("hello"),
                "page" => typed("text/html; charset=utf-8", body::full(page())),
                "asset" => asset(name),
                "large" => Response::new(body::full(vec![b'x'; LARGE_BYTES])),
                "echoed" => Response::new(request.into_body().map_err(Into::into).boxed()),
                "trailers" => Response::new(body::full(trailers(request.into_body()).await)),
                "events" => typed("text/event-stream", events.begin().boxed()),
                "seen" => {
                    events.seen(name);
                    text("")
                }
                "slow" => std::future::pending().await,
                _ => {
                    let mut response = text("not here");
                    *response.status_mut() = http::StatusCode::NOT_FOUND;
                    response
                }
            }
        }
    })
}

fn text(text: &'static str) -> Response<AnyBody> {
    Response::new(body::full(text))
}

fn typed(media: &'static str, body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    let media = http::HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// Page that loads all assets, a third each scripts, style sheets and images.
fn page() -> String {
    let mut page = "<!doctype html><title>page</title><link rel=icon href=data:,>\n".to_owned();
    for number in 0..ASSETS {
        page += &match number % 3 {
            0 => format!("<script src=\"/asset/{number}.js\"></script>\n"),
            1 => format!("<link rel=stylesheet href=\"/asset/{number}.css\">\n"),
            _ => format!("<img alt=\"\" src=\"/asset/{number}.svg\">\n"),
        };
    }
    page
}

fn asset(name: &str) -> Response<AnyBody> {
    match name.rsplit_once('.').map_or("", |(_, kind)| kind) {
        "js" => typed(
            "text/javascript",
            body::full("window.ran = (window.ran || 0) + 1;"),
        ),
        "css" => typed("text/css", body::full("img { width: 4px }")),
        _ => {
            let image = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"4\" height=\"4\"/>";
            typed("image/svg+xml", body::full(image))
        }
    }
}

/// The trailers of a body, a line each.
async fn trailers(body: Incoming) -> String {
    let Ok(whole) = body.collect().await else {
        return "broken".to_owned();
    };
    let fields = whole.trailers().into_iter().flatten();
    fields
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

/// The stream of events under way: one comes at once, each other when the client says that it has seen the one before.
#[derive(Default)]
struct Events {
    stream: Mutex<Option<UnboundedSender<Bytes>>>,
}

impl Events {
    fn begin(&self) -> EventBody {
        let (send, receive) = unbounded_channel();
        let _received = send.send(event(1));
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(send);
        EventBody(receive)
    }

    /// Sends the next one, or ends the stream behind the last.
    fn seen(&self, number: &str) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let number: usize = number.parse().unwrap_or(EVENTS);
        match (&*stream, number < EVENTS) {
            (Some(send), true) => drop(send.send(event(number + 1))),
            _ => *stream = None,
        }
    }
}

fn event(number: usize) -> Bytes {
    format!("data: {number}\n\n").into()
}

struct EventBody(UnboundedReceiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let event = self.0.poll_recv(cx);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
