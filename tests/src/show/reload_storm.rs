//! Reload storm: two configs take turns many times a second under load, and no request notices.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::{Cause, Era, Failure, Group, Load, Outcome, Over, socket};
use super::marks::{self, Kind, NAMES, Wrong};
use super::tunnels::{self, Tunnels};
use super::{Progress, Report, origin};
use crate::tls::{Authority, TlsClient};
use crate::{Proxy, control};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Shortest duration of the storm; it goes on until there were `requests`, but never longer than `at_most`.
    pub lasts: Duration,
    pub at_most: Duration,
    pub requests: u64,
    pub reloads_a_second: u32,
    /// Whether a machine that is too slow for that many reloads a second fails the show.
    pub claims_rate: bool,
    /// Clients that send one request after the other over kept connections.
    pub clients: usize,
    /// Clients beside them that take a new connection for each request.
    pub new_clients: usize,
    /// Clients beside them that pause up to 3 s between two requests, so that their connections are mostly idle.
    pub idle_clients: usize,
    /// Clients beside them by TLS, by HTTP/2, and by HTTP/2 with TLS, so many each.
    pub other_clients: usize,
    /// WebSockets that are open all the time.
    pub tunnels: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(60),
            at_most: Duration::from_secs(300),
            requests: 1_000_000,
            reloads_a_second: 10,
            claims_rate: true,
            clients: 32,
            new_clients: 8,
            idle_clients: 64,
            other_clients: 4,
            tunnels: 1000,
        }
    }
}

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let authority = Authority::new("show");
    let mut proxy = gateway(&authority);
    let control = proxy.path("castling.sock");
    // Written once and then linked: a file that is written anew may wait for the disk.
    for (idx, name) in NAMES.iter().enumerate() {
        proxy.write_config(&config(idx));
        fs::rename(proxy.path("castling.toml"), proxy.path(name)).expect("the gateway's folder");
    }
    use_config(&proxy, 0);
    let era = Arc::new(Era::default());
    let load = load(&proxy, &authority, options, &era).start();
    load.until_more(100);
    let before = proxy.master().descriptors();
    let tunnels = tunnels(&proxy, &authority, options);

    let interval = Duration::from_secs(1) / options.reloads_a_second;
    let begun = Instant::now();
    let (mut reloads, mut refusals) = (0_u32, Vec::new());
    let mut longest = Duration::ZERO;
    while begun.elapsed() < options.lasts
        || (load.good() < options.requests && begun.elapsed() < options.at_most)
    {
        let due = begun + interval * (reloads + refusals.len() as u32);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        use_config(&proxy, (reloads as usize + 1) % 2);
        era.ends();
        let asked = Instant::now();
        match control::reload(&control) {
            Ok(()) => {
                reloads += 1;
                era.begins();
            }
            Err(refusal) => {
                refusals.push(refusal);
                // The config is still the one before; two steps more, since one would name the other config.
                (0..3).for_each(|_| era.ends());
            }
        }
        longest = longest.max(asked.elapsed());
        progress.tell(|| {
            let (good, failed) = (load.good(), load.failed());
            format!("{reloads} reloads, {good} requests, {failed} failed")
        });
    }
    let took = begun.elapsed();
    let outcome = load.stop();
    let tunnels = tunnels.close();
    let mut report = Report::new(format!(
        "Reload storm: {} reloads a second for {:.0} s, two configs in turn, under load by HTTP/1 and HTTP/2, plain and TLS",
        options.reloads_a_second,
        took.as_secs_f64()
    ));
    claims_of_load(&mut report, &outcome, options.requests);
    let rate = f64::from(reloads) / took.as_secs_f64();
    let holds = !options.claims_rate || rate > 0.98 * f64::from(options.reloads_a_second);
    report.claim(
        format!("{} reloads a second", options.reloads_a_second),
        format!("{reloads}: {rate:.1} a second, the longest {longest:.0?}"),
        holds,
    );
    claims_of_tunnels(&mut report, &tunnels, options.tunnels);
    report.claim("0 reloads refused", refusals.len(), refusals.is_empty());
    report.details(refusals);
    claims_of_end(&mut report, &proxy, before);
    figures(&mut report, &outcome);
    report
}

/// Makes one of the two the gateway's config, in one step.
fn use_config(proxy: &Proxy, config_idx: usize) {
    let link = proxy.path("next.toml");
    std::os::unix::fs::symlink(NAMES[config_idx], &link)
        .and_then(|()| fs::rename(&link, proxy.path("castling.toml")))
        .expect("the gateway's folder");
}

/// Lines of one of the two configs.
pub(super) fn config(idx: usize) -> String {
    let peers = format!("\"{{{}}}\"", NAMES[idx]);
    marks::config(idx, &peers, "", &marks::secure(idx))
}

/// Gateway with the first of the two configs, whose certificates are this authority's.
pub(super) fn gateway(authority: &Authority) -> Proxy {
    let mut setup = Proxy::with_config(&config(0)).origin("echo", origin::echoing());
    for name in NAMES {
        let pem = authority.certify(&[socket::NAME]);
        setup = setup
            .origin(name, origin::marking(name, None))
            .file(&format!("{name}.pem"), pem.chain)
            .file(&format!("{name}.key"), pem.key);
    }
    setup.start()
}

