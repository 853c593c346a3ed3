//! An origin of gRPC, beside that of HTTP/1 and in its thread: every call is answered with the same message.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Path of a call. The origin does not look at it.
pub(super) const PATH: &str = "/bench.Echo/Call";

/// Headers of a call, beside those that all requests have.
pub(super) const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/grpc"), ("te", "trailers")];

/// Message of a call and of its answer, not compressed, with its length: 34 bytes as in the other cases.
pub(super) static MESSAGE: [u8; 34] = *b"\0\0\0\0\x1dtwenty-nine bytes of message\n";

pub(super) async fn accept(listener: TcpListener) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let trailers = Rc::new(trailers);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let trailers = Rc::clone(&trailers);
        spawn_local(async move {
            let _slower_without = socket.set_nodelay(true);
            let _closed = serve(socket, &trailers).await;
        });
    }
}

/// A task a call: those that have come together are answered together.
async fn serve(socket: TcpStream, trailers: &Rc<HeaderMap>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .max_concurrent_streams(1 << 10)
        .handshake(socket)
        .await?;
    while let Some(call) = connection.accept().await {
        let (call, answer) = call?;
        let trailers = Rc::clone(trailers);
        spawn_local(async move {
            let _reset = self::answer(call, answer, &trailers).await;
        });
    }
    Ok(())
}

async fn answer(
    call: Request<h2::RecvStream>,
    mut answer: h2::server::SendResponse<Bytes>,
    trailers: &HeaderMap,
) -> Result<(), h2::Error> {
    let mut body = call.into_body();
    while let Some(piece) = body.data().await {
        let len = piece?.len();
        body.flow_control().release_capacity(len)?;
    }
    let mut head = Response::new(());
    let [(name, value), _] = HEADERS;
    let headers = head.headers_mut();
    headers.insert(name, HeaderValue::from_static(value));
    let mut sending = answer.send_response(head, false)?;
    sending.send_data(Bytes::from_static(&MESSAGE), false)?;
    sending.send_trailers(trailers.clone())
}
