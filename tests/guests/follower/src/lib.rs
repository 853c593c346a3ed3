//! Does after the response what the request's `x-after` says: tells the upstream `sink` what it knows of the exchange (`report`), waits for
//! milliseconds (`wait 20`), computes for ever (`spin`), asks a route of the gateway's own (`ask /path`), writes a zone (`keep TEXT`), panics, takes all memory (`hoard`) or stack (`recurse`), or tries what is too late.

use castling_sdk::prelude::*;

#[derive(Default, Deserialize)]
struct Follower {
    name: String,
}

#[derive(Default, Deserialize, Serialize)]
struct Seen {
    hooks: Vec<String>,
}

#[plugin(state = Seen)]
impl Follower {
    fn configure(config: Self) -> Self {
        config
    }

    fn access(&self, seen: &mut Seen, request: &mut Request) -> Verdict {
        seen.hooks.push("access".to_owned());
        request.set_var("mark", format!("{}-{}", self.name, request.path()));
        Verdict::Continue
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let Some(key) = request.path().strip_prefix("/kept/").map(str::to_owned) else {
            return Ok(Verdict::Continue);
        };
        let kept = zones::kv("kept").get(key)?.unwrap_or_default();
        Ok(Response::status(200).body(kept).into())
    }

    fn log(&self, seen: &mut Seen, _: &Request, _: &Outcome) {
        seen.hooks.push("log".to_owned());
    }

    fn after_response(&self, seen: &mut Seen, request: &Request, outcome: &Outcome) -> Result<()> {
        let wish = text(request.header("x-after"));
        let (verb, rest) = wish.split_once(' ').unwrap_or((&wish[..], ""));
        match verb {
            "report" => {
                let first = outcome.duration();
                delay(Duration::from_millis(2))?;
                let is_frozen = first == outcome.duration();
                let told = format!(
                    "{} {} {:?} {} {} {} computed {} frozen {is_frozen} {}",
                    request.method(),
                    request.path(),
                    outcome.status(),
                    text(outcome.header("x-from")),
                    seen.hooks.join("+"),
                    text(request.var("mark")),
                    request.var("pair").is_some(),
                    self.name,
                );
                http::send("sink", http::Request::post("/report").body(told))?;
            }
            "wait" => delay(Duration::from_millis(rest.parse()?))?,
            "ask" => {
                let answer = http::subrequest(http::Request::get(rest))?;
                let told = [b"asked: ", answer.body()].concat();
                http::send("sink", http::Request::post("/report").body(told))?;
            }
            "keep" => zones::kv("kept").put(rest, "kept", None)?,
            "spin" => loop {
                std::hint::black_box(0);
            },
            "panic" => panic!("it was asked to, afterwards"),
            "hoard" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "recurse" => {
                std::hint::black_box(recurses_for_ever(1));
            }
            "late" => too_late(request)?,
            _ => {}
        }
        Ok(())
    }
}

fn text(value: Option<HeaderValue>) -> String {
    value.as_ref().and_then(HeaderValue::as_str).unwrap_or_default().to_owned()
}

#[inline(never)]
fn recurses_for_ever(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let room = std::hint::black_box([depth; 64]);
    recurses_for_ever(depth + 1) + room[1]
}

/// Tries what only a request under way can do, and tells what was refused.
fn too_late(request: &Request) -> Result<()> {
    let body = request.read_body(100).map(|body| body.len());
    let told = format!("late: {}", body.is_err());
    http::send("sink", http::Request::post("/report").body(told))?;
    Ok(())
}
