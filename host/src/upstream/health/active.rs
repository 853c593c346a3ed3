//! Checks of peers by requests of the gateway's own.
//!
//! One worker of the gateway makes them: that in the first slot of the newest generation. Times and results lie in shared
//! memory, so that whoever takes over goes on where the last one was.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, info, warn};

use super::grpc;
use crate::config::{CheckKind, CheckStart, HealthCheck, HttpCheck};
use crate::error::UpstreamError;
use crate::log::{Changes, Losses};
use crate::message::{FieldName, KnownHeader, RequestHead, Target};
use crate::runtime::random::jittered;
use crate::transport::PeerAddress;
use crate::upstream::http::{ProbeAnswer, ProbeError};
use crate::upstream::state::{CheckState, Checked, Due};
use crate::upstream::{Host, Peer, Standing, Upstream};
use crate::zone::now_ns;

/// Checks that are under way at a time, of one upstream.
const MAX_AT_ONCE: usize = 64;

/// Longest time until peers are found that are new.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// Time between the first checks of two peers, so that they are not made all at once.
const FIRST_APART: Duration = Duration::from_millis(5);

/// Parts that all checks of an upstream share.
struct Checker {
    upstream: Rc<Upstream>,
    check: HealthCheck,
    request: RequestHead,
    turns: Semaphore,
    /// Log of checks that could not be made.
    shortages: RefCell<Losses>,
    /// Told when a check may be due earlier than it was.
    sooner: Notify,
}

/// Times of a check: when it was due, and when the next one is, as it was claimed.
#[derive(Clone, Copy)]
struct Times {
    due_ns: u64,
    next_ns: u64,
}

/// Result of a check that has failed.
enum Failure {
    /// Nothing that the peer could help.
    Ours(io::Error),
    Peers(String),
}

/// Checks the peers of an upstream for ever, if it has checks.
pub(in crate::upstream) async fn run(upstream: Rc<Upstream>) {
    let Some(check) = upstream.check.clone() else {
        return;
    };
    let request = match &check.kind {
        CheckKind::Tcp => RequestHead::default(),
        CheckKind::Http(http) => http_request(http),
        CheckKind::Grpc { .. } => grpc_request(),
    };
    let checker = Rc::new(Checker {
        upstream,
        check,
        request,
        turns: Semaphore::new(MAX_AT_ONCE),
        shortages: RefCell::default(),
        sooner: Notify::new(),
    });
    loop {
        let sleep = tokio::time::sleep(checker.begin_due());
        tokio::select! {
            () = sleep => {}
            () = checker.sooner.notified() => {}
        }
    }
}

impl Checker {
    /// Begins the checks that are due. Returns the time until one may be due again.
    fn begin_due(self: &Rc<Self>) -> Duration {
        let set = self.upstream.balancer.peers();
        let now_ns = now_ns();
        let mut until = LOOK_EACH;
        for (peer, n) in set.as_slice().iter().zip(0..) {
            if peer.state.standing() == Standing::Down {
                continue;
            }
            let next = self.jittered(self.check.interval);
            let first = FIRST_APART.saturating_mul(n).min(self.check.interval);
            match peer.state.claim_check(now_ns, first, next) {
                Due::Now => {
                    until = until.min(next);
                    let times = Times {
                        due_ns: now_ns,
                        next_ns: now_ns.saturating_add(nanos(next)),
                    };
                    let (checker, peer) = (Rc::clone(self), Rc::clone(peer));
                    tokio::task::spawn_local(async move { checker.check(&peer, times).await });
                }
                Due::Later(at_ns) => {
                    until = until.min(Duration::from_nanos(at_ns.saturating_sub(now_ns)));
                }
            }
        }
        until
    }

    fn jittered(&self, interval: Duration) -> Duration {
        jittered(interval, self.check.jitter)
    }

