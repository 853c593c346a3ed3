//! Takes a permit of the key `x-key` for each request that has one, and answers 429 when there is none. `x-do` says what else it does with
//! permits, `x-times` how often. Paths `/count/KEY` are answered by how many of that key's are out.

use castling_sdk::prelude::*;
use castling_sdk::zones::Gauge;

#[derive(Deserialize)]
struct Config {
    zone: String,
    max: u32,
}

struct Usher {
    zone: Gauge,
    max: u32,
}

#[plugin(timer = "1h")]
impl Usher {
    fn configure(config: Config) -> Result<Self> {
        let zone = zones::gauge(config.zone);
        zone.must_be_granted().map_err(|error| error.context("config.zone"))?;
        Ok(Self { zone, max: config.max })
    }

    fn rewrite(&self, request: &mut Request) -> Result<Verdict> {
        let path = request.path();
        Ok(match path.strip_prefix("/count/") {
            Some(key) => Response::status(200).body(self.zone.count(key)?.to_string()).into(),
            None => Verdict::Continue,
        })
    }

    fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
        let key = text(request, "x-key");
        if key.is_empty() {
            return Ok(Verdict::Continue);
        }
        if self.zone.enter(&key, self.max)?.is_none() {
            return Ok(Response::status(429).into());
        }
        match self.misuse(&key, request) {
            Ok(()) => Ok(Verdict::Continue),
            Err(error) => Ok(Response::status(409).body(error.to_string()).into()),
        }
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<()> {
        let key = text(request, "x-key");
        if text(request, "x-do") == "leave" {
            reply.set_header("x-left", self.zone.leave(&key)?.to_string());
            reply.set_header("x-left-again", self.zone.leave(&key)?.to_string());
        }
        if text(request, "x-do") == "trap-late" {
            panic!("it was asked to");
        }
        Ok(())
    }

    fn timer(&mut self) {
        match self.zone.enter("timer", self.max) {
            Ok(_) => log::error!("a timer got a permit"),
            Err(error) => log::info!("a timer gets none: {error}"),
        }
    }
}

impl Usher {
    fn misuse(&self, key: &str, request: &Request) -> Result<()> {
        let times = text(request, "x-times").parse().unwrap_or(1);
        match text(request, "x-do").as_str() {
            "twice" => drop(self.zone.enter(key, self.max)?),
            "none" => drop(self.zone.enter("other", 0)?),
            "many" => (0..times).try_for_each(|idx| self.zone.enter(format!("{key}{idx}"), self.max).map(drop))?,
            "flood" => {
                for idx in 0..times {
                    if let Some(permit) = self.zone.enter(format!("flood{idx}"), self.max)? {
                        permit.release()?;
                    }
                }
            }
            "long" => drop(self.zone.enter("k".repeat(times), self.max)?),
            "kv" => drop(zones::kv("busy").get(key)?),
            "other" => drop(zones::gauge("kept").enter(key, 1)?),
            "gone" => drop(zones::gauge("gone").enter(key, 1)?),
            "trap" => panic!("it was asked to"),
            _ => {}
        }
        Ok(())
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
