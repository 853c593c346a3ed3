//! Makes the host calls that a script lists for each hook, and keeps a line for each with what came of it. The same code runs in a gateway
//! and, natively, in the SDK's fake host.
//!
//! The script is in the kv zone `scripts`, what came of it in `results`: by plugin. With `keeper`, the plugin stores what is posted
//! as the script, and answers any other request with the results.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::script::Call;

/// Calls by plugin and hook.
pub type Script = Vec<BTreeMap<String, Steps>>;

/// Calls of a hook, and how it ends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Steps {
    pub calls: Vec<Call>,
    pub end: End,
}

/// End of a hook.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum End {
    Continue,
    /// Answers with this status and a body of so many bytes.
    Answer(u16, usize),
    Fail,
}

/// Largest piece of a script or of results: a value of a zone.
const MOST_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Index of the plugin in the script.
    pub index: usize,
    #[serde(default)]
    pub keeper: bool,
}

#[derive(Debug)]
pub struct Scripted(Config);

#[plugin]
impl Scripted {
    fn configure(config: Config) -> Result<Self> {
        let labels = ["a"];
        // Series 0 and 1, for scripts to count with.
        metrics::Counter::new("hits_total", "Hits.", labels)?.with(["x"]);
        metrics::Gauge::new("level", "Level.", [])?.with([]);
        Ok(Self(config))
    }

    fn post_read(&self, request: &mut Request) -> Result<Verdict> {
        if self.0.keeper && request.path().starts_with("/-/") {
            request.set_var(KEEPERS, "yes");
        }
        self.run(Some(request), "post_read")
    }

    fn rewrite(&self, request: &mut Request) -> Result<Verdict> {
        self.run(Some(request), "rewrite")
    }

    fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
        self.run(Some(request), "preaccess")
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        self.run(Some(request), "access")
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        match self.0.keeper && is_keepers(request) {
            true => keep(request),
            false => self.run(Some(request), "content"),
        }
    }

    fn balance(&mut self, request: &Request, _: &Peers) -> Result<Option<usize>> {
        self.run(Some(request), "balance").map(|_| None)
    }

    fn peer_done(&mut self, _: usize, _: PeerOutcome, _: Duration) -> Result<()> {
        self.run(None, "peer_done").map(drop)
    }

    fn request_body(&self, request: &Request, _: &mut Chunk) -> Result<Verdict> {
        self.run(Some(request), "request_body")
    }

    fn response_headers(&self, request: &Request, _: &mut Reply) -> Result<Verdict> {
        self.run(Some(request), "response_headers")
    }

    fn response_body(&self, request: &Request, _: &mut Chunk) -> Result<()> {
        self.run(Some(request), "response_body").map(drop)
    }

    fn log(&self, request: &Request, _: &Outcome) -> Result<()> {
        self.run(Some(request), "log").map(drop)
    }
}

impl Scripted {
    /// The plugin with this index, as the fake host has it.
    pub fn new(index: usize) -> Result<Self> {
        Self::configure(Config {
            index,
            keeper: false,
        })
    }

    fn run(&self, request: Option<&Request>, hook: &str) -> Result<Verdict> {
        if self.0.keeper || request.is_some_and(is_keepers) {
            return Ok(Verdict::Continue);
        }
        let script = zones::kv("scripts").get("now")?;
        let script: Script = script.map_or_else(
            || Ok(Vec::new()),
            |it| postcard::from_bytes(&it).map_err(|error| Error::msg(error.to_string())),
        )?;
        let steps = script.get(self.0.index).and_then(|hooks| hooks.get(hook));
        let mut lines = format!("{} {hook}\n", self.0.index);
        for call in steps.map_or(&[][..], |steps| &steps.calls) {
            lines += &format!("  {call:?} = {}\n", call.perform());
        }
        let results = zones::kv("results");
        let key = format!("plugin {}", self.0.index);
        let before = results.get(&key)?.unwrap_or_default();
        results.put(&key, [before, lines.into_bytes()].concat(), None)?;
        match steps.map_or(End::Continue, |steps| steps.end) {
            End::Continue => Ok(Verdict::Continue),
            End::Answer(status, bytes) => Ok(Response::status(status)
                .header("x-by", hook)
                .body(vec![b'b'; bytes])
                .into()),
            End::Fail => Err(Error::msg("the script fails")),
        }
    }
}

/// Variable of requests that are the keeper's.
const KEEPERS: &str = "keeper";

fn is_keepers(request: &Request) -> bool {
    request.var(KEEPERS).is_some()
}

fn keep(request: &mut Request) -> Result<Verdict> {
    if request.method() == "POST" {
        let script = request.read_body(MOST_BYTES)?;
        zones::kv("scripts").put("now", script, None)?;
        for index in 0..2 {
            zones::kv("results").delete(format!("plugin {index}"))?;
        }
        return Ok(Response::status(204).into());
    }
    Ok(Response::status(200).body(results()?).into())
}

/// Results of both plugins, as far as there are any.
pub fn results() -> Result<Vec<u8>> {
    let kept = zones::kv("results");
    let mut all = Vec::new();
    for index in 0..2 {
        all.extend(kept.get(format!("plugin {index}"))?.unwrap_or_default());
    }
    Ok(all)
}
