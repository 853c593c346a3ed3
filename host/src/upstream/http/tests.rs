//! Streams to peers, over sockets without a network.

use std::future::poll_fn;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;

use super::*;
use crate::runtime::alarm;
use crate::transport::{Socket, halves};

/// Runs a test where local tasks can be spawned.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(test);
}

/// A stream and its peer.
pub fn pair() -> (PeerStream, UnixStream) {
    living(Life::ENDLESS)
}

/// A stream with these bounds, and its peer.
pub fn living(life: Life) -> (PeerStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let halves = halves::split(Socket::Unix(ours));
    let alarms = Alarms::new(alarm::FINE);
    let open = OpenConnection::default();
    (PeerStream::h1(halves, &alarms, life, open), theirs)
}

pub async fn flush(stream: &mut PeerStream) {
    let flushed = poll_fn(|cx| stream.poll_flush(cx, Duration::from_secs(60), "peer"));
    flushed.await.expect("it is taken");
}

/// Begins an exchange; returns what the peer has seen of it.
pub async fn begin(stream: &mut PeerStream, peer: &mut UnixStream, body: BodySize) -> Vec<u8> {
    stream.send_head(&RequestHead::default(), b"h", body);
    flush(stream).await;
    let mut seen = vec![0; 1000];
    let bytes = peer.read(&mut seen).await.unwrap();
    seen.truncate(bytes);
    seen
}

async fn head(stream: &mut PeerStream) -> Result<u16, UpstreamError> {
    let (limits, mut headers) = (HeadLimits::of(1000), Headers::new());
    let head = poll_fn(|cx| stream.poll_head(cx, &limits, &Method::GET, &mut headers, "peer"));
    head.await.map(|status| status.as_u16())
}

/// Body of the response that has begun.
async fn body(stream: &mut PeerStream) -> Result<Vec<u8>, UpstreamError> {
    let mut body = Vec::new();
    loop {
        match stream.try_piece().expect("valid") {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::NeedMore => poll_fn(|cx| stream.poll_fill(cx, "peer")).await?,
            Piece::End => return Ok(body),
        }
    }
}

/// Fate of a stream whose peer answers a request without a body so.
async fn released(answer: &[u8]) -> Released {
    released_of(Life::ENDLESS, answer).await
}

async fn released_of(life: Life, answer: &[u8]) -> Released {
    let (mut stream, mut peer) = living(life);
    begin(&mut stream, &mut peer, BodySize::None).await;
    peer.try_write(answer).unwrap();
    head(&mut stream).await.expect("a head");
    body(&mut stream).await.expect("a body");
    stream.release()
}

#[test]
fn interim_responses_come_before_the_response_but_for_100() {
    run(async {
        let (mut stream, mut peer) = pair();
        let seen = begin(&mut stream, &mut peer, BodySize::None).await;
        assert!(seen.ends_with(b"\r\n\r\n"));
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        peer.try_write(answer).unwrap();
        assert_eq!(head(&mut stream).await.ok(), Some(103));
        assert_eq!(head(&mut stream).await.ok(), Some(200));
        assert_eq!(stream.size(), BodySize::Exact(2));
        assert_eq!(body(&mut stream).await.ok(), Some(b"ab".to_vec()));
    });
}

#[test]
fn what_nobody_has_asked_for_is_an_error() {
    run(async {
        let (mut stream, peer) = pair();
        peer.try_write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            .unwrap();
        let switched = head(&mut stream).await;
        assert!(matches!(
            switched,
            Err(UpstreamError::UnexpectedUpgrade { .. })
        ));
    });
}

#[test]
fn a_peer_that_ends_early_is_an_error() {
    run(async {
        let (mut stream, peer) = pair();
        peer.try_write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
            .unwrap();
        assert_eq!(head(&mut stream).await.ok(), Some(200));
        drop(peer);
        let cut = body(&mut stream).await;
        assert!(matches!(cut, Err(UpstreamError::BadBody { .. })));

        let (mut stream, peer) = pair();
        drop(peer);
        let closed = head(&mut stream).await;
        assert!(matches!(closed, Err(UpstreamError::Closed { .. })));
    });
}

#[test]
fn a_stream_is_kept_when_both_sides_are_through_and_in_step() {
    run(async {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        let Released::Reusable(stream) = released(answer).await else {
            panic!("both are through");
        };
        assert!(stream.is_reused());
        let more = [&answer[..], b"HTTP/1.1"].concat();
        assert!(matches!(released(&more).await, Released::OutOfStep));
        let last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert!(matches!(released(last).await, Released::Closed));
    });
}

#[test]
fn a_stream_is_not_kept_for_more_requests_than_it_takes() {
    run(async {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        for (requests_left, is_kept) in [(1, false), (2, true)] {
            let life = Life {
                requests_left,
                ..Life::ENDLESS
            };
            let released = released_of(life, answer).await;
            assert_eq!(matches!(released, Released::Reusable(_)), is_kept);
        }
    });
}

#[test]
fn a_stream_is_not_kept_before_the_request_has_ended() {
    run(async {
        for is_finished in [true, false] {
            let (mut stream, mut peer) = pair();
            begin(&mut stream, &mut peer, BodySize::Exact(2)).await;
            stream.send_data(Bytes::from_static(b"ab"));
            if is_finished {
                stream.finish(&Headers::new());
            }
            flush(&mut stream).await;
            peer.try_write(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert_eq!(head(&mut stream).await.ok(), Some(204));
            let is_kept = matches!(stream.release(), Released::Reusable(_));
            assert_eq!(is_kept, is_finished);
        }
    });
}
