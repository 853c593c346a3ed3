//! Hooks that `castling-bench` calls: each does one thing, so many times.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Repetitions of the work of `rewrite`, `preaccess` and `log` in one call.
    times: u32,
    header: HeaderName,
    zone: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            times: 16,
            header: HeaderName::new("x-token").unwrap_or_else(|_| unreachable!()),
            zone: "counts".to_owned(),
        }
    }
}

struct Measured {
    config: Config,
    counts: zones::Counter,
}

/// 64 bytes, once encoded.
#[derive(Deserialize, Serialize)]
struct Kept {
    calls: u32,
    user: String,
    numbers: [u16; 8],
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            calls: 1 << 28,
            user: "u".repeat(42),
            numbers: [0xfff; 8],
        }
    }
}

#[plugin(state = Kept)]
impl Measured {
    fn configure(config: Config) -> Self {
        Self {
            counts: zones::counter(config.zone.as_str()),
            config,
        }
    }

    /// Nothing.
    fn post_read(&self, _request: &mut Request) -> Verdict {
        Verdict::Continue
    }

    /// Reads a header.
    fn rewrite(&self, request: &mut Request) -> Verdict {
        for _ in 0..self.config.times {
            std::hint::black_box(request.header(&self.config.header));
        }
        Verdict::Continue
    }

    /// Sets a header.
    fn preaccess(&self, request: &mut Request) -> Verdict {
        for _ in 0..self.config.times {
            request.set_header(&self.config.header, "0123456789abcdef");
        }
        Verdict::Continue
    }

    /// Work of a small plugin: reads two headers, sets two.
    fn access(&self, request: &mut Request) -> Verdict {
        let token = request.header(&self.config.header);
        let agent = request.header("user-agent");
        if token.is_some() && agent.is_some() {
            request.set_header("x-user", "alice");
            request.set_header("x-tenant", "0123456789abcdef");
        }
        Verdict::Continue
    }

    /// The peer with the fewest requests under way.
    fn balance(&self, _request: &Request, peers: &Peers) -> Option<usize> {
        let free = peers.iter().filter(|peer| !peer.tried);
        free.min_by_key(|peer| peer.active).map(|peer| peer.index)
    }

    /// Changes the request's state.
    fn response_headers(&self, kept: &mut Kept, _request: &Request, _reply: &mut Reply) {
        kept.calls ^= 1;
    }

    /// Counts in a zone.
    fn log(&self, _request: &Request, _outcome: &Outcome) -> Result<()> {
        for _ in 0..self.config.times {
            self.counts.add("192.0.2.1", 1, Duration::from_secs(60))?;
        }
        Ok(())
    }
}
