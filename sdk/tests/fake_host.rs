//! Refusals of the gateway are refusals of the fake host of `castling_sdk::testing`, too.

use castling_sdk::prelude::*;
use castling_sdk::testing::{self, Exchange};

struct Wrong {
    what: &'static str,
}

#[plugin]
impl Wrong {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self { what: "" }
    }

    fn post_read(&self, request: &mut Request) {
        request.set_client_address("10.0.0.1");
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        Ok(match self.what {
            "reroute" => Verdict::Reroute,
            "stream" => Response::status(200).stream()?.finish()?,
            "101" => Response::status(101).into(),
            "large" => Response::status(200).body(vec![b'x'; 2 << 20]).into(),
            "framing" => Response::status(200).header("Content-Length", "1").into(),
            "address" => {
                request.set_client_address("10.0.0.1");
                Verdict::Continue
            }
            "length" => {
                request.set_header("Content-Length", "1");
                Verdict::Continue
            }
            _ => {
                metrics::Counter::new("late_total", "Late.", [])?
                    .with([])
                    .inc();
                Verdict::Continue
            }
        })
    }

    fn content(&self, _: &Request) -> Result<Verdict> {
        let body = Response::status(200).body("12345").stream_exact(10)?;
        match self.what {
            "short" => body.finish(),
            "declines" => Ok(Verdict::Continue),
            _ => Ok(Response::status(404).into()),
        }
    }

    fn response_body(&self, _: &Request, _: &mut Chunk) -> Result<()> {
        http::send("up", http::Request::get("/"))?;
        Ok(())
    }

    fn log(&self, request: &Request, _: &Outcome) -> Result<()> {
        request.set_var("logged", "yes");
        match self.what {
            "delay" => delay(Duration::from_secs(1)),
            _ => http::send("up", http::Request::get("/")).map(drop),
        }
    }
}

/// Writes its response piece by piece, as `what` says.
struct Streams {
    what: &'static str,
}

impl Streams {
    fn content(&self) -> Result<Verdict> {
        let mut body = Response::status(200)
            .header("x-a", "1")
            .body("first")
            .stream_exact(10)?;
        match self.what {
            "beyond" => body.write("123456")?,
            "trailer" => body.trailer("x-sum", "10"),
            "framing" => body.trailer("content-length", "10"),
            _ => {}
        }
        body.write("12345")?;
        body.finish()
    }
}

#[test]
fn a_streamed_response_is_seen_piece_by_piece() {
    let mut exchange = exchange();
    exchange.request();
    Streams { what: "trailer" }.content().unwrap();
    let body = exchange.streamed().unwrap();
    assert_eq!(body.pieces(), [b"first", b"12345"]);
    assert_eq!(body.bytes(), b"first12345");
    assert_eq!(body.trailer("X-Sum"), Some(&b"10"[..]));
    assert_eq!(exchange.reply().status(), 200);
    assert_eq!(exchange.reply().header("x-a").unwrap(), "1");
    for (what, error) in [
        (
            "beyond",
            "write(6 bytes): bad argument: expected no more than the length that the response has told",
        ),
        (
            "framing",
            "finish with trailers: bad argument: expected trailers that say nothing of the message's framing, type or caching",
        ),
    ] {
        exchange = self::exchange();
        exchange.request();
        let refused = Streams { what }.content().unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
    // A second one, after the first has begun.
    let again = Streams { what: "" }.content().unwrap_err();
    assert_eq!(
        again.to_string(),
        "stream with status 200: not in this hook"
    );
}

#[test]
fn a_body_that_nobody_wants_is_told() {
    for exchange in [
        Exchange::new("HEAD", "/"),
        exchange().wanted_pieces(0),
        exchange().wanted_pieces(1),
    ] {
        let mut exchange = exchange;
        exchange.request();
        let ended = Streams { what: "" }.content().unwrap_err();
        assert!(ended.is_unwanted(), "{ended}");
    }
}

fn exchange() -> Exchange {
    Exchange::get("/").call("up", |_| Response::status(200))
}

#[test]
fn what_a_hook_may_not_return_is_refused() {
    for (what, refusal) in [
        ("reroute", "access asked to reroute, which this hook cannot"),
        (
            "101",
            "answer with status 101 and 0 bytes: bad argument: expected a status of 200 to 599",
        ),
        (
            "large",
            "answer with status 200 and 2097152 bytes: limit reached",
        ),
        (
            "framing",
            "answer with status 200 and 0 bytes: bad argument: expected headers that do not frame the message: that is \
             the gateway's business",
        ),
    ] {
        let mut exchange = exchange();
        Wrong { what }.access(exchange.request()).unwrap();
        assert_eq!(exchange.refusal().unwrap().to_string(), refusal);
    }
    testing::set_body_limit(4 << 20);
    Wrong { what: "large" }
        .access(exchange().request())
        .unwrap();
    testing::set_body_limit(1 << 20);
}

#[test]
fn a_response_that_has_begun_must_come_to_its_end() {
    for (what, refusal) in [
        (
            "short",
            "the response ended 5 bytes before the length that it has told",
        ),
        (
            "declines",
            "content declined, after it had begun a response",
        ),
        (
            "answers",
            "answer after the head of another response: not in this hook",
        ),
    ] {
        let mut exchange = exchange();
        Wrong { what }.content(exchange.request()).unwrap();
        assert_eq!(exchange.refusal().unwrap().to_string(), refusal);
    }
}

#[test]
fn what_a_hook_may_not_call_is_refused() {
    let early = Wrong { what: "stream" }.access(exchange().request());
    assert_eq!(
        early.unwrap_err().to_string(),
        "stream with status 200: not in this hook"
    );
    let mut exchange = exchange().response(200);
    let late = Wrong { what: "metric" }
        .access(exchange.request())
        .unwrap_err();
    assert_eq!(late.to_string(), "metric \"late_total\": not in this hook");
    let outcome = exchange.outcome();
    let (delayed, sent) = (Wrong { what: "delay" }, Wrong { what: "send" });
    for (plugin, error) in [
        (delayed, "delay(1s): not in this hook"),
        (sent, "http::send(\"up\", GET /): not in this hook"),
    ] {
        let failed = plugin.log(exchange.request(), &outcome).unwrap_err();
        assert_eq!(failed.to_string(), error);
    }
    let mut failed = None;
    exchange.pass_chunk("x", true, |request, chunk| {
        failed = Wrong { what: "" }.response_body(request, chunk).err();
    });
    assert_eq!(
        failed.unwrap().to_string(),
        "http::send(\"up\", GET /): not in this hook"
    );
    assert!(exchange.calls().is_empty());
}

#[test]
fn what_a_hook_may_not_change_is_refused() {
    for (what, refusal) in [
        (
            "length",
            "set_header(\"Content-Length\", \"1\"): bad argument: expected another header: this one frames the message, \
             which is the gateway's business",
        ),
        (
            "address",
            "set_client_address(\"10.0.0.1\"): not in this hook",
        ),
    ] {
        let mut exchange = exchange();
        Wrong { what }.access(exchange.request()).unwrap();
        assert_eq!(exchange.refusal().unwrap().to_string(), refusal);
    }
    let mut exchange = exchange();
    Wrong { what: "" }.post_read(exchange.request());
    assert_eq!(exchange.request().client_address(), "10.0.0.1");
}

#[test]
fn a_responses_status_and_headers_come_in_any_order() {
    let mut exchange = Exchange::get("/")
        .response_header("etag", "1")
        .response(404);
    assert_eq!(exchange.reply().header("etag").unwrap(), "1");
    assert_eq!(exchange.reply().status(), 404);
}