/// Load of every kind: saturating clients, clients that come for one request, clients that mostly idle, of every protocol.
pub(super) fn load(
    proxy: &Proxy,
    authority: &Authority,
    options: &Options,
    era: &Arc<Era>,
) -> Load {
    let group = |over, clients, requests, pause| Group {
        over,
        clients,
        requests,
        pause,
    };
    let (kept, others) = (Duration::ZERO, options.other_clients);
    let idle = Duration::from_secs(3);
    Load {
        address: proxy.address(),
        secure: Some((proxy.address_of("listen_secure"), TlsClient::new(authority))),
        groups: vec![
            group(Over::Plain, options.clients, 1000, kept),
            group(Over::Plain, options.new_clients, 1, kept),
            group(Over::Plain, options.idle_clients, 1000, idle),
            group(Over::Tls, others, 1000, kept),
            group(Over::Tls, others.div_ceil(4), 1, kept),
            group(Over::Tls, others, 1000, idle),
            group(Over::Http2, others, 1000, kept),
            group(Over::Http2, others, 1000, idle),
            group(Over::Http2Tls, others, 1000, kept),
            group(Over::Http2Tls, others.div_ceil(4), 1, kept),
            group(Over::Http2Tls, others, 1000, idle),
        ],
        mix: MIX.to_vec(),
        resends: true,
        era: Arc::clone(era),
    }
}

/// WebSockets of every protocol, open before the first reload.
pub(super) fn tunnels(proxy: &Proxy, authority: &Authority, options: &Options) -> Tunnels {
    let secure = proxy.address_of("listen_secure_tunnels");
    let load = Load {
        address: proxy.address_of("listen_tunnels"),
        secure: Some((secure, TlsClient::new(authority))),
        ..load(proxy, authority, options, &Arc::default())
    };
    Tunnels::open(load, options.tunnels)
}

pub(super) fn claims_of_tunnels(report: &mut Report, outcome: &tunnels::Outcome, open: usize) {
    let tunnels::Outcome {
        opened,
        messages,
        cut,
        causes,
    } = outcome;
    report.claim(
        format!("{open} WebSockets open, 0 cut"),
        format!("{opened} open, {cut} cut, {messages} messages came back"),
        *opened == open as u64 && *cut == 0,
    );
    report.details(causes.iter().cloned());
}

/// Half of the requests go to an origin, a quarter of those through a body filter.
const MIX: [Kind; 8] = [
    Kind::Direct,
    Kind::Proxied,
    Kind::Direct,
    Kind::Proxied,
    Kind::Direct,
    Kind::Proxied,
    Kind::Direct,
    Kind::Filtered,
];

pub(super) fn claims_of_load(report: &mut Report, outcome: &Outcome, requests: u64) {
    let of = |is_so: fn(&Failure) -> bool| outcome.failures.iter().filter(|f| is_so(f)).count();
    let mixed = of(|failure| matches!(failure.cause, Cause::Wrong(Wrong::Mixed(_))));
    let stale = of(|failure| matches!(failure.cause, Cause::Stale(_)));
    let failed = outcome.failures.len();
    report.claim(
        format!("at least {requests} requests"),
        outcome.good,
        outcome.good >= requests,
    );
    report.claim("0 failed", failed, failed == 0);
    report.claim("0 responses mix two configs", mixed, mixed == 0);
    report.claim(
        "0 new connections meet a config that is gone",
        format!("{stale} of {} compared", outcome.compared),
        stale == 0,
    );
    let failures = outcome.failures.iter();
    report.details(failures.map(|failure| format!("{failure:?}")));
}

/// Nothing is left of what is over, and nothing went wrong inside.
pub(super) fn claims_of_end(report: &mut Report, proxy: &Proxy, descriptors_before: usize) {
    let is_back =
        || proxy.workers().len() == WORKERS && proxy.master().descriptors() <= descriptors_before;
    let begun = Instant::now();
    while !is_back() && begun.elapsed() < SETTLES_WITHIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (workers, descriptors) = (proxy.workers().len(), proxy.master().descriptors());
    report.claim(
        format!("{WORKERS} workers at the end, no descriptor more in the master"),
        format!("{workers} workers, {descriptors} descriptors, {descriptors_before} before"),
        is_back(),
    );
    let errors = proxy.error_lines();
    report.claim(
        "0 errors in the gateway's log",
        errors.len(),
        errors.is_empty(),
    );
    report.details(errors);
}

pub(super) fn figures(report: &mut Report, outcome: &Outcome) {
    let seconds = outcome.took.as_secs_f64();
    let rate = outcome.good as f64 / seconds;
    report.figure("requests a second", format!("{rate:.0}"));
    let percent = |part: u64| 100.0 * part as f64 / outcome.good.max(1) as f64;
    report.figure(
        "requests that an origin answered",
        format!("{} ({:.0}%)", outcome.proxied, percent(outcome.proxied)),
    );
    report.figure("connections", outcome.connections);
    report.figure(
        "connections the gateway closed while idle",
        outcome.closed_idle,
    );
    report.figure(
        "requests sent again since they crossed a close",
        outcome.resent,
    );
}

/// `[workers]` of a gateway whose config does not say.
const WORKERS: usize = 2;

/// Idle connections get a second, then the drain time-out.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
