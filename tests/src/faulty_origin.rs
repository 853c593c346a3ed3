//! Origins that do one thing wrong: plain, by TLS, or over HTTP/2.

use std::time::Duration;

use ::h2::Reason;
use bytes::Bytes;
use http::{Response, StatusCode};
use rustls::ALL_VERSIONS;

use crate::h2::{self, Asked};
use crate::origin::Origin;
use crate::raw_client::RawClient;
use crate::raw_origin;
use crate::tls::Authority;
use crate::tls_origin::{self, TlsConnection};

/// Behaviour of an origin, with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: it answers with [`GOOD`].
    None,
    /// Accepts, and reads nothing.
    NeverReads,
    /// Reads the request's head, and answers nothing.
    NeverAnswers,
    /// Resets before a byte of its answer.
    ResetsAtOnce,
    /// Ends in order before a byte of its answer.
    EndsAtOnce,
    ResetsInHead,
    EndsInHead,
    ResetsInBody,
    EndsInBody,
    /// Ends in the midst of a chunk.
    EndsInChunk,
    /// Stops in the midst of the body, and stays.
    StallsInBody,
    /// Sends a good answer byte by byte.
    Trickles,
    /// Sends what is no HTTP.
    Garbage,
    /// Sends a head that is too large.
    HugeHead,
    /// Says two lengths that differ.
    TwoLengths,
    /// Says a chunk's size that is none.
    BadChunk,
    /// Sends more than the length that it has said.
    SendsMore,
    /// Answers 413 before the request's body, and ends.
    EarlyError,
    /// Sends interim responses without an end.
    Interims,
    /// Sends a good answer, and ends without having said so.
    ClosesAfter,
    /// Resets its first connection, and is good from then on.
    ComesBack,
    /// Refuses a stream of HTTP/2 (REFUSED_STREAM).
    Refuses,
}

/// Body of a good answer.
pub const GOOD: &str = "a good answer";

/// Connection of either kind, as a script uses it.
trait Wire {
    fn read_head(&mut self) -> Result<(), String>;
    fn send(&mut self, bytes: &[u8]) -> Result<(), String>;
    fn reset(&mut self);
    /// Waits until the other side has ended.
    fn wait(&mut self);
}

impl Wire for RawClient {
    fn read_head(&mut self) -> Result<(), String> {
        Self::read_head(self).map(drop)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        Self::send(self, bytes);
        Ok(())
    }

    fn reset(&mut self) {
        // Descriptors of it elsewhere keep no end from being a reset.
        let _gone_before = rustix::net::connect_unspec(self.socket());
    }

    fn wait(&mut self) {
        let _ended = self.read_to_end();
    }
}

impl Wire for TlsConnection {
    fn read_head(&mut self) -> Result<(), String> {
        Self::read_head(self).map(drop)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        Self::send(self, bytes)
    }

    fn reset(&mut self) {
        let _gone_before = rustix::net::connect_unspec(self.socket());
    }

    fn wait(&mut self) {
        while self.read_exact(1).is_ok() {}
    }
}

/// Origin that speaks HTTP/1.
pub fn plain(fault: Fault) -> Origin {
    raw_origin::scripted(move |connection, number| serve(fault, connection, number))
}

/// Origin that speaks HTTP/1 by TLS.
pub fn by_tls(fault: Fault) -> Origin {
    if fault == Fault::NeverReads {
        return raw_origin::stalled();
    }
    let pem = Authority::new("faults").certify(&["origin.test"]);
    let config = tls_origin::server(&pem, ALL_VERSIONS);
    tls_origin::scripted(config, move |connection, number| {
        serve(fault, connection, number)
    })
    .0
}