    /// Makes one check.
    async fn check(&self, peer: &Rc<Peer>, times: Times) {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let begun = Instant::now();
        let timeout = self.check.timeout;
        let result = match tokio::time::timeout(timeout, self.ask(peer)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Peers(format!("no answer in {timeout:?}"))),
        };
        let (name, label) = (&*self.upstream.name, &*peer.label);
        let failure = match result {
            Ok(()) => None,
            Err(Failure::Peers(what)) => Some(what),
            Err(Failure::Ours(cause)) => {
                let told = self.shortages.borrow_mut().lost(1, Instant::now());
                if let Some(checks) = told {
                    warn!(upstream = name, peer = label, checks, %cause, "peer cannot be checked");
                }
                return;
            }
        };
        let passed = failure.is_none();
        self.upstream.metrics.checked(passed);
        let (counts, took) = ((self.check.rise, self.check.fall), begun.elapsed());
        let checked = peer.state.note_check(passed, counts, now_ns(), took);
        let sooner = match (checked.is_unsure, checked.now) {
            (true, _) => Some(self.check.fast_interval),
            (false, CheckState::Down) => Some(self.check.down_interval),
            (false, CheckState::None | CheckState::Up) => None,
        };
        if let Some(interval) = sooner {
            let interval_ns = nanos(self.jittered(interval));
            let at_ns = times.due_ns.saturating_add(interval_ns).max(now_ns());
            peer.state.check_at(times.next_ns, at_ns);
            self.sooner.notify_one();
        }
        let why = failure.as_deref().unwrap_or_default();
        self.tell(peer, checked, why);
        if checked.now == checked.before {
            debug!(upstream = name, peer = label, passed, why, "peer checked");
            return;
        }
        if checked.now == CheckState::Up {
            // The peer was passed over for what is over now.
            peer.state.end_ejection();
            if checked.before == CheckState::None && self.check.start == CheckStart::Mandatory {
                peer.state.is_seen_up(now_ns());
            }
        }
        self.upstream.balancer.peers_have_changed();
    }

    /// Tells what checks have found, where that is another state than the log has, and not too often. `why`: of a check that has
    /// failed.
    fn tell(&self, peer: &Peer, checked: Checked, why: &str) {
        let mut told = peer.told.borrow_mut();
        let told = told.get_or_insert_with(|| Changes::new(checked.before));
        let Some(untold) = told.note(checked.now, Instant::now()) else {
            return;
        };
        let untold = (untold > 0).then_some(untold);
        let (upstream, peer) = (&*self.upstream.name, &*peer.label);
        match checked.now {
            CheckState::Down => warn!(upstream, peer, untold, why, "peer is down"),
            CheckState::Up | CheckState::None => info!(upstream, peer, untold, "peer is up"),
        }
    }

    async fn ask(&self, peer: &Peer) -> Result<(), Failure> {
        let address = match (self.check.port, &peer.address) {
            (Some(port), PeerAddress::Inet(address)) => {
                let mut address = *address;
                address.set_port(port);
                PeerAddress::from(address)
            }
            (_, address) => address.clone(),
        };
        let limit = self.check.timeout;
        let connected = self.upstream.probe_connection(peer, &address, limit).await;
        let transport = connected.map_err(|error| match error {
            ProbeError::Shortage(cause) => Failure::Ours(cause),
            ProbeError::Failed(error) => failed(&error),
        })?;
        let (host, body) = match &self.check.kind {
            CheckKind::Tcp => return Ok(()),
            CheckKind::Http(http) => (http.host.as_deref(), Bytes::new()),
            CheckKind::Grpc { service } => (None, grpc::request(service)),
        };
        let host = match (host, &self.upstream.host) {
            (Some(host), _) => host.as_bytes(),
            (None, Host::Fixed(host)) => host.as_bytes(),
            (None, Host::Client | Host::Peer) => peer.host.as_bytes(),
        };
        let asked = self
            .upstream
            .ask(peer, transport, &self.request, host, body);
        let answer = asked.await.map_err(|error| failed(&error))?;
        match &self.check.kind {
            CheckKind::Tcp => Ok(()),
            CheckKind::Http(http) => judge(http, &answer),
            CheckKind::Grpc { .. } => judge_call(&answer),
        }
        .map_err(Failure::Peers)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn failed(error: &UpstreamError) -> Failure {
    Failure::Peers(error.to_string())
}

fn http_request(check: &HttpCheck) -> RequestHead {
    let (path, query) = match check.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (check.path.as_str(), None),
    };
    let mut request = RequestHead {
        // Checked when the config was read.
        method: Method::from_bytes(check.method.as_bytes()).unwrap_or_default(),
        target: Target::new(path, query),
        ..RequestHead::default()
    };
    set(&mut request, "user-agent", USER_AGENT);
    for (name, value) in &check.headers {
        set(&mut request, name, value);
    }
    request
}

/// Sets a field of a name that was checked.
fn set(request: &mut RequestHead, name: &str, value: &str) {
    if let Some(name) = FieldName::new(name.as_bytes()) {
        request.headers.set(name, value.as_bytes());
    }
}

fn grpc_request() -> RequestHead {
    let mut request = RequestHead {
        method: Method::POST,
        target: Target::new("/grpc.health.v1.Health/Check", None),
        ..RequestHead::default()
    };
    set(&mut request, "user-agent", USER_AGENT);
    request
        .headers
        .set(KnownHeader::ContentType, b"application/grpc");
    request.headers.set(KnownHeader::Te, b"trailers");
    request
}

const USER_AGENT: &str = "castling-health-check";

/// Whether the answer is that of a peer that is well. The error is for a person.
fn judge(check: &HttpCheck, answer: &ProbeAnswer) -> Result<(), String> {
    let status = answer.status.as_u16();
    if !check.statuses.contains(status) {
        return Err(format!("status {status}"));
    }
    for (name, expected) in &check.expect_headers {
        match answer.headers.find_value(name.as_bytes()) {
            Some(found) if found == expected.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(found);
                return Err(format!("{name}: {found:?}, expected {expected:?}"));
            }
            None => return Err(format!("no field {name}")),
        }
    }
    match &check.expect_body {
        Some(text) if !contains(&answer.body, text.as_bytes()) => {
            Err(format!("the body has no {text:?}"))
        }
        Some(_) | None => Ok(()),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|part| part == text)
}

fn judge_call(answer: &ProbeAnswer) -> Result<(), String> {
    let status = answer.status.as_u16();
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let fields = answer.trailers.as_ref().unwrap_or(&answer.headers);
    let code = fields.find_value(b"grpc-status").unwrap_or(b"?");
    if code != b"0" {
        return Err(format!("grpc-status {}", String::from_utf8_lossy(code)));
    }
    match grpc::status(&answer.body) {
        Some(grpc::SERVING) => Ok(()),
        Some(other) => Err(format!(
            "the service's status is {other}, expected {}",
            grpc::SERVING
        )),
        None => Err("no HealthCheckResponse".to_owned()),
    }
}
