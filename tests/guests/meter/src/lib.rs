//! Counts what the request's headers ask, under names and labels that its config has.

use castling_sdk::metrics::{Counter, Gauge, Histogram};
use castling_sdk::prelude::*;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    counter: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    help: String,
}

struct Meter {
    counter: Counter<1>,
    held: Gauge,
    highest: Gauge,
    seen: Histogram<1>,
}

#[plugin]
impl Meter {
    fn configure(config: Config) -> Result<Self> {
        let name = config.counter.as_deref().unwrap_or("seen_total");
        let label = config.label.as_deref().unwrap_or("key");
        Ok(Self {
            counter: Counter::new(name, &config.help, [label])?,
            held: Gauge::new("held", "Added by `x-hold`.", [])?,
            highest: Gauge::max("highest", "Set by `x-highest`.", [])?,
            seen: Histogram::new("size", "By `x-size`.", ["key"], &[1.0, 10.0])?,
        })
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let key = text(request, "x-key");
        if let Some(count) = number(request, "x-count") {
            self.counter.with([&key]).add(count as u64);
        }
        // Keys of this request's own, as many as it wants.
        for each in 0..number(request, "x-keys").unwrap_or(0.0) as u64 {
            self.counter.with([&format!("{key}{each}")]).inc();
        }
        if let Some(amount) = number(request, "x-hold") {
            self.held.add(amount);
        }
        if let Some(value) = number(request, "x-highest") {
            self.highest.set(value);
        }
        if let Some(size) = number(request, "x-size") {
            self.seen.with([&key]).observe(size);
        }
        match text(request, "x-do").as_str() {
            "panic" => panic!("it was asked to"),
            "define" => drop(Counter::new("late", "", [])?),
            _ => {}
        }
        Ok(Verdict::Continue)
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.map(|value| value.to_string_lossy().into()).unwrap_or_default()
}

fn number(request: &Request, name: &str) -> Option<f64> {
    text(request, name).parse().ok()
}
