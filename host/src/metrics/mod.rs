//! Metrics: counters, gauges and histograms of the gateway and of its plugins, in memory that all workers share.
//!
//! Each worker writes to values of its own (a row of the [`MetricsZone`]), so that to count is to load, to add and to
//! store on memory that no other core touches. Who reads ([`text()`]) adds up all rows. The values of a worker that has
//! ended stay, and the next worker with its row goes on with them; so counters only grow, over the death of workers and
//! over reloads. Gauges end with their worker.

mod cache;
mod master;
mod own;
mod permits;
mod plugin;
mod protection;
mod sessions;
mod spill;
mod text;
mod topics;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use castling_abi::MetricKind;

pub use cache::CacheMetrics;
pub use master::MasterMetrics;
pub use own::{
    AfterResponseMetrics, HandshakeMetrics, HandshakeResult, HookMetrics, ListenerMetrics,
    RequestCounts, UpstreamMetrics,
};
pub use permits::PermitMetrics;
pub use plugin::{InstanceMetrics, PluginMetrics};
pub use protection::{MirrorMetrics, ProtectionMetrics};
pub use sessions::SessionMetrics;
pub use spill::SpillMetrics;
pub use text::CONTENT_TYPE;
pub use text::text;
pub use topics::TopicMetrics;

use crate::zone::{MetricsZone, Record, ZoneError};

/// A process's hand in the metrics. Where there is no room for a series, what is counted is lost; nothing fails.
#[derive(Clone, Copy)]
pub struct Recorder {
    zone: &'static MetricsZone,
    row: &'static [AtomicU64],
    stamps: &'static Stamps,
}

impl Recorder {
    /// Recorder of a process that has this row of the zone; without one, what it counts is seen nowhere. What it
    /// defines counts as defined from [`Self::serve`] on.
    ///
    /// The zone stays mapped for as long as the process lives: what counts on the path of a request holds plain
    /// references.
    pub fn new(zone: MetricsZone, row: Option<u32>, generation: u64) -> Self {
        let zone: &'static MetricsZone = Box::leak(Box::new(zone));
        let row = row.and_then(|row| zone.row(row)).unwrap_or_else(|| {
            let nowhere = (0..zone.cells()).map(|_| AtomicU64::new(0));
            Box::leak(nowhere.collect())
        });
        Self {
            zone,
            row,
            stamps: Box::leak(Box::new(Stamps::new(generation))),
        }
    }

    /// Tells that the generation serves: its definitions so far, and from here on at once, take the place of those that
    /// earlier generations gave the same names.
    pub fn serve(&self) {
        self.stamps.serve(self.zone);
    }

    /// Recorder in memory of its own, for `castling check`.
    pub fn alone(max_series: u32) -> Result<Self, ZoneError> {
        let zone = MetricsZone::create(max_series)?;
        zone.take_row(0)?;
        let alone = Self::new(zone, Some(0), FIRST_GENERATION);
        alone.serve();
        Ok(alone)
    }

    /// Page of all that the processes have counted so far, see [`text()`].
    pub fn text(&self) -> String {
        text(self.zone)
    }

    /// Says what a metric is, and whether that is new. Where one of that name was another thing in an earlier
    /// generation, that is no longer shown once this one serves.
    fn define(&self, kind: MetricKind, name: &str, help: &str) -> bool {
        define(self.zone, self.stamps, kind, name, help)
    }

    fn counter(&self, name: &str, labels: &Labels) -> Count {
        let cells = self.cells(self.add_series(MetricKind::Counter, name, labels, &[]));
        cells.and_then(<[_]>::first).map_or(Count::NOWHERE, Count)
    }

    fn gauge(&self, kind: MetricKind, name: &str, labels: &Labels) -> Gauge {
        let cells = self.cells(self.add_series(kind, name, labels, &[]));
        cells.and_then(<[_]>::first).map_or(Gauge::NOWHERE, Gauge)
    }

    fn histogram(&self, name: &str, labels: &Labels, bounds: &Arc<[f64]>) -> Distribution {
        let record = self.add_series(MetricKind::Histogram, name, labels, bounds);
        Distribution {
            cells: self.cells(record).unwrap_or_default(),
            bounds: Arc::clone(bounds),
        }
    }

