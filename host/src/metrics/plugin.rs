//! Metrics that plugins define and count themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use castling_abi::metric::{self, MAX_BYTES, MAX_LABELS, MAX_METRICS, MAX_VALUE_BYTES};
use castling_abi::{MetricKind, Status};

use super::{
    Count, Distribution, Gauge, Labels, RecordKind, Recorder, add_series, cell_count, record_text,
};

/// A plugin's part of the metrics in one worker; its instances share it.
pub struct PluginMetrics {
    recorder: Recorder,
    /// Name of the plugin in the config, the label `plugin` of all its series.
    plugin: Arc<str>,
    /// Prefix of the names of its metrics: `castling_plugin_MODULE_`.
    prefix: String,
    series: Account,
    definitions: Account,
    over_limit: Count,
}

impl PluginMetrics {
    /// `module` is the name in the module's manifest; `series_limit` is `limits.metric_series`.
    pub fn new(
        recorder: Recorder,
        plugin: &Arc<str>,
        module: &str,
        series_limit: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            over_limit: recorder.over_limit(plugin),
            plugin: Arc::clone(plugin),
            prefix: format!("castling_plugin_{}_", in_a_name(module)),
            series: Account::open(&recorder, "series", plugin, u64::from(series_limit)),
            definitions: Account::open(&recorder, "definitions", plugin, DEFINITIONS_LIMIT),
            recorder,
        })
    }

    /// The series, if it is there or there may be one more. It counts against the limit once, whichever worker adds it.
    fn series(&self, metric: &Metric, labels: &Labels) -> Option<Series> {
        let recorder = &self.recorder;
        let (kind, name, bounds) = (metric.kind, &metric.name, &metric.bounds);
        if !recorder.has(kind, name, labels, bounds) {
            let cells = u64::from(cell_count(kind, bounds));
            let charge = cells.max(text_charge(name, &labels.0));
            self.series.charge(charge, || {
                let (zone, stamps) = (recorder.zone, recorder.stamps);
                let added = add_series(zone, stamps, kind, name, labels, bounds);
                added.map(|(_, new)| new)
            })?;
        }
        Some(self.open(metric, labels))
    }

    /// Says what a metric is, within a limit: a plugin could make up names without end.
    fn define(&self, metric: &Metric) -> Option<()> {
        let (kind, name, help) = (metric.kind, &metric.name, &metric.help);
        if self.recorder.has_family(kind, name, help) {
            // Once more, for the generation.
            self.recorder.define(kind, name, help);
            return Some(());
        }
        self.definitions.charge(text_charge(name, help), || {
            Some(self.recorder.define(kind, name, help))
        })
    }

    fn open(&self, metric: &Metric, labels: &Labels) -> Series {
        let (recorder, name) = (&self.recorder, &metric.name);
        match metric.kind {
            MetricKind::Counter => Series::Counter(recorder.counter(name, labels)),
            MetricKind::Gauge | MetricKind::GaugeMax => {
                Series::Gauge(recorder.gauge(metric.kind, name, labels))
            }
            MetricKind::Histogram => {
                Series::Histogram(recorder.histogram(name, labels, &metric.bounds))
            }
        }
    }
}

/// Cells of the zone that a plugin has taken, over all workers and generations.
struct Account {
    /// Cells that the plugin is charged for. None when there was no room to count them, so that there is none for more
    /// either.
    charged: Option<&'static AtomicU64>,
    limit: u64,
}

impl Account {
    fn open(recorder: &Recorder, of: &str, plugin: &str, limit: u64) -> Self {
        let text = record_text(of, plugin, &[]);
        let zone = recorder.zone;
        let owner = text.and_then(|text| zone.add(RecordKind::Account.byte(), &text, 0));
        Self {
            charged: owner.and_then(|(owner, _)| zone.note(owner)),
            limit,
        }
    }

    /// Charges so much and has it added; gives it back where nothing new was. None: beyond the limit, or no room.
    fn charge(&self, charge: u64, add: impl FnOnce() -> Option<bool>) -> Option<()> {
        let Some(charged) = self.charged else {
            return add().map(|_| ());
        };
        let added = match charged.fetch_add(charge, Relaxed) + charge <= self.limit {
            true => add(),
            false => None,
        };
        if added != Some(true) {
            charged.fetch_sub(charge, Relaxed);
        }
        added.map(|_| ())
    }
}

/// New definitions of a plugin, over all its generations. More than any upgrades bring.
const DEFINITIONS_LIMIT: u64 = 1000;

