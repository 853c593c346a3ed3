//! Whole exchanges, plugins in order, as `castling_sdk::testing::Chain` takes them through.

use castling_sdk::prelude::*;
use castling_sdk::testing::{self, Chain, Exchange};

/// Says who asks, and lets nobody in who does not.
struct Gate;

#[plugin(state = String)]
impl Gate {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self
    }

    fn access(&self, state: &mut String, request: &mut Request) -> Result<Verdict> {
        let Some(user) = request.header("x-user") else {
            return Ok(Response::status(401).body("who?").into());
        };
        *state = user.to_string_lossy().into_owned();
        request.set_var("user", user);
        zones::counter("seen").add(&*state, 1, Duration::from_secs(60))?;
        Ok(Verdict::Continue)
    }

    fn response_headers(&self, state: &mut String, _: &Request, reply: &mut Reply) {
        reply.set_header("x-gate", &*state);
    }
}

/// Looks for a page under another path, and marks its lines.
struct Pages {
    fails: bool,
}

#[plugin]
impl Pages {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self { fails: false }
    }

    fn rewrite(&self, request: &mut Request) -> Verdict {
        if request.path() == "/old" {
            request.set_path("/new");
            return Verdict::Reroute;
        }
        Verdict::Continue
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        if self.fails {
            bail!("no page for {}", request.path());
        }
        Ok(Verdict::Continue)
    }

    fn response_body(&self, _: &Request, chunk: &mut Chunk) {
        let marked = [b"<", chunk.data(), b">"].concat();
        chunk.replace(marked);
    }
}

fn chain(fails: bool) -> Chain {
    Chain::new()
        .plugin("gate", Gate)
        .plugin("pages", Pages { fails })
        .peer(|request| Response::status(200).body(format!("{}!", request.target())))
        .response_pieces([2])
}

#[test]
fn plugins_see_what_those_before_have_left() {
    let served = chain(false).send(Exchange::get("/old").header("x-user", "ada"));
    assert_eq!(served.status(), 200);
    assert_eq!(served.header("x-gate").unwrap(), b"ada");
    assert_eq!(served.body(), b"</n><ew!>");
    served.assert_trace("tests/traces/page.txt");
}

#[test]
fn an_answer_passes_the_filters_and_no_peer() {
    let served = chain(false).send(Exchange::get("/"));
    assert_eq!((served.status(), served.reached_peer()), (401, false));
    assert_eq!(served.body(), b"<wh><o?>");
    assert_eq!(served.header("x-gate").unwrap(), b"");
}

#[test]
fn a_hook_that_fails_has_the_client_get_an_error() {
    let served = chain(true).send(Exchange::get("/").header("x-user", "ada"));
    assert_eq!((served.status(), served.reached_peer()), (500, false));
    assert_eq!(served.failures(), ["pages content: no page for /"]);
}

#[test]
#[should_panic(expected = "limits.host_calls of 1000 reached")]
fn a_loop_that_never_ends_ends() {
    struct Waits;

    #[plugin]
    impl Waits {
        fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
            Self
        }

        fn access(&self, request: &mut Request) {
            while request.var("never").is_none() {}
        }
    }

    testing::set_host_call_limit(1000);
    Waits.access(Exchange::get("/").request());
}
