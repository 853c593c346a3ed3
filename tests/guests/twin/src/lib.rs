//! Tells what `configure` has made of its instance, and how often that has answered.

use castling_sdk::metrics::{Counter, CounterSeries};
use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Draws that `configure` asks the host for.
    draws: String,
    #[serde(default)]
    label: String,
    /// Memory to allocate and fill.
    #[serde(default)]
    bytes: usize,
}

struct Twin {
    label: String,
    drawn: u128,
    filled: Vec<u8>,
    answered: u32,
    by_key: Counter<1>,
    answers: CounterSeries,
}

#[plugin]
impl Twin {
    fn configure(config: Config) -> Result<Self> {
        let drawn = match config.draws.as_str() {
            "nothing" => 0,
            "random" => random::u64().into(),
            "monotonic" => clock::monotonic().as_nanos(),
            "wall" => clock::wall().as_nanos(),
            "counter" => zones::counter("draws").add("twin", 1, Duration::from_secs(600))?.into(),
            "log" => {
                log::info!("a twin is configured");
                0
            }
            "unwritten" => {
                log::trace!("a twin is configured");
                0
            }
            other => bail!("config.draws: got {other}"),
        };
        let by_key = Counter::new("answers_total", "Answers.", ["key"])?;
        Ok(Self {
            label: config.label,
            drawn,
            filled: (0..config.bytes).map(|idx| (idx % 251) as u8).collect(),
            answered: 0,
            answers: by_key.with(["all"]),
            by_key,
        })
    }

    fn content(&mut self, request: &mut Request) -> Verdict {
        self.answered += 1;
        self.answers.inc();
        if let Some(key) = request.header("x-key") {
            self.by_key.with([&key.to_string_lossy()]).inc();
        }
        let whole = self.filled.iter().enumerate().all(|(idx, byte)| *byte == (idx % 251) as u8);
        let Self { label, drawn, answered, .. } = self;
        self.filled.fill(0xff);
        Response::status(200).body(format!("{label} {drawn} {answered} {whole}")).into()
    }
}
