//! Metrics of this thread's plugin, without a limit.

use castling_abi::metric::{
    MAX_BYTES, are_label_values, definition, is_valid_definition, text_head, texts,
};
use castling_abi::{MetricKind, Status, rules};

use super::hook::may;
use super::world::with_world;

/// Metrics that were defined and counted.
pub(super) struct Metrics {
    defined: Vec<Defined>,
    series: Vec<Series>,
}

struct Defined {
    name: Vec<u8>,
    definition: Vec<u8>,
    kind: MetricKind,
}

struct Series {
    metric: usize,
    values: Vec<u8>,
    /// Value of a counter or a gauge.
    value: f64,
    /// By a histogram.
    observed: Vec<f64>,
}

impl Metrics {
    pub(super) const fn new() -> Self {
        Self {
            defined: Vec::new(),
            series: Vec::new(),
        }
    }

    fn find<const N: usize>(&self, name: &str, values: [&str; N]) -> Option<&Series> {
        let mut list = Vec::new();
        for value in values {
            list.extend_from_slice(&text_head(value.as_bytes())?);
            list.extend_from_slice(value.as_bytes());
        }
        let metric = self
            .defined
            .iter()
            .position(|m| m.name == name.as_bytes())?;
        self.series
            .iter()
            .find(|series| series.metric == metric && series.values == list)
    }

    fn change(
        &mut self,
        series: u32,
        value: f64,
        change: impl FnOnce(MetricKind, &mut Series) -> bool,
    ) -> i32 {
        let series = usize::try_from(series).unwrap_or(usize::MAX);
        let Some(series) = self.series.get_mut(series) else {
            return Status::BadArgument as i32;
        };
        let kind = self.defined[series.metric].kind;
        if value.is_finite() && change(kind, series) {
            0
        } else {
            Status::BadArgument as i32
        }
    }
}

/// The value of a counter or gauge with these label values; `None` when nothing has looked it up, or there is no such
/// metric.
pub fn metric<const N: usize>(name: &str, values: [&str; N]) -> Option<f64> {
    with_world(|world| world.metrics.find(name, values).map(|series| series.value))
}

/// Values that a histogram with these label values was given, in its order.
pub fn observations<const N: usize>(name: &str, values: [&str; N]) -> Vec<f64> {
    with_world(|world| {
        let series = world.metrics.find(name, values);
        series.map_or_else(Vec::new, |series| series.observed.clone())
    })
}

pub(crate) fn metric_define(bytes: &[u8]) -> i32 {
    if !may(&rules::METRIC_DEFINE) {
        return rules::METRIC_DEFINE.refused as i32;
    }
    if bytes.len() > MAX_BYTES || !is_valid_definition(bytes) {
        return Status::BadArgument as i32;
    }
    with_world(|world| {
        let defined = &mut world.metrics.defined;
        let parts = definition(bytes);
        let kind = parts.and_then(|parts| MetricKind::from_raw(parts.kind));
        let (Some(parts), Some(kind)) = (parts, kind) else {
            return Status::BadArgument as i32;
        };
        let known = defined.iter().position(|known| known.name == parts.name);
        let number = match known {
            Some(idx) if defined[idx].definition == bytes => idx,
            Some(_) => return Status::BadArgument as i32,
            None => {
                defined.push(Defined {
                    name: parts.name.to_vec(),
                    definition: bytes.to_vec(),
                    kind,
                });
                defined.len() - 1
            }
        };
        i32::try_from(number).unwrap_or(Status::Limit as i32)
    })
}

pub(crate) fn metric_series(metric: u32, values: &[u8]) -> i32 {
    with_world(|world| {
        let metrics = &mut world.metrics;
        let metric = usize::try_from(metric).unwrap_or(usize::MAX);
        let defined = metrics.defined.get(metric);
        let labels = defined.and_then(|defined| definition(&defined.definition));
        let is_valid = labels.is_some_and(|defined| {
            values.len() <= MAX_BYTES && are_label_values(values, texts(defined.labels).count())
        });
        if !is_valid {
            return Status::BadArgument as i32;
        }
        let known = metrics
            .series
            .iter()
            .position(|series| series.metric == metric && series.values == values);
        let number = known.unwrap_or_else(|| {
            metrics.series.push(Series {
                metric,
                values: values.to_vec(),
                value: 0.0,
                observed: Vec::new(),
            });
            metrics.series.len() - 1
        });
        i32::try_from(number).unwrap_or(Status::Limit as i32)
    })
}

pub(crate) fn metric_add(series: u32, value: f64) -> i32 {
    with_world(|world| {
        world.metrics.change(series, value, |kind, series| {
            let may =
                kind != MetricKind::Histogram && (kind != MetricKind::Counter || value >= 0.0);
            if may {
                series.value += value;
            }
            may
        })
    })
}

pub(crate) fn metric_set(series: u32, value: f64) -> i32 {
    with_world(|world| {
        world.metrics.change(series, value, |kind, series| {
            let may = matches!(kind, MetricKind::Gauge | MetricKind::GaugeMax);
            if may {
                series.value = value;
            }
            may
        })
    })
}

pub(crate) fn metric_observe(series: u32, value: f64) -> i32 {
    with_world(|world| {
        world.metrics.change(series, value, |kind, series| {
            let may = kind == MetricKind::Histogram;
            if may {
                series.observed.push(value);
            }
            may
        })
    })
}
