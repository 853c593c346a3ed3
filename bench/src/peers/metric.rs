//! Measurements of a peer in a round, and the figures that come of them.

use std::ops::AddAssign;

use hdrhistogram::Histogram;

use super::counters::Counters;

/// Measurements of one peer in one turn, or in the two turns of a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Sent a second time, because the proxy closed an idle connection at that moment.
    pub(super) resent: u64,
    pub(super) seconds: f64,
    pub(super) used: Counters,
    /// From when a request was to be sent to its last byte. Nanoseconds.
    pub(super) latency: Option<Histogram<u64>>,
    /// How much later than it should the client has sent. Nanoseconds.
    pub(super) lateness: Option<Histogram<u64>>,
    pub(super) memory: Option<Memory>,
}

/// Memory of the proxy's processes. Bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) with_connections: u64,
    pub(super) connections: u64,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// CPU time of the proxy, a request. Microseconds.
    Cpu,
    RequestsPerSecond,
    /// Load of the proxy's core, percent.
    CoreUse,
    /// A request.
    Switches,
    /// A request.
    Faults,
    /// Microseconds.
    P50,
    P99,
    P999,
    /// Lateness of the client itself. Microseconds.
    LateP99,
    /// Bytes.
    MemoryAtRest,
    MemoryPerConnection,
}

impl Metric {
    pub(super) const ALL: [Self; 11] = [
        Self::Cpu,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::MemoryPerConnection,
        Self::MemoryAtRest,
        Self::RequestsPerSecond,
        Self::CoreUse,
        Self::Switches,
        Self::Faults,
        Self::LateP99,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU µs/request",
            Self::RequestsPerSecond => "requests/s",
            Self::CoreUse => "core %",
            Self::Switches => "switches/request",
            Self::Faults => "faults/request",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::LateP99 => "client late p99 µs",
            Self::MemoryAtRest => "memory at rest, MiB",
            Self::MemoryPerConnection => "memory of a connection, bytes",
        }
    }

    /// Whether it is worth a ratio to the first peer.
    pub(super) fn is_compared(self) -> bool {
        matches!(
            self,
            Self::Cpu | Self::P50 | Self::P99 | Self::P999 | Self::MemoryPerConnection
        )
    }

    pub(super) fn of(self, turn: &Turn) -> Option<f64> {
        let a_request =
            |total: u64| (turn.requests > 0).then(|| total as f64 / turn.requests as f64);
        let quantile = |histogram: &Option<Histogram<u64>>, quantile| {
            let histogram = histogram.as_ref().filter(|histogram| !histogram.is_empty());
            histogram.map(|histogram| histogram.value_at_quantile(quantile) as f64 / 1e3)
        };
        match self {
            Self::Cpu => a_request(turn.used.cpu_ns).map(|ns| ns / 1e3),
            Self::Switches => a_request(turn.used.switches),
            Self::Faults => a_request(turn.used.faults),
            Self::RequestsPerSecond => {
                (turn.requests > 0).then(|| turn.requests as f64 / turn.seconds)
            }
            Self::CoreUse => {
                (turn.seconds > 0.0).then(|| turn.used.cpu_ns as f64 / turn.seconds / 1e7)
            }
            Self::P50 => quantile(&turn.latency, 0.5),
            Self::P99 => quantile(&turn.latency, 0.99),
            Self::P999 => quantile(&turn.latency, 0.999),
            Self::LateP99 => quantile(&turn.lateness, 0.99),
            Self::MemoryAtRest => turn
                .memory
                .map(|memory| memory.before as f64 / f64::from(1 << 20)),
            Self::MemoryPerConnection => turn.memory.map(|memory| {
                memory.with_connections.saturating_sub(memory.before) as f64
                    / memory.connections as f64
            }),
        }
    }
}

impl AddAssign for Turn {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.resent += other.resent;
        self.seconds += other.seconds;
        self.used += other.used;
        add(&mut self.latency, other.latency);
        add(&mut self.lateness, other.lateness);
        self.memory = match (self.memory, other.memory) {
            (Some(a), Some(b)) => Some(Memory {
                before: a.before + b.before,
                with_connections: a.with_connections + b.with_connections,
                connections: a.connections + b.connections,
            }),
            (a, b) => a.or(b),
        };
    }
}

fn add(sum: &mut Option<Histogram<u64>>, more: Option<Histogram<u64>>) {
    match (sum.as_mut(), more) {
        (Some(sum), Some(more)) => {
            // Both count what `histogram` counts.
            let _fits = sum.add(&more);
        }
        (None, more) => *sum = more,
        (Some(_), None) => {}
    }
}

/// For nanoseconds up to a minute, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that it takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(requests: u64, cpu_ns: u64, latencies: &[u64]) -> Turn {
        let mut latency = histogram();
        for ns in latencies {
            latency.record(*ns).unwrap();
        }
        let used = Counters {
            cpu_ns,
            switches: 3,
            faults: 0,
        };
        Turn {
            requests,
            seconds: 0.5,
            used,
            latency: Some(latency),
            ..Turn::default()
        }
    }

    #[test]
    fn the_turns_of_a_round_are_one() {
        let mut round = turn(1000, 10_000_000, &[10_000, 20_000]);
        round += turn(3000, 20_000_000, &[30_000]);
        assert_eq!(Metric::Cpu.of(&round), Some(7.5));
        assert_eq!(Metric::RequestsPerSecond.of(&round), Some(4000.0));
        assert_eq!(Metric::CoreUse.of(&round), Some(3.0));
        assert_eq!(Metric::P50.of(&round).map(f64::round), Some(20.0));
        assert_eq!(Metric::MemoryAtRest.of(&round), None);
    }

    #[test]
    fn without_requests_there_is_no_figure() {
        assert_eq!(Metric::Cpu.of(&Turn::default()), None);
        assert_eq!(Metric::P99.of(&Turn::default()), None);
    }
}
