//! Counters, gauges and histograms of a plugin, in the gateway's metrics.
//!
//! A metric is defined in `configure`, with the names of its labels, and counted in hooks. `castling metrics` and a route
//! with `metrics = true` show it as `castling_plugin_MODULE_NAME{plugin="..."}`: MODULE is the name of the plugin's package
//! with `_` for what a metric's name cannot have, and the label `plugin` is its name in the config.
//!
//! ```
//! use castling_sdk::metrics::{Counter, Gauge, Histogram};
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::{self, Exchange};
//!
//! struct Gate {
//!     verdicts: Counter<1>,
//!     body_bytes: Histogram,
//! }
//!
//! #[plugin]
//! impl Gate {
//!     fn configure(tokens: Vec<String>) -> Result<Self> {
//!         let known = Gauge::max("tokens", "Tokens in the config.", [])?;
//!         known.set(tokens.len() as f64);
//!         Ok(Self {
//!             verdicts: Counter::new("verdicts_total", "Requests by verdict.", ["verdict"])?,
//!             body_bytes: Histogram::new("body_bytes", "Size of bodies.", [], &[1e3, 1e6])?,
//!         })
//!     }
//!
//!     fn access(&self, request: &mut Request) -> Verdict {
//!         if request.header("x-token").is_none() {
//!             self.verdicts.with(["refused"]).inc();
//!             return Response::status(401).into();
//!         }
//!         self.verdicts.with(["passed"]).inc();
//!         Verdict::Continue
//!     }
//!
//!     fn log(&self, _: &Request, outcome: &Outcome) {
//!         self.body_bytes.observe(outcome.body_bytes_sent() as f64);
//!     }
//! }
//!
//! let plugin = Gate::configure(vec!["t".to_owned()])?;
//! plugin.access(Exchange::get("/").request());
//! plugin.access(Exchange::get("/").request());
//! assert_eq!(testing::metric("verdicts_total", ["refused"]), Some(2.0));
//! assert_eq!(testing::metric("tokens", []), Some(1.0));
//! # Ok::<(), Error>(())
//! ```
//!
//! **What is shown** is the sum over all workers (of a [`Gauge::max`] the largest). Counters and histograms only grow, over
//! the death of workers and over reloads; gauges end with their worker.
//!
//! **Names** are `[a-zA-Z_:][a-zA-Z0-9_:]*` of at most 128 bytes, labels' the same without `:` and not beginning with `__`;
//! `plugin` and `le` are taken. At most 64 metrics, 8 labels each, help texts of 512 bytes. A definition that is not valid is
//! an error, with which `configure` should end.
//!
//! **Label values** may be anything; they are cut at 128 bytes. Each new set of them is a series, which stays for good:
//! use values of which there are few, never a client's address or a path. Beyond the plugin's `limits.metric_series`
//! (default 1000 series, a histogram counting as its buckets and two more) a new set is counted under `other`, so that
//! sums stay right, and `castling_plugin_series_over_limit_total` tells.
//!
//! **Cost**: to count is one call of the host, which adds to memory of its worker's own. `with` is a call and a hash of the
//! values more; where the values are known beforehand, keep the series in a field.

use castling_abi::{MetricKind, metric as abi};
use smallvec::SmallVec;

use crate::buffer::status;
use crate::error::{self, Error, Result};
use crate::host;

/// Only grows: requests, bytes, errors. By convention its name ends in `_total`. `N` is the number of labels.
#[derive(Clone, Copy, Debug)]
pub struct Counter<const N: usize = 0>(Metric<N>);

/// Goes up and down: things at hand, things under way. `N` is the number of labels.
#[derive(Clone, Copy, Debug)]
pub struct Gauge<const N: usize = 0>(Metric<N>);

/// Counts observations by size: times in seconds, sizes in bytes. `N` is the number of labels.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const N: usize = 0>(Metric<N>);

/// Upper bounds for times in seconds, from 5 ms to 10 s.
pub const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl<const N: usize> Counter<N> {
    /// Defines it. In `configure` only. Fails when a name is not valid, or the metric was defined in another way.
    pub fn new(name: &str, help: &str, labels: [&str; N]) -> Result<Self> {
        Metric::define(MetricKind::Counter, name, help, labels, &[]).map(Self)
    }

    /// The series with these label values. It may be kept, in a field of the plugin, for as long as that lives.
    pub fn with(&self, values: [&str; N]) -> CounterSeries {
        CounterSeries(self.0.series(values))
    }
}

impl Counter {
    /// Adds 1.
    pub fn inc(&self) {
        self.with([]).inc();
    }

