//! The gateway's own metrics: what there is, and who counts it.

use std::sync::Arc;
use std::time::Duration;

use castling_abi::{MetricKind, PeerOutcome};
use http::StatusCode;

use super::{Count, Distribution, Gauge, Labels, ProtectionMetrics, Recorder};

/// A metric of the gateway's.
pub(super) struct Own {
    pub(super) kind: MetricKind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

pub(super) const fn own(kind: MetricKind, name: &'static str, help: &'static str) -> Own {
    Own { kind, name, help }
}

const REQUESTS: Own = own(
    MetricKind::Counter,
    "castling_requests_total",
    "Requests that were answered or given up, by the class of their status.",
);
const REQUESTS_ACTIVE: Own = own(
    MetricKind::Gauge,
    "castling_requests_active",
    "Requests under way.",
);
const ACCEPTED: Own = own(
    MetricKind::Counter,
    "castling_connections_accepted_total",
    "Client connections accepted.",
);
const CONNECTIONS: Own = own(
    MetricKind::Gauge,
    "castling_connections_active",
    "Client connections open.",
);
const REFUSED: Own = own(
    MetricKind::Counter,
    "castling_connections_refused_total",
    "Client connections closed at once, by reason: the address has as many as it may, no descriptor is left, or no PROXY header came from a proxy.",
);
const ENDED_IDLE: Own = own(
    MetricKind::Counter,
    "castling_connections_idle_ended_total",
    "Idle client connections ended to make room for new ones.",
);
const FLOODS: Own = own(
    MetricKind::Counter,
    "castling_http2_floods_total",
    "HTTP/2 connections ended for frames that bring nothing, such as pings or resets without end.",
);
const DROPPED_FIELDS: Own = own(
    MetricKind::Counter,
    "castling_request_fields_dropped_total",
    "Fields of requests that were dropped for their names (`field_names` of a listener).",
);
const HANDSHAKES: Own = own(
    MetricKind::Counter,
    "castling_tls_handshakes_total",
    "TLS handshakes with clients that are over, by result: full and resumed have succeeded.",
);
const NOT_AFTER: Own = own(
    MetricKind::GaugeMax,
    "castling_tls_certificate_not_after_seconds",
    "Time up to which a listener's certificate is good, in seconds since 1970-01-01 UTC, by its first name.",
);
const RECEIVED: Own = own(
    MetricKind::Counter,
    "castling_request_body_bytes_total",
    "Bytes of requests' bodies received.",
);
const SENT: Own = own(
    MetricKind::Counter,
    "castling_response_body_bytes_total",
    "Bytes of responses' bodies sent.",
);
const TRIES: Own = own(
    MetricKind::Counter,
    "castling_upstream_tries_total",
    "Tries of peers, by how they ended.",
);
const RETRIES: Own = own(
    MetricKind::Counter,
    "castling_upstream_retries_total",
    "Tries after the first of a request.",
);
const RETRIES_REFUSED: Own = own(
    MetricKind::Counter,
    "castling_upstream_retries_refused_total",
    "Tries after the first that were not made, by reason: the budget of retries was used up.",
);
const UPSTREAM_CONNECTIONS: Own = own(
    MetricKind::Gauge,
    "castling_upstream_connections_active",
    "Open connections to peers, idle ones and those that are being made included.",
);
const UPSTREAM_CONNECTIONS_MADE: Own = own(
    MetricKind::Counter,
    "castling_upstream_connections_made_total",
    "Connections to peers that were made.",
);
const UNASKED: Own = own(
    MetricKind::Counter,
    "castling_upstream_unasked_bytes_total",
    "Times that a peer has sent bytes that nobody had asked for, which costs it keep-alive for 10 minutes.",
);
const PANICS: Own = own(
    MetricKind::Counter,
    "castling_upstream_panics_total",
    "Tries while so few peers were available that all were chosen from.",
);
const CHECKS: Own = own(
    MetricKind::Counter,
    "castling_upstream_checks_total",
    "Health checks of peers, by result.",
);
const PENDING: Own = own(
    MetricKind::Gauge,
    "castling_upstream_pending_requests",
    "Requests that wait for a peer with room.",
);
pub(super) const OVERFLOWS: Own = own(
    MetricKind::Counter,
    "castling_upstream_overflows_total",
    "Requests, retries and connections that were refused, by the limit that they met.",
);
const UPSTREAM_SECONDS: Own = own(
    MetricKind::Histogram,
    "castling_upstream_response_seconds",
    "Time from the begin of a try to the head of its response.",
);
const CALLS: Own = own(
    MetricKind::Counter,
    "castling_hook_calls_total",
    "Calls of a plugin's hooks.",
);
const FAILURES: Own = own(
    MetricKind::Counter,
    "castling_hook_failures_total",
    "Calls of a plugin's hooks that gave no verdict, by cause.",
);
const INSTANCES: Own = own(
    MetricKind::Gauge,
    "castling_instances",
    "Instances of a plugin, idle ones included.",
);
const INSTANCES_LIMIT: Own = own(
    MetricKind::Gauge,
    "castling_instances_limit",
    "Instances that a plugin may have, of all workers: limits.instances, without those in reserve.",
);
const WAITING: Own = own(
    MetricKind::Gauge,
    "castling_instance_waiters",
    "Calls of a plugin's hooks that wait for an instance now.",
);
const WAITS: Own = own(
    MetricKind::Counter,
    "castling_instance_waits_total",
    "Calls of a plugin's hooks that had to wait for an instance.",
);
const AFTER_ACTIVE: Own = own(
    MetricKind::Gauge,
    "castling_after_response_active",
    "Calls of a plugin's after_response that run now.",
);
const AFTER_WAITING: Own = own(
    MetricKind::Gauge,
    "castling_after_response_waiting",
    "Calls of a plugin's after_response that wait because as many run as may.",
);
const AFTER_LOST: Own = own(
    MetricKind::Counter,
    "castling_after_response_lost_total",
    "Calls of a plugin's after_response that came to nothing, by reason: queue (too many waited), timeout, drain (the worker ended).",
);
const QUARANTINE: Own = own(
    MetricKind::GaugeMax,
    "castling_quarantine_state",
    "The worst of all workers: 0 the plugin is in service, 1 on trial, 2 out because it keeps trapping.",
);
const OVER_LIMIT: Own = own(
    MetricKind::Counter,
    "castling_plugin_series_over_limit_total",
    "Look-ups of label values that are counted as `other`: beyond limits.metric_series, or without room.",
);

/// Prometheus' own, which suit a service that answers in 5 ms to 10 s.
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl Recorder {
    pub(super) fn own_counter(&self, own: &Own, labels: &[(&str, &str)]) -> Count {
        self.define(own.kind, own.name, own.help);
        self.counter(own.name, &Labels::new(labels.iter().copied()))
    }

    pub(super) fn own_gauge(&self, own: &Own, labels: &[(&str, &str)]) -> Gauge {
        self.define(own.kind, own.name, own.help);
        self.gauge(own.kind, own.name, &Labels::new(labels.iter().copied()))
    }

    /// Metrics of the requests of a route at a listener; those without a route have an empty one.
    pub fn requests(&self, listener: &str, route: &str) -> RequestCounts {
        RequestCounts(CLASSES.map(|code| {
            self.own_counter(
                &REQUESTS,
                &[("listener", listener), ("route", route), ("code", code)],
            )
        }))
    }

    pub fn requests_active(&self) -> Gauge {
        self.own_gauge(&REQUESTS_ACTIVE, &[])
    }

    pub fn listener(&self, name: &str) -> ListenerMetrics {
        let labels = [("listener", name)];
        let refused =
            |reason| self.own_counter(&REFUSED, &[("listener", name), ("reason", reason)]);
        ListenerMetrics {
            refused_address: refused("address"),
            refused_descriptors: refused("descriptors"),
            refused_proxy_protocol: refused("proxy_protocol"),
            accepted: self.own_counter(&ACCEPTED, &labels),
            connections: self.own_gauge(&CONNECTIONS, &labels),
            ended_idle: self.own_counter(&ENDED_IDLE, &labels),
            dropped_fields: self.own_counter(&DROPPED_FIELDS, &labels),
            floods: self.own_counter(&FLOODS, &labels),
            received_bytes: self.own_counter(&RECEIVED, &labels),
            sent_bytes: self.own_counter(&SENT, &labels),
        }
    }

    /// Metrics of a listener with TLS.
    pub fn handshakes(&self, listener: &str) -> HandshakeMetrics {
        HandshakeMetrics(HandshakeResult::ALL.map(|result| {
            let labels = [("listener", listener), ("result", result.name())];
            self.own_counter(&HANDSHAKES, &labels)
        }))
    }

    /// Tells up to when the certificate with this first name is good.
    pub fn certificate(&self, listener: &str, name: &str, not_after_seconds: i64) {
        let gauge = self.own_gauge(&NOT_AFTER, &[("listener", listener), ("name", name)]);
        gauge.set(not_after_seconds as f64);
    }

    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let tries = |outcome: PeerOutcome| {
            let outcome = outcome.name().replace(' ', "_");
            self.own_counter(&TRIES, &[("upstream", name), ("outcome", &outcome)])
        };
        let checks = |result| self.own_counter(&CHECKS, &[("upstream", name), ("result", result)]);
        let overflows =
            |limit| self.own_counter(&OVERFLOWS, &[("upstream", name), ("limit", limit)]);
        let [hedges, hedges_won] = self.hedges(name);
        let response = &UPSTREAM_SECONDS;
        self.define(response.kind, response.name, response.help);
        let labels = Labels::new([("upstream", name)]);
        UpstreamMetrics {
            tries: OUTCOMES.map(tries),
            retries: self.own_counter(&RETRIES, &[("upstream", name)]),
            protection: ProtectionMetrics::default(),
            hedges,
            hedges_won,
            retries_over_budget: self.own_counter(
                &RETRIES_REFUSED,
                &[("upstream", name), ("reason", "budget")],
            ),
            connections: self.own_gauge(&UPSTREAM_CONNECTIONS, &[("upstream", name)]),
            connections_made: self.own_counter(&UPSTREAM_CONNECTIONS_MADE, &[("upstream", name)]),
            unasked: self.own_counter(&UNASKED, &[("upstream", name)]),
            panics: self.own_counter(&PANICS, &[("upstream", name)]),
            checks: ["failed", "passed"].map(checks),
            pending: self.own_gauge(&PENDING, &[("upstream", name)]),
            queue_full: overflows("queue_full"),
            queue_timeouts: overflows("queue_timeout"),
            response: self.histogram(response.name, &labels, &Arc::from(SECONDS)),
        }
    }

