//! Appends `LABEL.HOOK` to the variable `trail` in every hook but `post_read`; `x-trail` shows the client what was there when its
//! response began, the access log shows all of it.

use std::time::Duration;

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    label: String,
}

struct Recorder {
    label: String,
}

#[plugin]
impl Recorder {
    fn configure(config: Config) -> Result<Self> {
        Ok(Self {
            label: config.label,
        })
    }

    fn rewrite(&self, request: &mut Request) {
        self.record(request, "rewrite");
    }

    fn access(&self, request: &mut Request) {
        self.record(request, "access");
    }

    fn content(&self, request: &mut Request) {
        self.record(request, "content");
    }

    fn balance(&mut self, request: &Request, _peers: &Peers) -> Option<usize> {
        self.record(request, "balance");
        None
    }

    fn peer_done(&mut self, _peer: usize, outcome: PeerOutcome, _latency: Duration) {
        log::info!("{}: a peer is done: {outcome:?}", self.label);
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        self.record(request, "response_headers");
        reply.set_header("x-trail", trail(request));
    }

    fn response_body(&self, request: &Request, chunk: &mut Chunk) {
        if chunk.is_last() {
            self.record(request, "response_body");
        }
    }

    fn log(&self, request: &Request, _outcome: &Outcome) {
        self.record(request, "log");
    }
}

impl Recorder {
    fn record(&self, request: &Request, hook: &str) {
        let before = trail(request);
        let separator = if before.is_empty() { "" } else { " " };
        request.set_var("trail", format!("{before}{separator}{}.{hook}", self.label));
    }
}

fn trail(request: &Request) -> String {
    let trail = request.var("trail");
    trail
        .map(|trail| trail.to_string_lossy().into_owned())
        .unwrap_or_default()
}