    /// Adds a number.
    pub fn add(&self, amount: u64) {
        self.with([]).add(amount);
    }
}

impl<const N: usize> Gauge<N> {
    /// Defines one of which the gateway shows the sum of its workers: what each of them has. In `configure` only. Fails as
    /// [`Counter::new`] does.
    pub fn new(name: &str, help: &str, labels: [&str; N]) -> Result<Self> {
        Metric::define(MetricKind::Gauge, name, help, labels, &[]).map(Self)
    }

    /// Defines one of which the gateway shows the largest of its workers': what is the same for all of them, or a state
    /// of which the worst is to be seen.
    pub fn max(name: &str, help: &str, labels: [&str; N]) -> Result<Self> {
        Metric::define(MetricKind::GaugeMax, name, help, labels, &[]).map(Self)
    }

    /// The series with these label values, as [`Counter::with`].
    pub fn with(&self, values: [&str; N]) -> GaugeSeries {
        GaugeSeries(self.0.series(values))
    }
}

impl Gauge {
    /// Sets it. All instances of the plugin in a worker have it together; the last one to set it counts.
    pub fn set(&self, value: f64) {
        self.with([]).set(value);
    }

    /// Adds to it; less than zero takes away.
    pub fn add(&self, amount: f64) {
        self.with([]).add(amount);
    }
}

impl<const N: usize> Histogram<N> {
    /// Defines one with these upper bounds of its buckets: 1 to 64, finite and ascending; [`SECONDS`] for times. In
    /// `configure` only. Fails as [`Counter::new`] does.
    pub fn new(name: &str, help: &str, labels: [&str; N], bounds: &[f64]) -> Result<Self> {
        Metric::define(MetricKind::Histogram, name, help, labels, bounds).map(Self)
    }

    /// The series with these label values, as [`Counter::with`].
    pub fn with(&self, values: [&str; N]) -> HistogramSeries {
        HistogramSeries(self.0.series(values))
    }
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        self.with([]).observe(value);
    }
}

/// A counter with its label values.
#[derive(Clone, Copy, Debug)]
pub struct CounterSeries(Series);

impl CounterSeries {
    /// Adds 1.
    pub fn inc(self) {
        self.add(1);
    }

    /// Adds a number. Numbers above 2^53 lose their last digits.
    pub fn add(self, amount: u64) {
        self.0.change(host::metric_add, amount as f64);
    }
}

/// A gauge with its label values. What is not finite is passed over.
#[derive(Clone, Copy, Debug)]
pub struct GaugeSeries(Series);

impl GaugeSeries {
    /// Sets it, see [`Gauge::set`].
    pub fn set(self, value: f64) {
        self.0.change(host::metric_set, value);
    }

    /// Adds to it; less than zero takes away.
    pub fn add(self, amount: f64) {
        self.0.change(host::metric_add, amount);
    }
}

/// A histogram with its label values.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSeries(Series);

impl HistogramSeries {
    /// Counts one observation. What is not finite is passed over.
    pub fn observe(self, value: f64) {
        self.0.change(host::metric_observe, value);
    }
}

/// A metric's number in this instance.
#[derive(Clone, Copy, Debug)]
struct Metric<const N: usize>(u32);

impl<const N: usize> Metric<N> {
    fn define(
        kind: MetricKind,
        name: &str,
        help: &str,
        labels: [&str; N],
        bounds: &[f64],
    ) -> Result<Self> {
        let refuse = |why: &str| Err(Error::msg(format_args!("metric \"{name}\": {why}")));
        if !abi::is_metric_name(name.as_bytes()) {
            return refuse("expected a name of [a-zA-Z_:][a-zA-Z0-9_:]*, at most 128 bytes");
        }
        if help.len() > abi::MAX_HELP_BYTES {
            return refuse("its help has more than 512 bytes");
        }
        if N > abi::MAX_LABELS {
            return refuse("it has more than 8 labels");
        }
        for (idx, label) in labels.iter().enumerate() {
            let taken = matches!(*label, "plugin" | "le") || labels[..idx].contains(label);
            if taken || !abi::is_label_name(label.as_bytes()) {
                let label = label.escape_debug();
                return refuse(&format!("label \"{label}\" is no name, or taken"));
            }
        }
        if kind == MetricKind::Histogram
            && let Err(why) = abi::check_bounds(bounds.iter().copied())
        {
            return refuse(&format!("bounds: {why}"));
        }
        let names = texts(labels);
        let lengths = [name.len(), help.len(), names.len()];
        let Some(head) = abi::definition_head(kind, lengths) else {
            return refuse("it is too long");
        };
        let mut definition = head.to_vec();
        for part in [name.as_bytes(), help.as_bytes(), &names] {
            definition.extend_from_slice(part);
        }
        for bound in bounds {
            definition.extend_from_slice(&bound.to_le_bytes());
        }
        let number = host::metric_define(&definition);
        u32::try_from(number).map(Self).map_err(|_| {
            error::bad_argument(
                format_args!("metric \"{name}\""),
                status(number),
                "names of a-z, A-Z, 0-9 and _, bounds in order, and one definition for each name",
            )
        })
    }