    /// Metrics of the calls of a plugin, which may have so many instances.
    pub fn hooks(&self, plugin: &str, instances: usize) -> HookMetrics {
        let limit = self.own_gauge(&INSTANCES_LIMIT, &[("plugin", plugin)]);
        limit.set(instances as f64);
        let failures = |cause| self.own_counter(&FAILURES, &[("plugin", plugin), ("cause", cause)]);
        HookMetrics {
            calls: self.own_counter(&CALLS, &[("plugin", plugin)]),
            errors: failures("error"),
            traps: failures("trap"),
            exhausted: failures("instances"),
            instances: self.own_gauge(&INSTANCES, &[("plugin", plugin)]),
            waiting: self.own_gauge(&WAITING, &[("plugin", plugin)]),
            waits: self.own_counter(&WAITS, &[("plugin", plugin)]),
            quarantine: self.own_gauge(&QUARANTINE, &[("plugin", plugin)]),
        }
    }

    /// Metrics of the calls of a plugin's `after_response`.
    pub fn after_response(&self, plugin: &str) -> AfterResponseMetrics {
        let lost =
            |reason| self.own_counter(&AFTER_LOST, &[("plugin", plugin), ("reason", reason)]);
        AfterResponseMetrics {
            active: self.own_gauge(&AFTER_ACTIVE, &[("plugin", plugin)]),
            waiting: self.own_gauge(&AFTER_WAITING, &[("plugin", plugin)]),
            lost_to_queue: lost("queue"),
            lost_to_timeout: lost("timeout"),
            lost_to_drain: lost("drain"),
        }
    }

