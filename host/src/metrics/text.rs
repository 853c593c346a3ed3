//! All metrics in Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use castling_abi::MetricKind;

use super::{FIRST_GENERATION, RecordKind, gauge_value, read_record_text};
use crate::zone::{MetricsZone, Record};

/// Content type of [`text()`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that all processes have counted, added up. Takes time for every series and for every row that was ever
/// used.
///
/// Metrics and their series are sorted. A gauge that no living process has set is left out.
pub fn text(zone: &MetricsZone) -> String {
    let families = families(zone);
    let sums = Sums::of(zone, &families);
    let mut out = String::new();
    for (name, family) in &families {
        let Some(meaning) = &family.meaning else {
            continue;
        };
        let mut lines = String::new();
        for series in family.series.iter().filter(|s| s.kind == meaning.kind) {
            series.write(&mut lines, name, &sums);
        }
        if !lines.is_empty() {
            head(&mut out, name, &meaning.help, type_name(meaning.kind));
            out.push_str(&lines);
        }
    }
    write_own(&mut out, zone);
    out
}

/// Writes the metrics that only the zone itself knows.
fn write_own(out: &mut String, zone: &MetricsZone) {
    let (used, most) = (zone.cells_used() as f64, zone.cells() as f64);
    for (name, help, kind, value) in [
        (
            "castling_metrics_series",
            "Series in the metrics table; a histogram counts as its buckets and two more.",
            MetricKind::Gauge,
            used,
        ),
        (
            "castling_metrics_series_max",
            "Series that the metrics table has room for (metrics.max_series, rounded up).",
            MetricKind::Gauge,
            most,
        ),
        (
            "castling_metrics_refused_total",
            "Times that a series had no room in the metrics table.",
            MetricKind::Counter,
            zone.refused() as f64,
        ),
    ] {
        head(out, name, help, type_name(kind));
        sample(out, name, "", "", value);
    }
}

/// All metrics of one name.
#[derive(Default)]
struct Family {
    /// Last definition by a generation that served.
    meaning: Option<Meaning>,
    /// Series of all kinds that the family ever had.
    series: Vec<Series>,
}

struct Meaning {
    kind: MetricKind,
    help: String,
    generation: u64,
}

struct Series {
    kind: MetricKind,
    labels: String,
    bounds: Vec<f64>,
    record: Record,
    /// Serving generation that looked the record up last.
    generation: u64,
}

fn families(zone: &MetricsZone) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    zone.for_each(|byte, text, record| {
        let (Some(kind), Some((name, more, bounds))) =
            (RecordKind::from_byte(byte), read_record_text(text))
        else {
            return;
        };
        let generation = zone.note(record).map_or(0, |note| note.load(Relaxed));
        match kind {
            RecordKind::Account => {}
            // The series is only of a generation that does not serve yet or was refused.
            _ if generation < FIRST_GENERATION => {}
            RecordKind::Family(kind) => {
                let family = families.entry(name.to_owned()).or_default();
                let known = family.meaning.as_ref();
                // The choice between two of one generation is arbitrary, and must be the same at each reading.
                let later = known.is_none_or(|known| {
                    (generation, more) > (known.generation, known.help.as_str())
                });
                if later {
                    family.meaning = Some(Meaning {
                        kind,
                        help: more.to_owned(),
                        generation,
                    });
                }
            }
            RecordKind::Series(kind) => {
                let family = families.entry(name.to_owned()).or_default();
                family.series.push(Series {
                    kind,
                    labels: more.to_owned(),
                    bounds,
                    record,
                    generation,
                });
            }
        }
    });
    for family in families.values_mut() {
        family
            .series
            .sort_by(|a, b| (a.kind as u32, &a.labels).cmp(&(b.kind as u32, &b.labels)));
        // A histogram whose bounds have changed is another series to us and the same to a reader.
        family.series.dedup_by(|later, kept| {
            let same = kept.kind == later.kind && kept.labels == later.labels;
            if same && later.generation > kept.generation {
                std::mem::swap(kept, later);
            }
            same
        });
    }
    families
}

