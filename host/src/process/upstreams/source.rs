//! Sources of an upstream's peers, a name, a file or a URL: asked for again and again, and known by the last good answer.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::config::{self, PeersUrl, Resolve};
use crate::fetch::dns::{Stamp, stamp};
use crate::fetch::{Answer, Found, Listed, NameKind, Validators, list};
use crate::transport::PeerAddress;

use super::Upstreams;

/// Identity of a source. Generations whose configs say the same have the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceKey {
    pub upstream: String,
    /// `HOST:PORT`, the name of a service, a file's path, or a URL.
    pub name: String,
    pub kind: SourceKind,
    pub resolve: Resolve,
}

/// Kind of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Addresses of a name.
    Host,
    /// SRV records of a name.
    Service,
    /// A file that has a list.
    File,
    /// A URL that answers with one.
    Url(Rc<PeersUrl>),
}

/// A source, as long as a generation has it.
pub struct Source {
    pub key: SourceKey,
    known: RefCell<Known>,
    /// Whether a first outcome is there.
    is_settled: watch::Sender<bool>,
    /// The file as it was read last, and what was in it.
    file: RefCell<Option<FileRead>>,
    /// Those of the URL's list that is known.
    validators: RefCell<Validators>,
}

/// Stamp of a file that was read, and what was in it.
type FileRead = (Option<Stamp>, Result<Answer, String>);

#[derive(Default)]
struct Known {
    found: Vec<Found>,
    /// Reason why the last question had no answer, a line for a person.
    error: Option<String>,
    failures: u32,
    /// Time when addresses came last.
    answered: Option<Instant>,
    due: Option<Instant>,
}

/// Last good answer of a source, for another master.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceOffer {
    pub upstream: String,
    pub name: String,
    pub found: Vec<Found>,
}

/// State of a source, for `castling status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    pub upstream: String,
    /// `HOST:PORT`, the name of a service, a file's path, or a URL.
    pub name: String,
    /// `dns`, `srv`, `file` or `url`.
    pub kind: String,
    pub addresses: usize,
    /// Seconds since addresses came last; None where they never did.
    pub age_seconds: Option<f64>,
    /// Seconds until the next question.
    pub next_seconds: f64,
    /// Questions in a row without an answer.
    pub failures: u32,
    pub last_error: Option<String>,
}

/// Time after which a file is looked at again.
const FILE_EVERY: Duration = Duration::from_secs(1);

/// Largest file: a peer takes some 30 bytes.
const LARGEST_FILE_BYTES: u64 = 16 << 20;

/// Wait after the first failure of a URL.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// Longest wait after a failure of a name.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

impl SourceKey {
    /// The source of a config's peer; `None`: its address is there already.
    pub fn of(upstream: &str, config: &config::Upstream, peer: &config::Peer) -> Option<Self> {
        peer.is_name().then(|| Self {
            upstream: upstream.to_owned(),
            name: peer.address.clone(),
            kind: match peer.srv {
                true => SourceKind::Service,
                false => SourceKind::Host,
            },
            resolve: config.resolve.clone(),
        })
    }

    /// The source that an upstream's file of peers is.
    pub fn of_file(upstream: &str, path: &Path) -> Self {
        Self {
            upstream: upstream.to_owned(),
            name: path.display().to_string(),
            kind: SourceKind::File,
            resolve: Resolve::default(),
        }
    }

    /// The source that an upstream's URL of peers is.
    pub fn of_url(upstream: &str, url: &PeersUrl, resolve: &Resolve) -> Self {
        Self {
            upstream: upstream.to_owned(),
            name: url.url.clone(),
            kind: SourceKind::Url(Rc::new(url.clone())),
            resolve: resolve.clone(),
        }
    }

    /// The name that the DNS is asked for, without its port, and what it stands for. Of a URL it is its host.
    pub fn asked(&self) -> (&str, NameKind) {
        let host = match &self.kind {
            SourceKind::Service | SourceKind::File => None,
            SourceKind::Host => split(&self.name),
            SourceKind::Url(url) => split(&url.authority),
        };
        // Checked when the config was read.
        host.unwrap_or((&self.name, NameKind::Service))
    }
}