    pub(super) fn over_limit(&self, plugin: &str) -> Count {
        self.own_counter(&OVER_LIMIT, &[("plugin", plugin)])
    }
}

/// Requests of one route by the class of their status.
#[derive(Clone, Copy, Default)]
pub struct RequestCounts([Count; CLASSES.len()]);

impl RequestCounts {
    #[inline]
    pub fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(2);
        self.0[class.min(CLASSES.len() - 1)].inc();
    }
}

/// Status codes from 600 on are an upstream's invention.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];

#[derive(Clone, Copy, Default)]
pub struct ListenerMetrics {
    pub accepted: Count,
    pub refused_address: Count,
    /// Idle connections that were ended for new ones.
    pub ended_idle: Count,
    /// Fields of requests, dropped for their names.
    pub dropped_fields: Count,
    /// HTTP/2 connections that were ended for a flood.
    pub floods: Count,
    pub refused_descriptors: Count,
    pub refused_proxy_protocol: Count,
    pub connections: Gauge,
    pub received_bytes: Count,
    pub sent_bytes: Count,
}

/// Handshakes of a listener, by result.
#[derive(Clone, Copy, Default)]
pub struct HandshakeMetrics([Count; HandshakeResult::ALL.len()]);

impl HandshakeMetrics {
    pub fn count(&self, result: HandshakeResult) {
        self.0[result as usize].inc();
    }
}

