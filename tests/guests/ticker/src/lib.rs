//! Counts the runs of its timer in a zone, after a call out, and tells the count.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Ticker;

#[plugin(timer = "20ms")]
impl Ticker {
    fn timer(&mut self) -> Result<()> {
        http::send("helper", http::Request::get("/tick"))?;
        delay(Duration::from_millis(1))?;
        zones::counter("ticks").add("ticker", 1, Duration::from_secs(600))?;
        Ok(())
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let Some(name) = request.path().strip_prefix("/ticks/").map(str::to_owned) else {
            return Ok(Verdict::Continue);
        };
        let count = zones::counter("ticks").get(name)?;
        Ok(Response::status(200).body(count.to_string()).into())
    }
}