fn serve(fault: Fault, wire: &mut dyn Wire, number: usize) -> Result<(), String> {
    let good = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    );
    let longer = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe begin";
    if fault == Fault::NeverReads {
        wire.wait();
        return Ok(());
    }
    loop {
        wire.read_head()?;
        match fault {
            Fault::None => wire.send(good.as_bytes())?,
            Fault::ComesBack if number > 0 => wire.send(good.as_bytes())?,
            Fault::ResetsAtOnce | Fault::ComesBack => {
                wire.reset();
                return Ok(());
            }
            Fault::NeverReads | Fault::NeverAnswers | Fault::Refuses => {
                wire.wait();
                return Ok(());
            }
            Fault::EndsAtOnce => return Ok(()),
            Fault::ResetsInHead | Fault::EndsInHead => {
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")?;
                if fault == Fault::ResetsInHead {
                    wire.reset();
                }
                return Ok(());
            }
            Fault::ResetsInBody | Fault::EndsInBody | Fault::StallsInBody => {
                wire.send(longer.as_bytes())?;
                match fault {
                    Fault::StallsInBody => wire.wait(),
                    // A reset takes back what has not been read.
                    Fault::ResetsInBody => {
                        std::thread::sleep(Duration::from_millis(50));
                        wire.reset();
                    }
                    _ => {}
                }
                return Ok(());
            }
            Fault::EndsInChunk => {
                return wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nthe");
            }
            Fault::BadChunk => {
                wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nthe\r\n")?;
                // A pause, so that the head is passed on before the fault shows.
                std::thread::sleep(Duration::from_millis(50));
                wire.send(b"nothing\r\n")?;
            }
            Fault::Trickles => {
                for byte in good.as_bytes() {
                    wire.send(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Fault::Garbage => wire.send(b"\0\x01\x02 this is no HTTP at all\r\n\r\n")?,
            Fault::HugeHead => {
                wire.send(b"HTTP/1.1 200 OK\r\n")?;
                let field = format!("X-Large: {}\r\n", "x".repeat(8000));
                for _ in 0..64 {
                    wire.send(field.as_bytes())?;
                }
                wire.send(b"\r\n")?;
            }
            Fault::TwoLengths => wire.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nthe end",
            )?,
            Fault::SendsMore => {
                wire.send(format!("{good}HTTP/1.1 200 OK\r\n\r\nnot asked for").as_bytes())?;
            }
            Fault::EarlyError => {
                return wire.send(
                    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge",
                );
            }
            Fault::Interims => {
                for _ in 0..100 {
                    wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
                }
                wire.send(good.as_bytes())?;
            }
            Fault::ClosesAfter => return wire.send(good.as_bytes()),
        }
    }
}

/// Origin that speaks HTTP/2 without TLS. What its streams have no counterpart of, its connections do.
pub fn by_http2(fault: Fault) -> Origin {
    match fault {
        Fault::NeverReads => raw_origin::stalled(),
        Fault::Garbage => raw_origin::scripted(|connection, _| {
            connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            connection.read_to_end().map(drop)
        }),
        Fault::EndsAtOnce => raw_origin::scripted(|_, _| Ok(())),
        _ => h2::origin(::h2::server::Builder::new(), move |asked| {
            answer_stream(fault, asked)
        }),
    }
}

async fn answer_stream(fault: Fault, asked: Asked) {
    let Asked {
        request,
        mut respond,
        connection,
    } = asked;
    match fault {
        Fault::NeverAnswers => std::future::pending().await,
        Fault::ResetsAtOnce => respond.send_reset(Reason::INTERNAL_ERROR),
        Fault::ComesBack if connection == 0 => respond.send_reset(Reason::INTERNAL_ERROR),
        Fault::Refuses => respond.send_reset(Reason::REFUSED_STREAM),
        Fault::ResetsInBody | Fault::StallsInBody => {
            let Ok(mut sending) = respond.send_response(Response::new(()), false) else {
                return;
            };
            let _sent = sending.send_data(Bytes::from_static(b"the begin"), false);
            if fault == Fault::StallsInBody {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        Fault::EarlyError => {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            if let Ok(mut sending) = respond.send_response(response, false) {
                let _sent = sending.send_data(Bytes::from_static(b"large"), true);
            }
        }
        _ => {
            let _body = h2::read(request.into_body()).await;
            h2::answer(respond, GOOD);
        }
    }
}
