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
fn what_a_hook_may_not_call_is_refused() {
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