/// The values of all cells over all rows.
struct Sums(Vec<f64>);

impl Sums {
    /// Row by row, as they lie in memory.
    fn of(zone: &MetricsZone, families: &BTreeMap<String, Family>) -> Self {
        let used = zone.cells_used();
        let mut how = vec![None; used];
        let mut sums = vec![0.0_f64; used];
        for series in families.values().flat_map(|family| &family.series) {
            let (first, end) = (
                series.record.first_cell,
                series.record.first_cell + series.record.cells,
            );
            if let Some(how) = how.get_mut(first..end) {
                how.fill(Some(series.kind));
            }
            if matches!(series.kind, MetricKind::Gauge | MetricKind::GaugeMax)
                && let Some(sums) = sums.get_mut(first..end)
            {
                sums.fill(f64::NAN);
            }
        }
        for row in (0..zone.rows()).filter_map(|row| zone.row(row)) {
            for ((sum, kind), cell) in sums.iter_mut().zip(&how).zip(row) {
                if let Some(kind) = kind {
                    *sum = joined(*kind, *sum, cell);
                }
            }
        }
        Self(sums)
    }

    fn get(&self, cell: usize) -> f64 {
        self.0.get(cell).copied().unwrap_or(0.0)
    }
}

fn joined(kind: MetricKind, sum: f64, cell: &AtomicU64) -> f64 {
    let bits = cell.load(Relaxed);
    let gauge = |join: fn(f64, f64) -> f64| match gauge_value(bits) {
        None => sum,
        Some(value) if sum.is_nan() => value,
        Some(value) => join(sum, value),
    };
    match kind {
        MetricKind::Counter | MetricKind::Histogram => sum + f64::from_bits(bits),
        MetricKind::Gauge => gauge(|sum, value| sum + value),
        MetricKind::GaugeMax => gauge(f64::max),
    }
}

impl Series {
    fn write(&self, out: &mut String, name: &str, sums: &Sums) {
        let first = self.record.first_cell;
        match self.kind {
            MetricKind::Counter => sample(out, name, "", &self.labels, sums.get(first)),
            MetricKind::Gauge | MetricKind::GaugeMax => {
                let value = sums.get(first);
                if !value.is_nan() {
                    sample(out, name, "", &self.labels, value);
                }
            }
            MetricKind::Histogram => {
                let comma = if self.labels.is_empty() { "" } else { "," };
                let mut count = 0.0;
                for (idx, bound) in self.bounds.iter().chain([&f64::INFINITY]).enumerate() {
                    count += sums.get(first + idx);
                    let labels = format!("{}{comma}le=\"{}\"", self.labels, Number(*bound));
                    sample(out, name, "_bucket", &labels, count);
                }
                let sum = sums.get(first + self.bounds.len() + 1);
                sample(out, name, "_sum", &self.labels, sum);
                sample(out, name, "_count", &self.labels, count);
            }
        }
    }
}

fn type_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge | MetricKind::GaugeMax => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

// Writing to a String cannot fail.

fn head(out: &mut String, name: &str, help: &str, type_name: &str) {
    let _ = write!(out, "# HELP {name} ");
    escape(out, help, false);
    let _ = writeln!(out, "\n# TYPE {name} {type_name}");
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let (open, close) = if labels.is_empty() {
        ("", "")
    } else {
        ("{", "}")
    };
    let _ = writeln!(out, "{name}{suffix}{open}{labels}{close} {}", Number(value));
}

/// A number as the format has it.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            f64::INFINITY => out.write_str("+Inf"),
            f64::NEG_INFINITY => out.write_str("-Inf"),
            // Rust writes NaN as `NaN`, as the format wants it.
            value => write!(out, "{value}"),
        }
    }
}

/// Appends text so that it stays in its line and, for a label's value, in its quotes. What else a terminal might obey
/// is replaced.
pub(super) fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
}
