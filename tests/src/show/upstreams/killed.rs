//! Part 1: of three peers one is killed and comes back, again and again.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::open_load::{OpenLoad, Running, Sample};
use super::peer::{Behaviour, Capacity, Peer, within};
use super::{Options, config};
use crate::Proxy;
use crate::show::{Progress, Report};

pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    for policy in POLICIES {
        by_retries(policy, options, report, progress);
    }
    by_checks(options, report, progress);
}

/// What the claims call it, and the keys of its upstream.
const POLICIES: [(&str, &str, &str); 4] = [
    ("round_robin", r#"balance = "round_robin""#, ""),
    ("least_conn", r#"balance = "least_conn""#, ""),
    ("ewma", r#"balance = "ewma""#, ""),
    (
        "a Wasm policy",
        r#"balance = { plugin = "policy" }"#,
        "[plugins.policy]\nwasm = \"{plugins}/ewma.wasm\"",
    ),
];

/// With the retries that are the default no request fails.
fn by_retries(
    (policy, keys, tables): (&str, &str, &str),
    options: &Options,
    report: &mut Report,
    progress: &mut Progress,
) {
    progress.step(&format!("peers are killed: {policy}"));
    let peers = three();
    let proxy = Proxy::with_config(&config(&peers, keys, tables)).start();
    let load = load(options, &proxy);
    let falls = fall_in_turn(&peers, &load, &[Fall::Dies]);
    let samples = load.samples();
    let failed: Vec<&Sample> = samples.iter().filter(|sample| !sample.is_good()).collect();
    report.claim(
        format!("1: {policy}: no request fails while peers are killed"),
        format!(
            "{} of {} failed, {} kills",
            failed.len(),
            samples.len(),
            falls.len()
        ),
        failed.is_empty() && !falls.is_empty(),
    );
    report.details(failed.iter().map(|sample| told(sample, &falls)));
}

/// Without retries and ejections: with checks alone, no client meets a peer that is down for longer than they take.
fn by_checks(options: &Options, report: &mut Report, progress: &mut Progress) {
    progress.step("peers are killed: checks alone");
    let peers = three();
    let keys = format!(
        "tries = 1\nresponse_timeout = \"1s\"\npassive = {{ failures = 0 }}\n\
         check = {{ interval = \"{INTERVAL:?}\", timeout = \"{TIMEOUT:?}\", fall = {FALL}, rise = 1 }}"
    );
    let proxy = Proxy::with_config(&config(&peers, &keys, "")).start();
    let load = load(options, &proxy);
    let falls = fall_in_turn(&peers, &load, &[Fall::Dies, Fall::Hangs]);
    let samples = load.samples();
    let failed: Vec<&Sample> = samples.iter().filter(|sample| !sample.is_good()).collect();
    // A tenth: the jitter of the interval, which is 10 %.
    let allowed = INTERVAL.mul_f64(1.1) * FALL + TIMEOUT;
    let late = |sample: &&&Sample| since_fall(sample, &falls).is_none_or(|since| since > allowed);
    let late: Vec<&&Sample> = failed.iter().filter(late).collect();
    let latest = failed
        .iter()
        .filter_map(|sample| since_fall(sample, &falls))
        .max();
    let measured = format!(
        "{} of {} failed in {} falls, the last {:.0?} after its fall ({allowed:.0?} allowed), {} later",
        failed.len(),
        samples.len(),
        falls.len(),
        latest.unwrap_or_default(),
        late.len()
    );
    match options.claims_times {
        true => report.claim(
            "1: by checks alone no client meets a peer that is down for longer than interval × fall + time-out",
            measured,
            late.is_empty() && !failed.is_empty(),
        ),
        false => report.figure("1: by checks alone", measured),
    }
    report.details(late.iter().map(|sample| told(sample, &falls)));
}

const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(200);
const FALL: u32 = 2;

fn three() -> Vec<Peer> {
    let capacity = Capacity {
        places: 1000,
        takes: Duration::from_millis(1)..Duration::from_millis(5),
    };
    ['a', 'b', 'c']
        .map(|name| Peer::start(name, &capacity))
        .into()
}

fn load(options: &Options, proxy: &Proxy) -> Running {
    let load = OpenLoad {
        address: proxy.address(),
        rate: options.rate,
        lasts: options.lasts,
        patience: crate::DEADLINE,
    };
    load.start()
}

/// How a peer goes down.
#[derive(Clone, Copy, Debug)]
enum Fall {
    Dies,
    Hangs,
}

/// Has one peer after the other go down and come back, as long as the load lasts. When each went down.
fn fall_in_turn(peers: &[Peer], load: &Running, ways: &[Fall]) -> Vec<(Instant, Fall)> {
    let mut falls = Vec::new();
    std::thread::sleep(within(&UP));
    while load.goes_on() {
        let peer = &peers[(super::random() * peers.len() as f64) as usize];
        let way = ways[falls.len() % ways.len()];
        falls.push((Instant::now(), way));
        match way {
            Fall::Dies => peer.die(),
            Fall::Hangs => peer.behave(Behaviour::Hangs),
        }
        std::thread::sleep(within(&DOWN));
        peer.die();
        peer.come_back();
        std::thread::sleep(within(&UP));
    }
    falls
}

/// Times that a peer is down, and that all are up. The former are longer than checks take to notice.
const DOWN: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(2500);
const UP: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(1500);

/// Time from the last fall before the request's end to its begin.
fn since_fall(sample: &Sample, falls: &[(Instant, Fall)]) -> Option<Duration> {
    let ended = sample.at + sample.took;
    let fall = falls.iter().rev().find(|(at, _)| *at <= ended);
    fall.map(|(at, _)| sample.at.saturating_duration_since(*at))
}

fn told(sample: &Sample, falls: &[(Instant, Fall)]) -> String {
    let ended = sample.at + sample.took;
    let fall = falls.iter().rev().find(|(at, _)| *at <= ended);
    let since = since_fall(sample, falls);
    format!(
        "{since:.0?} after {:?}, took {:.0?}: {:?}",
        fall.map(|(_, way)| way),
        sample.took,
        sample.said
    )
}