/// Host and port of `HOST:PORT`.
fn split(authority: &str) -> Option<(&str, NameKind)> {
    let (name, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some((name, NameKind::Host { port }))
}

impl Source {
    /// A source that is asked for from now on, until it is dropped. `before`: addresses that are known of it.
    pub fn begin(key: SourceKey, before: Vec<Found>, upstreams: &Rc<Upstreams>) -> Rc<Self> {
        let source = Rc::new(Self {
            key,
            known: RefCell::new(Known {
                found: before,
                ..Known::default()
            }),
            is_settled: watch::Sender::new(false),
            file: RefCell::default(),
            validators: RefCell::default(),
        });
        spawn_local(keep_asking(
            Rc::downgrade(&source),
            Rc::downgrade(upstreams),
        ));
        source
    }

    /// Waits for the first outcome, good or bad.
    pub async fn settled(&self) {
        // The sender is this struct's, so the wait ends by the value only.
        let _ = self.is_settled.subscribe().wait_for(|it| *it).await;
    }

    /// Addresses by the last good answer.
    pub fn found(&self) -> Vec<Found> {
        self.known.borrow().found.clone()
    }

    /// Reason why nothing is known; None where something is.
    pub fn missing(&self) -> Option<String> {
        let known = self.known.borrow();
        match known.found.is_empty() {
            true => Some(known.error.clone().unwrap_or_default()),
            false => None,
        }
    }

    pub fn report(&self) -> SourceReport {
        let known = self.known.borrow();
        let now = Instant::now();
        SourceReport {
            upstream: self.key.upstream.clone(),
            name: self.key.name.clone(),
            kind: match self.key.kind {
                SourceKind::Host => "dns",
                SourceKind::Service => "srv",
                SourceKind::File => "file",
                SourceKind::Url(_) => "url",
            }
            .to_owned(),
            addresses: known.found.len(),
            age_seconds: known.answered.map(|it| (now - it).as_secs_f64()),
            next_seconds: known.due.map_or(0.0, |due| {
                (due.saturating_duration_since(now)).as_secs_f64()
            }),
            failures: known.failures,
            last_error: known.error.clone(),
        }
    }

    pub fn offer(&self) -> SourceOffer {
        SourceOffer {
            upstream: self.key.upstream.clone(),
            name: self.key.name.clone(),
            found: self.found(),
        }
    }

    /// Peers of the file, which is read again only where it is another.
    fn read_file(&self) -> Result<Answer, String> {
        let path = Path::new(&self.key.name);
        let stamp = stamp(path);
        if let Some((read, answer)) = &*self.file.borrow()
            && stamp.is_some()
            && *read == stamp
        {
            return answer.clone();
        }
        let answer = in_file(path);
        self.file.replace(Some((stamp, answer.clone())));
        answer
    }

    /// Asks for the URL's list. One that is as it was is what is known.
    async fn fetch(&self, url: &PeersUrl, upstreams: &Upstreams) -> Result<Answer, String> {
        let validators = self.validators.borrow().clone();
        let found = match upstreams.fetch(&self.key, url, validators).await? {
            Listed::Same => self.found(),
            Listed::Peers { found, validators } => {
                self.validators.replace(validators);
                found
            }
        };
        Ok(Answer {
            found,
            unknown: Vec::new(),
            ttl: url.interval,
        })
    }

    /// Takes an answer in. Returns whether the addresses are others now, and the wait before the next question.
    fn learn(&self, answer: Result<Answer, String>) -> (bool, Duration) {
        let mut known = self.known.borrow_mut();
        let (has_changed, wait) = match answer {
            Ok(answer) => {
                if known.failures > 0 {
                    self.tell_recovered(known.failures);
                }
                known.failures = 0;
                known.error = None;
                known.answered = Some(Instant::now());
                let wait = self.key.wait_for(answer.ttl);
                let found = merged(answer, &known.found);
                let has_changed = found != known.found;
                if has_changed {
                    self.tell_changed(&known.found, &found);
                }
                known.found = found;
                (has_changed, wait)
            }
            Err(error) => {
                known.failures = known.failures.saturating_add(1);
                let wait = self.key.backoff(known.failures);
                self.tell_failed(&known, &error, wait);
                known.error = Some(error);
                (false, wait)
            }
        };
        known.due = Some(Instant::now() + wait);
        drop(known);
        self.is_settled.send_replace(true);
        (has_changed, wait)
    }

    fn tell_changed(&self, before: &[Found], now: &[Found]) {
        let addresses = |found: &[Found]| -> BTreeSet<PeerAddress> {
            found.iter().map(|found| found.address.clone()).collect()
        };
        let (before, now) = (addresses(before), addresses(now));
        let (upstream, name, addresses) = (&self.key.upstream, &self.key.name, now.len());
        let (added, removed) = (
            now.difference(&before).count(),
            before.difference(&now).count(),
        );
        tracing::info!(
            upstream,
            name,
            addresses,
            added,
            removed,
            "addresses of peers have changed"
        );
    }

    /// Tells of a failure, and of those after it ever more seldom.
    fn tell_failed(&self, known: &Known, error: &str, wait: Duration) {
        let is_told = match self.key.kind {
            // Once for each state that the file is found in.
            SourceKind::File => known.error.as_deref() == Some(error),
            SourceKind::Host | SourceKind::Service | SourceKind::Url(_) => {
                !known.failures.is_power_of_two()
            }
        };
        if is_told {
            return;
        }
        let what = self.key.verb();
        let (upstream, name, failures) = (&self.key.upstream, &self.key.name, known.failures);
        match known.found.len() {
            0 => tracing::error!(
                upstream,
                name,
                failures,
                ?wait,
                "cannot be {what}, and there are no peers of it: {error}"
            ),
            addresses => tracing::warn!(
                upstream,
                name,
                failures,
                addresses,
                ?wait,
                "cannot be {what}; its last addresses stay: {error}"
            ),
        }
    }

    fn tell_recovered(&self, failures: u32) {
        let (upstream, name) = (&self.key.upstream, &self.key.name);
        let what = self.key.verb();
        tracing::info!(upstream, name, failures, "is {what} again");
    }
}

/// Peers that a file has. The error has its place.
fn in_file(path: &Path) -> Result<Answer, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = config::read_regular(path, LARGEST_FILE_BYTES).map_err(|e| unreadable(&e))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(&e))?;
    Ok(Answer {
        found: list::in_text(path, &text)?,
        unknown: Vec::new(),
        ttl: FILE_EVERY,
    })
}