/// Metrics that one instance has defined and looked up. A look-up is one hash; counting after it needs none. A clone is
/// for another instance that has done the same.
#[derive(Clone)]
pub struct InstanceMetrics {
    shared: Arc<PluginMetrics>,
    defined: Vec<Metric>,
    series: Vec<Series>,
    /// The number of a series by the number of its metric (`u32`, little-endian) and its label values, cut.
    known: HashMap<Arc<[u8]>, u32>,
    /// Room for the keys of `known`: as much as the series that the plugin may have need in the table, at most.
    known_left: u64,
    /// Key to look for in `known`; kept for its allocation.
    key: Vec<u8>,
}

#[derive(Clone)]
struct Metric {
    kind: MetricKind,
    /// Name with the prefix.
    name: Arc<str>,
    labels: Arc<[String]>,
    bounds: Arc<[f64]>,
    help: Arc<str>,
    /// The number of the series for what is beyond the limit, once there is one.
    other: Option<u32>,
}

#[derive(Clone)]
enum Series {
    Counter(Count),
    Gauge(Gauge),
    Histogram(Distribution),
}

impl InstanceMetrics {
    pub fn new(shared: &Arc<PluginMetrics>) -> Self {
        Self {
            shared: Arc::clone(shared),
            defined: Vec::new(),
            series: Vec::new(),
            known: HashMap::new(),
            known_left: shared.series.limit,
            key: Vec::new(),
        }
    }

    /// `metric_define`: checks all of it. The same definition again is the same metric.
    pub fn define(&mut self, definition: &[u8]) -> Result<u32, Status> {
        if definition.len() > MAX_BYTES {
            return Err(Status::BadArgument);
        }
        let metric = parse(definition, &self.shared.prefix).ok_or(Status::BadArgument)?;
        let same_name = self
            .defined
            .iter()
            .position(|known| known.name == metric.name);
        if let Some(idx) = same_name {
            return match self.defined[idx].is_same(&metric) {
                true => number(idx),
                false => Err(Status::BadArgument),
            };
        }
        if self.defined.iter().any(|known| clash(known, &metric)) {
            return Err(Status::BadArgument);
        }
        if self.defined.len() == MAX_METRICS {
            return Err(Status::Limit);
        }
        self.shared.define(&metric).ok_or(Status::Limit)?;
        self.defined.push(metric);
        number(self.defined.len() - 1)
    }

    /// `metric_series`: the number of the series with these label values.
    pub fn series(&mut self, metric: u32, values: &[u8]) -> Result<u32, Status> {
        if values.len() > MAX_BYTES {
            return Err(Status::BadArgument);
        }
        self.key.clear();
        self.key.extend_from_slice(&metric.to_le_bytes());
        push_cut(&mut self.key, values).ok_or(Status::BadArgument)?;
        if let Some(series) = self.known.get(&self.key[..]) {
            return Ok(*series);
        }
        self.look_up(metric, values)
    }

    #[cold]
    fn look_up(&mut self, metric_idx: u32, values: &[u8]) -> Result<u32, Status> {
        let shared = &self.shared;
        let metric = usize::try_from(metric_idx).ok();
        let metric = metric.and_then(|idx| self.defined.get_mut(idx));
        let metric = metric.ok_or(Status::BadArgument)?;
        let values = label_values(values, metric.labels.len()).ok_or(Status::BadArgument)?;
        let labels = metric.labels(&shared.plugin, values.iter().copied());
        // Values that differ may be one series (control characters are replaced), so that the limit of the series is
        // none of these. A key is no longer than the texts of its series.
        let charge = text_charge_of(self.key.len());
        let left = self.known_left.checked_sub(charge);
        if let Some(left) = left
            && let Some(series) = shared.series(metric, &labels)
        {
            self.known_left = left;
            self.series.push(series);
            let series = number(self.series.len() - 1)?;
            self.known.insert(self.key.clone().into(), series);
            return Ok(series);
        }
        // Label values over the limit are not remembered: there may be any number of them.
        shared.over_limit.inc();
        if let Some(other) = metric.other {
            return Ok(other);
        }
        let others = metric.labels(&shared.plugin, metric.labels.iter().map(|_| "other"));
        self.series.push(shared.open(metric, &others));
        let other = number(self.series.len() - 1)?;
        metric.other = Some(other);
        Ok(other)
    }