    fn add_series(
        &self,
        kind: MetricKind,
        name: &str,
        labels: &Labels,
        bounds: &[f64],
    ) -> Option<Record> {
        let added = add_series(self.zone, self.stamps, kind, name, labels, bounds);
        added.map(|(record, _)| record)
    }

    /// Whether the series is there, added by whatever process.
    fn has(&self, kind: MetricKind, name: &str, labels: &Labels, bounds: &[f64]) -> bool {
        let text = record_text(name, &labels.0, bounds);
        let byte = RecordKind::Series(kind).byte();
        text.and_then(|text| self.zone.find(byte, &text, cell_count(kind, bounds)))
            .is_some()
    }

    fn has_family(&self, kind: MetricKind, name: &str, help: &str) -> bool {
        let text = record_text(name, help, &[]);
        text.and_then(|text| self.zone.find(RecordKind::Family(kind).byte(), &text, 0))
            .is_some()
    }

    fn cells(&self, record: Option<Record>) -> Option<&'static [AtomicU64]> {
        let record = record?;
        self.row
            .get(record.first_cell..record.first_cell + record.cells)
    }
}

/// Marks records with the generation that uses them. One that does not serve yet leaves no mark: it may be refused, and
/// then nothing has changed.
struct Stamps {
    generation: u64,
    /// Records to be marked once it serves; None from then on.
    waiting: Mutex<Option<Vec<Record>>>,
}

impl Stamps {
    fn new(generation: u64) -> Self {
        Self {
            generation,
            waiting: Mutex::new(Some(Vec::new())),
        }
    }

    fn of_serving(generation: u64) -> Self {
        Self {
            generation,
            waiting: Mutex::new(None),
        }
    }

    fn serve(&self, zone: &MetricsZone) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        for record in waiting.into_iter().flatten() {
            self.mark(zone, record);
        }
    }

    /// Stamps a record when its series is looked up, not when it counts.
    fn stamp(&self, zone: &MetricsZone, record: Record) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waiting) => waiting.push(record),
            None => self.mark(zone, record),
        }
    }

    fn mark(&self, zone: &MetricsZone, record: Record) {
        if let Some(seen) = zone.note(record) {
            seen.fetch_max(self.generation, Relaxed);
        }
    }
}

/// Records with a smaller mark, which is none, are not shown.
const FIRST_GENERATION: u64 = 1;

