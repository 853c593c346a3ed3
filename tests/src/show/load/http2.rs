//! Clients that speak HTTP/2: requests side by side on a connection.

use std::time::Instant;

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;

use super::answer::Answer;
use super::{AFTER_REFUSAL, Cause, Client, count};
use crate::DEADLINE;
use crate::show::marks::Kind;

/// Requests under way on one connection at a time.
const SIDE_BY_SIDE: usize = 4;

/// A request under way.
struct Asked {
    id: u64,
    kind: Kind,
    response: ResponseFuture,
    is_first: bool,
}

/// A whole answer.
struct Received {
    status: u16,
    late: String,
    body: Vec<u8>,
}

impl Client {
    /// Life of a connection.
    pub(super) async fn connection_of_http2(&mut self) {
        let opened = Instant::now();
        let era = self.load.era.now();
        let begun = tokio::time::timeout(DEADLINE, async {
            let socket = self.connect().await.map_err(|error| error.to_string())?;
            let own = socket.tcp().local_addr().ok();
            let begun = h2::client::handshake(socket).await;
            let (requests, connection) = begun.map_err(|error| error.to_string())?;
            Ok((own, requests, connection))
        });
        let late = |_| Err("too late".to_owned());
        let (own, mut requests, connection) = match begun.await.unwrap_or_else(late) {
            Ok(begun) => begun,
            Err(error) => {
                self.fail(0, Kind::Direct, Cause::Connect(error), None, 0);
                tokio::time::sleep(AFTER_REFUSAL).await;
                return;
            }
        };
        count(&self.tally.connections);
        let driver = tokio::task::spawn_local(async move {
            // Errors show at the requests.
            let _ended = connection.await;
        });
        let place = own.map(|own| (own, opened));
        let mut number = 0;
        while number < self.group.requests {
            if number > 0 {
                self.rest().await;
                if self.is_stopped() {
                    break;
                }
            }
            let count_of_batch = SIDE_BY_SIDE.min(self.group.requests - number);
            let Some(asked) = self.ask(&mut requests, count_of_batch, number == 0).await else {
                break;
            };
            number += count_of_batch;
            let mut goes_on = true;
            for one in asked {
                let began = one.is_first.then_some(era);
                goes_on &= self.settle(one, began, place, number).await;
            }
            if !goes_on {
                break;
            }
        }
        drop(requests);
        // The connection says that it ends, and does.
        let _late = tokio::time::timeout(DEADLINE, driver).await;
    }

    /// Sends so many requests. `None`: the connection takes no more, and none was sent.
    async fn ask(
        &mut self,
        requests: &mut SendRequest<Bytes>,
        how_many: usize,
        is_new: bool,
    ) -> Option<Vec<Asked>> {
        let mut asked = Vec::with_capacity(how_many);
        for at in 0..how_many {
            let ready = tokio::time::timeout(DEADLINE, requests.clone().ready()).await;
            let Ok(Ok(mut ready)) = ready else {
                break;
            };
            let id = self.again.pop().unwrap_or_else(|| self.next_id());
            let kind = self.kind_of(id);
            match ready.send_request(request(kind, id), kind != Kind::Post) {
                Ok((response, mut sending)) => {
                    if kind == Kind::Post {
                        // Errors show at the response.
                        let _sent = sending.send_data(Bytes::from_static(b"hello"), true);
                    }
                    let is_first = is_new && at == 0;
                    asked.push(Asked {
                        id,
                        kind,
                        response,
                        is_first,
                    });
                }
                Err(_) => {
                    self.again.push(id);
                    break;
                }
            }
        }
        if asked.is_empty() {
            count(&self.tally.closed_idle);
            return None;
        }
        Some(asked)
    }

    /// Waits for an answer, and judges it. False: the connection is not to be used again.
    async fn settle(
        &mut self,
        asked: Asked,
        began: Option<u64>,
        place: Option<(std::net::SocketAddr, Instant)>,
        number: usize,
    ) -> bool {
        let Asked {
            id, kind, response, ..
        } = asked;
        let cause = match tokio::time::timeout(DEADLINE, receive(response)).await {
            Ok(Ok(received)) => {
                let hex = format!("{id:016x}");
                let answer = Answer {
                    status: received.status,
                    closes: false,
                    late: &received.late,
                    body: &received.body,
                };
                match self.judge(kind, &hex, &answer, began) {
                    Ok(()) => return true,
                    Err(cause) => {
                        self.fail(id, kind, cause, place, number);
                        return true;
                    }
                }
            }
            Ok(Err(error)) if self.load.resends && was_not_looked_at(&error) => {
                count(&self.tally.resent);
                self.again.push(id);
                return false;
            }
            Ok(Err(error)) => Cause::Broken(error.to_string(), 0),
            Err(_) => Cause::Late,
        };
        self.fail(id, kind, cause, place, number);
        false
    }
}

/// RFC 9113 §8.7: the gateway has said so.
fn was_not_looked_at(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let goes_away = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    error.is_remote() && (refused || goes_away)
}

fn request(kind: Kind, id: u64) -> Request<()> {
    let method = match kind {
        Kind::Post => "POST",
        Kind::Direct | Kind::Proxied | Kind::Filtered => "GET",
    };
    Request::builder()
        .method(method)
        .uri(format!("http://show.test{}", kind.path()))
        .header("x-id", format!("{id:016x}"))
        .body(())
        .expect("a request")
}

async fn receive(response: ResponseFuture) -> Result<Received, h2::Error> {
    let (head, mut pieces) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = pieces.data().await {
        let piece = piece?;
        pieces.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let late = head.headers.get("x-late").and_then(|it| it.to_str().ok());
    Ok(Received {
        status: head.status.as_u16(),
        late: late.unwrap_or_default().to_owned(),
        body,
    })
}