    /// `metric_add`
    #[inline]
    pub fn add(&self, series: u32, value: f64) -> Result<(), Status> {
        match self.at(series) {
            Some(Series::Counter(count)) if value.is_finite() && value >= 0.0 => count.add(value),
            Some(Series::Gauge(level)) if value.is_finite() => level.add(value),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// `metric_set`
    #[inline]
    pub fn set(&self, series: u32, value: f64) -> Result<(), Status> {
        match self.at(series) {
            Some(Series::Gauge(level)) if value.is_finite() => level.set(value),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// `metric_observe`
    #[inline]
    pub fn observe(&self, series: u32, value: f64) -> Result<(), Status> {
        match self.at(series) {
            Some(Series::Histogram(distribution)) if value.is_finite() => {
                distribution.observe(value);
            }
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// Whether nothing was counted as `other`: any instance would have found the same series.
    pub fn is_within_limits(&self) -> bool {
        self.defined.iter().all(|metric| metric.other.is_none())
    }

    fn at(&self, series: u32) -> Option<&Series> {
        self.series.get(usize::try_from(series).ok()?)
    }

    /// How many keys there are, and their bytes.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (
            self.known.len(),
            self.known.keys().map(|key| key.len()).sum(),
        )
    }
}

impl Metric {
    fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.labels == other.labels
            && self.bounds == other.bounds
            && self.help == other.help
    }

    fn labels<'a>(&'a self, plugin: &'a str, values: impl Iterator<Item = &'a str>) -> Labels {
        let own = self.labels.iter().map(String::as_str).zip(values);
        Labels::new([("plugin", plugin)].into_iter().chain(own))
    }
}

/// The table has so many bytes for the texts of a cell: longer ones take the room of more.
fn text_charge(name: &str, more: &str) -> u64 {
    text_charge_of(name.len() + more.len())
}

fn text_charge_of(bytes: usize) -> u64 {
    const ROOM_BYTES: usize = 160;
    bytes.div_ceil(ROOM_BYTES) as u64
}

/// The definition, if all of it is valid.
fn parse(definition: &[u8], prefix: &str) -> Option<Metric> {
    if !metric::is_valid_definition(definition) {
        return None;
    }
    let definition = metric::definition(definition)?;
    let kind = MetricKind::from_raw(definition.kind)?;
    let name = str::from_utf8(definition.name).ok()?;
    let help = str::from_utf8(definition.help).ok()?;
    let label = |label: Result<&[u8], ()>| Some(str::from_utf8(label.ok()?).ok()?.to_owned());
    let labels = metric::texts(definition.labels).map(label);
    let labels: Vec<String> = labels.collect::<Option<_>>()?;
    Some(Metric {
        kind,
        name: format!("{prefix}{name}").into(),
        labels: labels.into(),
        bounds: metric::bounds(definition.bounds).collect(),
        help: help.into(),
        other: None,
    })
}

/// A histogram is exposed under three names more.
fn clash(a: &Metric, b: &Metric) -> bool {
    let one_of = |histogram: &Metric, other: &Metric| {
        histogram.kind == MetricKind::Histogram
            && other
                .name
                .strip_prefix(&*histogram.name)
                .is_some_and(|rest| matches!(rest, "_bucket" | "_sum" | "_count"))
    };
    one_of(a, b) || one_of(b, a)
}

/// Appends a list of label values, each cut as [`label_values`] cuts it: what a guest passes beyond that takes no
/// memory.
fn push_cut(key: &mut Vec<u8>, list: &[u8]) -> Option<()> {
    if list.len() <= MAX_VALUE_BYTES {
        // No value of the list can be too long.
        key.extend_from_slice(list);
        return Some(());
    }
    for (idx, text) in metric::texts(list).enumerate() {
        let mut text = text.ok().filter(|_| idx < MAX_LABELS)?;
        if text.len() > MAX_VALUE_BYTES {
            let value = str::from_utf8(text).ok()?;
            text = &text[..value.floor_char_boundary(MAX_VALUE_BYTES)];
        }
        key.extend_from_slice(&metric::text_head(text)?);
        key.extend_from_slice(text);
    }
    Some(())
}

/// Exactly so many, each cut to what a label's value may have.
fn label_values(list: &[u8], count: usize) -> Option<Vec<&str>> {
    let mut values = Vec::with_capacity(count);
    for text in metric::texts(list) {
        let value = str::from_utf8(text.ok()?).ok()?;
        if values.len() == count {
            return None;
        }
        values.push(&value[..value.floor_char_boundary(MAX_VALUE_BYTES)]);
    }
    (values.len() == count).then_some(values)
}

/// `rate-limit` becomes `rate_limit`.
fn in_a_name(module: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    module
        .chars()
        .map(|c| if fits(c) { c } else { '_' })
        .take(64)
        .collect()
}

fn number(idx: usize) -> Result<u32, Status> {
    u32::try_from(idx).map_err(|_| Status::Limit)
}