    fn series(self, values: [&str; N]) -> Series {
        Series(host::metric_series(self.0, &texts(values)))
    }
}

/// A series' number in this instance; negative where there is none.
#[derive(Clone, Copy, Debug)]
struct Series(i32);

impl Series {
    /// No request fails because something cannot be counted.
    fn change(self, call: impl FnOnce(u32, f64) -> i32, value: f64) {
        if let Ok(series) = u32::try_from(self.0) {
            let _status = call(series, value);
        }
    }
}

/// A list as `castling_abi::metric::texts` reads it. Texts longer than the host takes are cut.
fn texts<const N: usize>(texts: [&str; N]) -> SmallVec<[u8; 128]> {
    let mut list = SmallVec::new();
    for text in texts {
        let text = &text[..text.floor_char_boundary(abi::MAX_VALUE_BYTES)];
        // The text fits: 128 bytes at most.
        list.extend_from_slice(&abi::text_head(text.as_bytes()).unwrap_or_default());
        list.extend_from_slice(text.as_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_is_counted_is_seen_by_its_labels() {
        let requests = Counter::new("requests_total", "", ["code", "method"]).unwrap();
        let ok = requests.with(["200", "GET"]);
        ok.inc();
        ok.add(2);
        requests.with(["404", "GET"]).inc();
        let value = |values| testing::metric("requests_total", values);
        assert_eq!(value(["200", "GET"]), Some(3.0));
        assert_eq!(value(["404", "GET"]), Some(1.0));
        assert_eq!(value(["500", "GET"]), None);
    }

    #[test]
    fn gauges_go_up_and_down() {
        let gauge = Gauge::new("under_way", "", []).unwrap();
        gauge.set(3.0);
        gauge.add(-1.0);
        gauge.add(f64::NAN);
        assert_eq!(testing::metric("under_way", []), Some(2.0));
    }

    #[test]
    fn observations_are_there_one_by_one() {
        let took = Histogram::new("seconds", "", ["peer"], SECONDS).unwrap();
        took.with(["a"]).observe(0.25);
        took.with(["a"]).observe(f64::INFINITY);
        took.with(["a"]).observe(3.0);
        assert_eq!(testing::observations("seconds", ["a"]), [0.25, 3.0]);
        assert_eq!(testing::observations("seconds", ["b"]), [0.0; 0]);
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let counter = Counter::new("c", "", ["l"]).unwrap();
        counter.with([&"ä".repeat(100)]).inc();
        assert_eq!(testing::metric("c", [&"ä".repeat(64)]), Some(1.0));
    }

    #[test]
    fn a_definition_that_is_not_valid_says_why() {
        let error = |result: Result<()>| result.unwrap_err().to_string();
        let counter = |name, labels: [&str; 1]| error(Counter::new(name, "", labels).map(|_| ()));
        let expected =
            "metric \"a-b\": expected a name of [a-zA-Z_:][a-zA-Z0-9_:]*, at most 128 bytes";
        assert_eq!(counter("a-b", ["l"]), expected);
        for label in ["plugin", "le", "a b", "__name__", ""] {
            let expected = format!("metric \"a\": label \"{label}\" is no name, or taken");
            assert_eq!(counter("a", [label]), expected);
        }
        let twice = Counter::new("a", "", ["b", "b"]).map(|_| ());
        assert_eq!(
            error(twice),
            "metric \"a\": label \"b\" is no name, or taken"
        );
        let bounds = Histogram::new("a", "", [], &[2.0, 1.0]).map(|_| ());
        let expected = "metric \"a\": bounds: expected finite numbers in ascending order";
        assert_eq!(error(bounds), expected);
        Counter::new("same", "", ["l"]).unwrap();
        Counter::new("same", "", ["l"]).unwrap();
        let other = Gauge::new("same", "", ["l"]).map(|_| ());
        assert!(error(other).starts_with("metric \"same\": bad argument: expected names of"));
    }
}