/// Addresses of an answer, with those that were known before of what it does not know.
fn merged(answer: Answer, before: &[Found]) -> Vec<Found> {
    let Answer {
        mut found, unknown, ..
    } = answer;
    for old in before {
        let is_unknown = unknown.iter().any(|unknown| unknown.covers(old));
        let is_new = !found
            .iter()
            .any(|new| (&new.address, &new.host) == (&old.address, &old.host));
        if is_unknown && is_new {
            found.push(old.clone());
        }
    }
    // Servers turn their answers.
    found.sort_by(|a, b| (&a.host, &a.address).cmp(&(&b.host, &b.address)));
    found
}

async fn keep_asking(source: Weak<Source>, upstreams: Weak<Upstreams>) {
    loop {
        let (Some(asked), Some(of)) = (source.upgrade(), upstreams.upgrade()) else {
            return;
        };
        let answer = match &asked.key.kind {
            SourceKind::File => asked.read_file(),
            SourceKind::Host | SourceKind::Service => of.ask(&asked.key).await,
            SourceKind::Url(url) => asked.fetch(url, &of).await,
        };
        let upstream = asked.key.upstream.clone();
        of.count(&upstream, answer.is_ok());
        let (has_changed, wait) = asked.learn(answer);
        drop(asked);
        if has_changed {
            of.refresh(&upstream);
        }
        drop(of);
        sleep(wait).await;
    }
}

impl SourceKey {
    /// Wait before the next question, after an answer that is good for so long.
    fn wait_for(&self, ttl: Duration) -> Duration {
        match &self.kind {
            SourceKind::File => ttl,
            SourceKind::Url(url) => jittered(url.interval),
            SourceKind::Host | SourceKind::Service => {
                jittered(self.resolve.wait_for(ttl)).max(self.resolve.min_interval)
            }
        }
    }

    /// Wait before the next question, after so many failures in a row.
    fn backoff(&self, failures: u32) -> Duration {
        match &self.kind {
            SourceKind::File => FILE_EVERY,
            SourceKind::Url(url) => jittered(doubled(FIRST_BACKOFF, failures).min(url.interval)),
            SourceKind::Host | SourceKind::Service => jittered(self.resolve.backoff(failures)),
        }
    }

    /// What is done to a source, for messages.
    fn verb(&self) -> &'static str {
        match self.kind {
            SourceKind::File => "read",
            SourceKind::Url(_) => "fetched",
            SourceKind::Host | SourceKind::Service => "resolved",
        }
    }
}

impl Resolve {
    /// Wait before the next question, after an answer that is good for so long.
    fn wait_for(&self, ttl: Duration) -> Duration {
        self.valid
            .unwrap_or_else(|| ttl.clamp(self.min_interval, self.max_interval))
    }

    /// Wait before the next question, after so many failures in a row.
    fn backoff(&self, failures: u32) -> Duration {
        let longest = self
            .max_interval
            .min(LONGEST_BACKOFF)
            .max(self.min_interval);
        doubled(self.min_interval, failures).min(longest)
    }
}

/// `first` after one failure, twice that after two, and so on.
fn doubled(first: Duration, failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    first.saturating_mul(factor)
}

/// Up to a tenth less, by chance: names that were asked for together do not stay together.
fn jittered(wait: Duration) -> Duration {
    let mut chance = [0];
    // Without chance, the wait is the longest.
    let _ = getrandom(&mut chance, GetRandomFlags::empty());
    wait - wait.mul_f64(f64::from(chance[0]) / 2560.0)
}
