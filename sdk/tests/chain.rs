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

/// Computes who asks, once, by a variable of another plugin's.
struct Namer {
    name: &'static str,
}

#[plugin(variables = ["who", "none", "broken", "circle"])]
impl Namer {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self { name: "" }
    }

    fn access(&self, request: &mut Request) {
        request.set_header("x-own", format!("{:?}", request.var("circle").is_some()));
    }

    fn variable(&self, request: &Request, name: &str) -> Result<Option<String>> {
        zones::counter("computed").add(name, 1, Duration::from_secs(60))?;
        Ok(match name {
            "who" => {
                let tail = request
                    .var("tail")
                    .map(|tail| tail.to_string_lossy().into_owned());
                Some(format!("{} {}", self.name, tail.unwrap_or_default()))
            }
            "broken" => bail!("nobody knows"),
            _ => None,
        })
    }
}

/// Asks for what others compute.
struct Asker;

#[plugin]
impl Asker {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self
    }

    fn balance(&mut self, request: &Request, _: &Peers) -> Option<usize> {
        // The hook does not wait, not even for a variable.
        let is_set = request.header("x-set").is_some();
        assert_eq!(request.var("who").is_some(), is_set);
        None
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        for name in ["who", "none", "broken", "who"] {
            let value = request.var(name);
            let value =
                value.map_or_else(|| "-".to_owned(), |it| it.to_string_lossy().into_owned());
            reply.add_header("x-var", format!("{name}={value}"));
        }
    }
}

/// Computes where the request goes.
struct Tail;

#[plugin(variables = ["tail"])]
impl Tail {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self
    }

    fn variable(&self, request: &Request, _: &str) -> Option<String> {
        Some(format!("at {}", request.routed_path()))
    }
}

#[test]
fn variables_are_computed_once_by_the_plugin_whose_they_are() {
    let mut chain = Chain::new()
        .plugin("namer", Namer { name: "namer" })
        .plugin("tail", Tail)
        .plugin("asker", Asker);
    let mut served = chain.send(Exchange::get("/a//b/../%63"));
    let values: Vec<String> = {
        let headers = served.exchange().reply().headers();
        let values = headers.iter().filter(|(name, _)| *name == "x-var");
        values
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    };
    assert_eq!(
        values,
        [
            "who=namer at /a/c",
            "none=-",
            "broken=-",
            "who=namer at /a/c"
        ]
    );
    let failures = [
        "namer variable: it asks for a variable of its own, and has one instance here",
        "namer variable: nobody knows",
    ];
    assert_eq!(served.failures(), failures);
    let computed = |name: &str| zones::counter("computed").get(name).unwrap();
    assert_eq!(
        ["who", "none", "broken", "circle"].map(computed),
        [1, 1, 1, 0]
    );
    // A value that a test has set is computed by nobody.
    let mut served = chain.send(Exchange::get("/").header("x-set", "1").var("who", "ada"));
    assert_eq!(
        served.exchange().reply().header("x-var").unwrap(),
        "who=ada"
    );
    assert_eq!(computed("who"), 1);
}

/// Asks for the variable of the plugin before it, which is of its type.
struct Relay(&'static str);

#[plugin(variables = ["relayed"])]
impl Relay {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
        Self("")
    }

    fn access(&self, request: &mut Request) {
        if self.0 == "second" {
            let relayed = request.var("relayed").unwrap();
            request.set_header("x-relayed", relayed);
        }
    }

    fn variable(&self, _: &Request, _: &str) -> Option<&'static str> {
        Some(self.0)
    }
}

#[test]
fn a_plugin_may_wait_for_another_of_its_type() {
    let mut chain = Chain::new()
        .plugin("first", Relay("first"))
        .plugin("second", Relay("second"));
    let mut served = chain.send(Exchange::get("/"));
    assert!(served.failures().is_empty(), "{:?}", served.failures());
    let request = served.exchange().request();
    assert_eq!(request.header("x-relayed").unwrap(), "first");
}