/// A counter's series, in this process's row.
#[derive(Clone, Copy)]
pub struct Count(&'static AtomicU64);

impl Count {
    /// Counter whose counts are lost.
    pub const NOWHERE: Self = Self(&NOWHERE);

    #[inline]
    pub fn inc(self) {
        self.add(1.0);
    }

    /// `amount` is finite and not negative. This process alone writes here, so nothing is lost between load and store.
    #[inline]
    pub fn add(self, amount: f64) {
        add(self.0, amount);
    }
}

impl Default for Count {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// A gauge's series, in this process's row.
#[derive(Clone, Copy)]
pub struct Gauge(&'static AtomicU64);

impl Gauge {
    pub const NOWHERE: Self = Self(&NOWHERE);

    #[inline]
    pub fn set(self, value: f64) {
        self.0.store(gauge_bits(value), Relaxed);
    }

    #[inline]
    pub fn add(self, amount: f64) {
        let now = gauge_value(self.0.load(Relaxed)).unwrap_or(0.0);
        self.set(now + amount);
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// A histogram's series, in this process's row.
#[derive(Clone, Default)]
pub struct Distribution {
    /// Counts by bucket, the infinite one too, and the sum. None where there was no room.
    cells: &'static [AtomicU64],
    bounds: Arc<[f64]>,
}

impl Distribution {
    /// `value` is finite.
    #[inline]
    pub fn observe(&self, value: f64) {
        let bucket = match self.bounds.first() {
            // Most of what is observed, without the search: 30 instructions of a request.
            Some(first) if value <= *first => 0,
            _ => self.bounds.partition_point(|bound| *bound < value),
        };
        if let (Some(count), Some(sum)) = (self.cells.get(bucket), self.cells.last()) {
            add(count, 1.0);
            add(sum, value);
        }
    }
}

#[inline]
fn add(cell: &AtomicU64, amount: f64) {
    let now = f64::from_bits(cell.load(Relaxed));
    cell.store((now + amount).to_bits(), Relaxed);
}

/// Counts that have no place in the zone end here.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

/// Zero in a gauge's cell means that the process has set nothing; so a value is kept with the bits of this turned, a
/// NaN that no value is.
const UNSET: u64 = 0x7ff8_6e6f_7465_7421;

fn gauge_bits(value: f64) -> u64 {
    value.to_bits() ^ UNSET
}

fn gauge_value(bits: u64) -> Option<f64> {
    (bits != 0).then(|| f64::from_bits(bits ^ UNSET))
}

/// A process that had this row has ended: its gauges are no more, so that whoever has the row next begins without.
pub fn forget_gauges(zone: &MetricsZone, row: u32) {
    let Some(cells) = zone.row(row) else { return };
    zone.for_each(|kind, _, record| {
        if let Some(RecordKind::Series(MetricKind::Gauge | MetricKind::GaugeMax)) =
            RecordKind::from_byte(kind)
        {
            let cells = cells.get(record.first_cell..record.first_cell + record.cells);
            cells
                .unwrap_or_default()
                .iter()
                .for_each(|cell| cell.store(0, Relaxed));
        }
    });
}

/// Kind of a record of the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordKind {
    /// Name, labels and for a histogram its bounds; the note is the last serving generation that has looked it up.
    Series(MetricKind),
    /// Name and help; the note is the last serving generation that has defined it.
    Family(MetricKind),
    /// Charged resource and a plugin's name; the note is how much.
    Account,
}

impl RecordKind {
    fn byte(self) -> u8 {
        match self {
            Self::Series(kind) => 1 + kind as u8,
            Self::Family(kind) => 0x11 + kind as u8,
            Self::Account => 0x20,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let kind = |low: u8| MetricKind::from_raw(u32::from(low));
        match byte {
            1..=0x10 => kind(byte - 1).map(Self::Series),
            0x11..=0x1f => kind(byte - 0x11).map(Self::Family),
            0x20 => Some(Self::Account),
            _ => None,
        }
    }
}

/// Label names and values as they are exposed: `code="200",route="/"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Labels(String);

impl Labels {
    fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            text::escape(&mut text, value, true);
            text.push('"');
        }
        Self(text)
    }
}

fn define(zone: &MetricsZone, stamps: &Stamps, kind: MetricKind, name: &str, help: &str) -> bool {
    let text = record_text(name, help, &[]);
    let added = text.and_then(|text| zone.add(RecordKind::Family(kind).byte(), &text, 0));
    let Some((record, new)) = added else {
        return false;
    };
    stamps.stamp(zone, record);
    new
}

fn add_series(
    zone: &MetricsZone,
    stamps: &Stamps,
    kind: MetricKind,
    name: &str,
    labels: &Labels,
    bounds: &[f64],
) -> Option<(Record, bool)> {
    let text = record_text(name, &labels.0, bounds)?;
    let (record, new) = zone.add(
        RecordKind::Series(kind).byte(),
        &text,
        cell_count(kind, bounds),
    )?;
    stamps.stamp(zone, record);
    Some((record, new))
}

/// A histogram has its buckets, the infinite one and the sum.
fn cell_count(kind: MetricKind, bounds: &[f64]) -> u16 {
    match kind {
        MetricKind::Counter | MetricKind::Gauge | MetricKind::GaugeMax => 1,
        MetricKind::Histogram => u16::try_from(bounds.len() + 2).unwrap_or(u16::MAX),
    }
}

/// The lengths of name and more, then these, then the bounds.
fn record_text(name: &str, more: &str, bounds: &[f64]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(4 + name.len() + more.len() + bounds.len() * 8);
    text.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
    text.extend_from_slice(&u16::try_from(more.len()).ok()?.to_le_bytes());
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(more.as_bytes());
    for bound in bounds {
        text.extend_from_slice(&bound.to_le_bytes());
    }
    Some(text)
}

/// The reverse of [`record_text`]: name, labels or help, and bounds.
fn read_record_text(text: &[u8]) -> Option<(&str, &str, Vec<f64>)> {
    let (lengths, rest) = text.split_first_chunk::<4>()?;
    let [a, b, c, d] = *lengths;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b])))?;
    let (more, bounds) = rest.split_at_checked(usize::from(u16::from_le_bytes([c, d])))?;
    Some((
        str::from_utf8(name).ok()?,
        str::from_utf8(more).ok()?,
        castling_abi::metric::bounds(bounds).collect(),
    ))
}

#[cfg(test)]
mod tests;
