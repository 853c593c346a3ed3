//! Answers from a kv zone what it asks an upstream for once, however many want it. `x-wait-ms` says how long a request waits for another
//! one, `x-do` what one does that is to fetch.

use castling_sdk::prelude::*;
use castling_sdk::zones::{Flight, Kv};

#[derive(Deserialize)]
struct Config {
    zone: String,
}

struct Fetcher {
    pages: Kv,
}

#[plugin(timer = "1h")]
impl Fetcher {
    fn configure(config: Config) -> Self {
        Self { pages: zones::kv(config.zone) }
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let key = request.path();
        let wait = Duration::from_millis(text(request, "x-wait-ms").parse().unwrap_or(30_000));
        let wish = text(request, "x-do");
        let flight = match self.pages.single_flight(&*key, wait) {
            Ok(flight) => flight,
            Err(error) => return Ok(Response::status(409).body(error.to_string()).into()),
        };
        let guard = match flight {
            Flight::Value(page) => return Ok(Response::status(200).body(page).into()),
            Flight::TimedOut => return Ok(Response::status(504).body("timed out").into()),
            Flight::Fetch(guard) => guard,
        };
        if wish == "twice" {
            let again = self.pages.single_flight(&*key, wait)?;
            let told = matches!(again, Flight::Fetch(_)).to_string();
            return Ok(Response::status(200).body(told).into());
        }
        if wish == "many" {
            for idx in 0..100 {
                if let Err(error) = self.pages.single_flight(format!("{key}{idx}"), wait) {
                    return Ok(Response::status(409).body(format!("{idx} {error}")).into());
                }
            }
        }
        let page = http::send("app", http::Request::get(&*key))?.body().to_vec();
        match wish.as_str() {
            "trap" => panic!("it was asked to"),
            "fail" => bail!("it was asked to"),
            "give-up" => guard.give_up()?,
            "forget" => drop(guard),
            _ => guard.put(&page, Some(Duration::from_secs(60)))?,
        }
        Ok(Response::status(200).header("x-fetched", "yes").body(page).into())
    }

    fn log(&self, request: &Request, _: &Outcome) -> Result<()> {
        if text(request, "x-do") == "forget" {
            log::info!("ended by log: {}", self.pages.end_flight(&*request.path())?);
        }
        Ok(())
    }

    fn timer(&mut self) {
        match self.pages.single_flight("timer", Duration::ZERO) {
            Ok(flight) => log::error!("a timer got {flight:?}"),
            Err(error) => log::info!("a timer gets none: {error}"),
        }
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
