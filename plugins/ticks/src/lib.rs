//! Streams server-sent events: a tick each interval, for as long as the client stays. The example of a response that is written
//! piece by piece.
//!
//! README.md has the config and what a client gets.

use castling_sdk::prelude::*;
use castling_sdk::units;

/// The plugin and its config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ticks {
    /// Time from one event to the next, 10 ms to 60 s. Default 1 s.
    #[serde(deserialize_with = "units::duration")]
    every: Duration,
    /// How many events a response has. 0: it goes on for as long as the client stays. Default 0.
    count: u64,
}

impl Default for Ticks {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            count: 0,
        }
    }
}

/// Shortest `every`: each event is a write to the client's connection.
const SHORTEST: Duration = Duration::from_millis(10);

/// Longest `every`: what one `delay` may take.
const LONGEST: Duration = Duration::from_secs(60);

#[plugin]
impl Ticks {
    fn configure(config: Self) -> Result<Self> {
        if !(SHORTEST..=LONGEST).contains(&config.every) {
            bail!("config.every: expected 10ms to 60s");
        }
        Ok(config)
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let seen = last_event(request);
        let mut body = Response::status(200)
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-store")
            .stream()?;
        let mut sent = 0;
        loop {
            sent += 1;
            // The `?` ends the response where nobody takes more, which is no failure: the request is HEAD, say.
            body.write(event(seen + sent, clock::wall()))?;
            if sent == self.count {
                return body.finish();
            }
            delay(self.every)?;
        }
    }
}

/// Number of the last event that a client has seen, which comes back after its connection has broken. Clients may say
/// anything: what is beyond 32 bits is none of ours, and leaves room to count on.
fn last_event(request: &Request) -> u64 {
    let number = request.header("last-event-id");
    let number = number.as_ref().and_then(|number| number.as_str());
    let number: Option<u32> = number.and_then(|number| number.parse().ok());
    number.map_or(0, u64::from)
}

/// An event as the HTML standard has it (section 9.2.6): its number, and the time in milliseconds since 1970.
fn event(number: u64, now: Duration) -> String {
    format!("id: {number}\nevent: tick\ndata: {}\n\n", now.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn texts(exchange: &Exchange) -> Vec<String> {
        let body = exchange.streamed().unwrap();
        let text = |piece: &Vec<u8>| String::from_utf8_lossy(piece).into_owned();
        body.pieces().iter().map(text).collect()
    }

    #[test]
    fn so_many_events_come_one_each_interval() {
        let plugin = Ticks {
            every: Duration::from_millis(250),
            count: 3,
        };
        testing::set_wall_clock(Duration::from_secs(1_000));
        let mut exchange = Exchange::get("/").header("last-event-id", "41");
        let began = clock::monotonic();
        plugin.content(exchange.request()).unwrap();
        assert_eq!(
            texts(&exchange),
            [
                "id: 42\nevent: tick\ndata: 1000000\n\n",
                "id: 43\nevent: tick\ndata: 1000250\n\n",
                "id: 44\nevent: tick\ndata: 1000500\n\n",
            ]
        );
        assert!(exchange.streamed().unwrap().is_finished());
        assert_eq!(clock::monotonic() - began, Duration::from_millis(500));
        let reply = exchange.reply();
        assert_eq!(reply.header("content-type").unwrap(), "text/event-stream");
    }

    #[test]
    fn without_a_count_it_goes_on_until_nobody_wants_more() {
        for (mut exchange, pieces) in [
            (Exchange::get("/").wanted_pieces(1000), 1000),
            (Exchange::new("HEAD", "/"), 0),
        ] {
            let ended = Ticks::default().content(exchange.request()).unwrap_err();
            assert!(ended.is_unwanted(), "{ended}");
            assert_eq!(texts(&exchange).len(), pieces);
        }
    }

    #[test]
    fn an_interval_is_bounded() {
        for every in ["0s", "9ms", "61s"] {
            let config = testing::config(&format!("{{\"every\": \"{every}\"}}")).unwrap();
            assert!(Ticks::configure(config).is_err(), "{every}");
        }
    }
}
