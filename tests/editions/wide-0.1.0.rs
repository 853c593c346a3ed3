//! A plugin that uses all hooks and nearly all host calls of its edition.

use castling_sdk::metrics::{Counter, Gauge, Histogram};
use castling_sdk::prelude::*;
use castling_sdk::zones::Rate;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    word: String,
}

struct Wide {
    word: String,
    requests: Counter<1>,
    size: Gauge<0>,
    times: Histogram<0>,
}

#[derive(Default)]
struct Seen(Vec<&'static str>);

#[plugin(state = Seen, variables = ["wide"], timer = "50ms", timer_on = "one_worker")]
impl Wide {
    fn configure(config: Config) -> Result<Self> {
        if config.word.is_empty() {
            bail!("word is empty");
        }
        zones::kv("notes").must_be_granted()?;
        Ok(Self {
            word: config.word,
            requests: Counter::new("requests_total", "Requests.", ["method"])?,
            size: Gauge::new("size", "A size.", [])?,
            times: Histogram::new("times", "Times.", [], &[0.1, 1.0])?,
        })
    }

    fn post_read(&self, seen: &mut Seen, request: &mut Request) {
        seen.0.push("post_read");
        if request.header("x-forget").is_some() {
            request.remove_header("x-forget");
        }
        request.set_header("x-word", &self.word);
    }

    fn rewrite(&self, seen: &mut Seen, request: &mut Request) -> Verdict {
        seen.0.push("rewrite");
        if request.path() == "/old" {
            request.set_path("/new");
            request.set_query("from=old");
            return Verdict::Reroute;
        }
        Verdict::Continue
    }

    fn preaccess(&self, seen: &mut Seen, request: &mut Request) -> Result<Verdict> {
        seen.0.push("preaccess");
        delay(Duration::from_millis(1))?;
        let rate = Rate::new(1000, Duration::from_secs(60))?;
        zones::counter("counts").take(request.client_address(), rate)?;
        zones::counter("counts").add("all", 1, Duration::from_secs(60))?;
        Ok(Verdict::Continue)
    }

    fn access(&self, seen: &mut Seen, request: &mut Request) -> Result<Verdict> {
        seen.0.push("access");
        self.requests.with([&request.method()]).inc();
        let notes = zones::kv("notes");
        notes.put("a/last", request.path(), Some(Duration::from_secs(60)))?;
        notes.put_if_absent("a/first", "1", None)?;
        notes.compare_and_swap("a/first", Some(b"1"), "2", None)?;
        let listed = notes.list("a/", 10)?.len();
        notes.delete("a/first")?;
        let last = notes.get("a/last")?.unwrap_or_default();
        request.set_var("listed", format!("{listed} {}", String::from_utf8_lossy(&last)));
        let asked = http::send("side", http::Request::get("/asked").header("x-from", "wide"))?;
        request.add_header("x-asked", asked.body());
        Ok(Verdict::Continue)
    }

    fn content(&self, seen: &mut Seen, request: &mut Request) -> Result<Verdict> {
        seen.0.push("content");
        if request.path() == "/streamed" {
            let mut writer = Response::status(200).header("x-kind", "streamed").stream()?;
            writer.write("piece one, ")?;
            writer.write("piece two")?;
            return writer.finish();
        }
        if request.path() == "/whole" {
            let body = request.read_body(1000)?;
            let (all, later) = (zones::counter("counts").get("all")?, clock::monotonic());
            let told = format!(
                "{} {} {} {} {} {}",
                String::from_utf8_lossy(&body).len(),
                all > 0,
                later > Duration::ZERO && clock::wall() > later,
                random::below(1),
                request.var("wide").unwrap().to_string_lossy(),
                request.tls().is_none(),
            );
            return Ok(Response::status(200).header("x-kind", "whole").body(told).into());
        }
        Ok(Verdict::Continue)
    }

    fn request_body(&self, seen: &mut Seen, _request: &Request, chunk: &mut Chunk) {
        seen.0.push("request_body");
        let upper = chunk.data().to_ascii_uppercase();
        chunk.replace(upper);
    }

    fn balance(&mut self, seen: &mut Seen, _request: &Request, peers: &Peers) -> Option<usize> {
        seen.0.push("balance");
        let least = peers.iter().min_by_key(|peer| peer.active)?;
        least.address();
        peers.iter().position(|peer| peer.address() == least.address())
    }

    fn peer_done(&mut self, seen: &mut Seen, peer: usize, outcome: PeerOutcome, latency: Duration) {
        seen.0.push("peer_done");
        self.times.with([]).observe(latency.as_secs_f64());
        log::debug!("peer {peer} {:?} {outcome:?}", castling_sdk::peer_address(peer));
    }

    fn response_headers(&self, seen: &mut Seen, request: &Request, reply: &mut Reply) {
        seen.0.push("response_headers");
        reply.set_header("x-listed", request.var("listed").unwrap().as_bytes());
        for (name, _) in reply.headers().iter() {
            if name == "server" {
                reply.remove_header("server");
            }
        }
        if reply.status() == 404 {
            reply.set_status(410);
        }
    }

    fn response_body(&self, seen: &mut Seen, _request: &Request, chunk: &mut Chunk) {
        seen.0.push("response_body");
        self.size.with([]).set(chunk.data().len() as f64);
        if chunk.is_last() {
            let mut data = chunk.data().to_vec();
            data.extend_from_slice(b"!");
            chunk.replace(data);
        }
    }

    fn log(&self, seen: &mut Seen, request: &Request, outcome: &Outcome) {
        seen.0.push("log");
        seen.0.dedup();
        log::info!(path = request.path(), sent = outcome.body_bytes_sent() > 0; "hooks: {}", seen.0.join(" "));
    }

    fn variable(&self, _request: &Request, name: &str) -> Option<String> {
        Some(format!("computed-{name}"))
    }

    fn timer(&mut self) -> Result<()> {
        zones::counter("counts").add("timer", 1, Duration::from_secs(60))?;
        Ok(())
    }
}
