//! Notes in each hook that it ran, in the request's state, and tells the notes in a header of its config's name and at the end of
//! the body. The request asks for `x-ballast` bytes of state, and for traps.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    header: String,
}

struct Tally(Config);

#[derive(Default, Deserialize, Serialize)]
struct Seen {
    hooks: Vec<String>,
    ballast: Vec<u8>,
}

impl Seen {
    fn note(&mut self, hook: &str) {
        self.hooks.push(hook.to_owned());
    }

    fn notes(&self) -> String {
        self.hooks.join(" ")
    }
}

#[plugin(state = Seen)]
impl Tally {
    fn configure(config: Config) -> Self {
        Self(config)
    }

    fn rewrite(&self, seen: &mut Seen, _: &mut Request) {
        seen.note("rewrite");
    }

    fn access(&self, seen: &mut Seen, request: &mut Request) {
        seen.note("access");
        if let Some(bytes) = text(request, "x-ballast").parse().ok() {
            seen.ballast = vec![7; bytes];
        }
        if text(request, "x-trap") == self.0.header {
            panic!("it was asked to");
        }
    }

    fn response_headers(&self, seen: &mut Seen, _: &Request, reply: &mut Reply) {
        seen.note("headers");
        reply.set_header(&self.0.header, seen.notes());
    }

    fn response_body(&self, seen: &mut Seen, _: &Request, chunk: &mut Chunk) {
        seen.note("chunk");
        if chunk.is_last() {
            let chunks = seen.hooks.iter().filter(|hook| *hook == "chunk").count();
            chunk.replace([chunk.data(), format!("[{chunks}]").as_bytes()].concat());
        }
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
