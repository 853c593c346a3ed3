//! Leaves its config's name in every place that a plugin can reach, so that a response which two configs have made
//! shows it. Traps for a share of the requests, chosen by their `x-id`.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    name: String,
    /// Status of every response.
    status: u16,
    /// `access` panics for the ids whose remainder by 100 is below this.
    #[serde(default)]
    traps_percent: u64,
}

struct Stamp {
    config: Config,
}

#[plugin]
impl Stamp {
    fn configure(config: Config) -> Self {
        Self { config }
    }

    fn post_read(&self, request: &mut Request) {
        request.set_header("x-early", &self.config.name);
    }

    /// Answers where the path says `/direct`, with the request's id and what `post_read` has left.
    fn access(&self, request: &mut Request) -> Verdict {
        let id = text(request, "x-id");
        if self.config.traps_percent > 0 && number(&id) % 100 < self.config.traps_percent {
            panic!("request {id} traps");
        }
        if request.path() == "/direct" {
            let body = format!("{id} {} {} none", text(request, "x-early"), self.config.name);
            return Response::status(self.config.status).body(body).into();
        }
        request.set_header("x-access", &self.config.name);
        Verdict::Continue
    }

    fn response_headers(&self, _: &Request, reply: &mut Reply) {
        if reply.status() < 400 {
            reply.set_status(self.config.status);
        }
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn number(id: &str) -> u64 {
    u64::from_str_radix(id, 16).unwrap_or(u64::MAX)
}