/// End of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    Full,
    Resumed,
    Timeout,
    ClientLeft,
    /// A request without TLS.
    PlainHttp,
    /// The client has named a server that there is no certificate for.
    UnknownName,
    /// An ACME authority has seen the answer to its challenge.
    Challenge,
    /// The client has shown no certificate where one is required, or a bad one.
    ClientCertificate,
    /// No version, suite or group that both have.
    Incompatible,
    /// The client has sent an alert: it does not trust the server's certificate, say.
    RefusedByClient,
    /// What came is no TLS, or breaks its rules.
    Malformed,
}

impl HandshakeResult {
    const ALL: [Self; 11] = [
        Self::Full,
        Self::Resumed,
        Self::Timeout,
        Self::ClientLeft,
        Self::PlainHttp,
        Self::UnknownName,
        Self::Challenge,
        Self::ClientCertificate,
        Self::Incompatible,
        Self::RefusedByClient,
        Self::Malformed,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Timeout => "timeout",
            Self::ClientLeft => "client_left",
            Self::PlainHttp => "plain_http",
            Self::UnknownName => "unknown_name",
            Self::Challenge => "acme_challenge",
            Self::ClientCertificate => "client_certificate",
            Self::Incompatible => "incompatible",
            Self::RefusedByClient => "refused_by_client",
            Self::Malformed => "malformed",
        }
    }
}

#[derive(Clone, Default)]
pub struct UpstreamMetrics {
    tries: [Count; OUTCOMES.len()],
    pub retries: Count,
    pub protection: ProtectionMetrics,
    /// Tries beside one that was slow, and those of them that have won.
    pub hedges: Count,
    pub hedges_won: Count,
    pub retries_over_budget: Count,
    /// Open connections to peers.
    pub connections: Gauge,
    /// Connections to peers that were made.
    pub connections_made: Count,
    /// Times that a peer has sent bytes that nobody had asked for.
    pub unasked: Count,
    /// Tries while all peers were chosen from, whatever their health.
    pub panics: Count,
    /// Checks that have failed, and that were passed.
    checks: [Count; 2],
    /// Requests that wait for a peer with room.
    pub pending: Gauge,
    /// Requests that found the queue full, or too long.
    pub queue_full: Count,
    pub queue_timeouts: Count,
    response: Distribution,
}

impl UpstreamMetrics {
    /// A peer was checked.
    pub fn checked(&self, passed: bool) {
        self.checks[usize::from(passed)].inc();
    }

    /// A try has ended after this time.
    pub fn tried(&self, outcome: PeerOutcome, took: Duration) {
        self.tries[outcome as usize].inc();
        if outcome == PeerOutcome::Responded {
            self.response.observe(took.as_secs_f64());
        }
    }
}

/// Outcomes, each at its number as the index.
const OUTCOMES: [PeerOutcome; 5] = *PeerOutcome::ALL.as_array().expect("there are five");

#[derive(Clone, Copy, Default)]
pub struct HookMetrics {
    pub calls: Count,
    pub errors: Count,
    pub traps: Count,
    pub exhausted: Count,
    pub instances: Gauge,
    pub waiting: Gauge,
    pub waits: Count,
    pub quarantine: Gauge,
}

/// Calls of a plugin's `after_response`; of one without that hook they are nowhere.
#[derive(Clone, Copy, Default)]
pub struct AfterResponseMetrics {
    pub active: Gauge,
    pub waiting: Gauge,
    pub lost_to_queue: Count,
    pub lost_to_timeout: Count,
    pub lost_to_drain: Count,
}
