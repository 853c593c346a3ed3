//! Orders of certificates, in the master: what is due, the helper that does it, and the store that keeps what comes of it.
//!
//! One task does one thing after the other, as long as the master is the gateway's. What it waits for is in the store: a restart or
//! an upgrade goes on where it was. No failure of it ends the gateway.

mod given_up;
mod helper;
mod report;
mod shared;
mod wanted;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

use crate::acme::{
    AccountWork, Failure, FromHelper, OrderWork, Record, Store, StoreLock, Task, ToHelper, Work,
    failure_wait, success_wait,
};
use crate::config::{self, AcmeCertificate, Certificate, ChallengeKind, Config, Der};

use super::metrics::Ledger;
use given_up::GivenUp;
use helper::Helper;
use wanted::{Due, Wanted, What, now, order_at, stored, text_of, urgency};

pub use helper::run as run_acme_helper;
pub use report::AcmeReport;
pub use shared::AcmeShared;

/// Verdict of `castling check` on the store, without changing it: warnings, or what is wrong with it.
pub fn check(config: &Config) -> Result<Vec<String>, String> {
    let Some(wanted) = Wanted::of(config) else {
        let unused = config.acme.as_ref().map(|acme| {
            let place = &acme.place;
            format!("{place}: acme: nothing is ordered: no listener has tls.acme with names")
        });
        return Ok(unused.into_iter().collect());
    };
    let mut warnings = Vec::new();
    let has_plain = config.listeners.values().any(|it| it.tls.is_none());
    if wanted.acme.challenges == [ChallengeKind::Http01] && !has_plain {
        let place = &wanted.acme.place;
        warnings.push(format!(
            "{place}: acme: challenges has http-01 alone, and no listener without TLS could answer it"
        ));
    }
    let Some(store) = Store::peek(&wanted.acme.store)? else {
        return Ok(warnings);
    };
    let now = jiff::Timestamp::now();
    let held = wanted.certificates.values();
    let held = held.filter_map(|it| held_in(&store, &wanted, it));
    warnings.extend(held.filter_map(|it| config::expiry_warning(&it, now)));
    Ok(warnings)
}

/// Orders of one master.
#[derive(Default)]
pub struct Acme {
    pub shared: Rc<AcmeShared>,
    wanted: RefCell<Option<Wanted>>,
    /// Rings when `wanted` is another.
    changed: Notify,
    task: RefCell<Option<AbortHandle>>,
    /// Id of the certificate that is ordered now.
    ordering: RefCell<Option<String>>,
    metrics: RefCell<Option<Rc<Ledger>>>,
    has_ended: Cell<bool>,
    hands_over: Cell<bool>,
}

impl Acme {
    /// Sees to it that the config's store can be used. Fails with a line that has its place. Changes nothing that is served: the
    /// config may be refused yet.
    pub fn prepare(&self, config: &Config) -> Result<(), String> {
        match Wanted::of(config) {
            Some(wanted) => Store::open(&wanted.acme.store).map(drop),
            None => Ok(()),
        }
    }

    /// Has served what the store has.
    fn load(&self, wanted: &Wanted) {
        let store = match Store::open(&wanted.acme.store) {
            Ok(store) => store,
            Err(error) => return tracing::error!("{error}"),
        };
        for (id, certificate) in &wanted.certificates {
            let entry = wanted.entry(certificate);
            match stored(&store, &entry, &certificate.names) {
                Ok(Some(found)) => {
                    if let Some(warning) = config::expiry_warning(&found, jiff::Timestamp::now()) {
                        tracing::warn!("{warning}");
                    }
                    let served = self.shared.certificate(id);
                    let is_news = served.as_ref() != Some(&found);
                    if is_news && wanted::is_as_good(&found, served.as_ref(), now()) {
                        self.shared.serve(id, found);
                    }
                }
                // A certificate of another authority is served until this one's has come.
                Ok(None) => {}
                // Another one is ordered.
                Err(error) => tracing::error!("acme: {error}"),
            }
        }
    }

    /// Orders by this config from now on, which comes to serve, and has served what its store has.
    pub fn follow(&self, config: &Config, metrics: &Rc<Ledger>) {
        self.metrics.replace(Some(Rc::clone(metrics)));
        let wanted = Wanted::of(config);
        self.shared.keep_only(config);
        if let Some(wanted) = &wanted {
            self.load(wanted);
        }
        self.wanted.replace(wanted);
        self.changed.notify_one();
    }

    /// Begins to order what is due. The gateway has to be this master's.
    pub fn begin(self: &Rc<Self>) {
        if !self.has_ended.get() {
            let task = spawn_local(Rc::clone(self).run());
            self.task.replace(Some(task.abort_handle()));
        }
    }

    /// Ends it for good: what is under way is given up, and the store's lock given back.
    pub fn end(&self) {
        self.has_ended.set(true);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Ends it for a master that takes over, which begins at once what is given up here.
    pub fn hand_over(&self) {
        self.hands_over.set(true);
        self.end();
    }

    /// State of each certificate that is ordered.
    pub fn report(&self) -> Vec<AcmeReport> {
        let wanted = self.wanted.borrow();
        let Some(wanted) = &*wanted else {
            return Vec::new();
        };
        let Ok(store) = Store::open(&wanted.acme.store) else {
            return Vec::new();
        };
        let ordering = self.ordering.borrow();
        let report = |(id, certificate): (&String, &AcmeCertificate)| {
            let record = store.record(&wanted.entry(certificate));
            let held = held_in(&store, wanted, certificate);
            let is_ordered = ordering.as_ref() == Some(id);
            AcmeReport {
                names: certificate.names.clone(),
                state: match (is_ordered, &held) {
                    (true, _) => "ordering",
                    (false, Some(_)) => "held",
                    (false, None) => "none",
                }
                .to_owned(),
                not_after: end_of(held.as_ref()),
                next_order: text_of(order_at(held.as_ref(), &record).max(now())),
                failures: record.failures,
                last_error: record.last_error,
            }
        };
        wanted.certificates.iter().map(report).collect()
    }

    async fn run(self: Rc<Self>) {
        loop {
            let wanted = self.wanted.borrow().clone();
            let Some(wanted) = wanted else {
                self.changed.notified().await;
                continue;
            };
            match Store::open(&wanted.acme.store) {
                Ok(store) => {
                    let lock = self.lock(&store).await;
                    self.keep(&wanted, &store, lock.is_some()).await;
                }
                Err(error) => {
                    tracing::error!("{error}: nothing is ordered");
                    self.pause(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Waits for the store's lock, which the master before this one or another gateway may have. `None`: the config has changed.
    async fn lock(&self, store: &Store) -> Option<StoreLock> {
        let begun = tokio::time::Instant::now();
        let mut is_told = false;
        loop {
            match store.lock() {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) if !is_told && begun.elapsed() > LOCK_PATIENCE => {
                    is_told = true;
                    tracing::warn!("acme: another process orders certificates by the same store");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("acme: the store cannot be locked: {error}");
                    self.pause(STORE_PAUSE).await;
                    return None;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_EVERY) => {}
                () = self.changed.notified() => {
                    self.changed.notify_one();
                    return None;
                }
            }
        }
    }

    /// Does what is due, one after the other, until the config is another.
    async fn keep(&self, wanted: &Wanted, store: &Store, is_locked: bool) {
        while is_locked && self.wanted.borrow().as_ref() == Some(wanted) {
            let now_s = now();
            let rank = |(id, certificate)| {
                let record = store.record(&wanted.entry(certificate));
                let held = held_in(store, wanted, certificate);
                (urgency(held.as_ref(), &record, now_s), id)
            };
            let first = wanted.certificates.iter().map(rank).min();
            let Some((urgency, id)) = first else {
                return;
            };
            let Due { at, what } = urgency.due;
            let wait = u64::try_from(at.saturating_sub(now())).unwrap_or(0);
            if wait > 0 {
                // The clock may be set meanwhile.
                self.pause(Duration::from_secs(wait).min(LONGEST_PAUSE))
                    .await;
                continue;
            }
            let certificate = &wanted.certificates[id];
            let mut work = std::pin::pin!(async {
                match what {
                    What::AskWindow => self.ask_window(wanted, store, certificate).await,
                    What::Order => self.order(wanted, store, id, certificate).await,
                }
            });
            loop {
                tokio::select! {
                    () = &mut work => break,
                    () = self.changed.notified() => {
                        // An order goes on where the new config wants the same.
                        let other = self.wanted.borrow();
                        if !other.as_ref().is_some_and(|it| it.orders_alike(wanted, id)) {
                            break;
                        }
                    }
                }
            }
            self.settle();
        }
    }

    /// No order is under way any more.
    fn settle(&self) {
        if self.ordering.take().is_some() {
            self.shared.answer(Vec::new());
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            // The next look sees the change.
            () = self.changed.notified() => {}
        }
    }

    /// Orders a certificate, and has it served. What fails is tried again, later each time.
    async fn order(&self, wanted: &Wanted, store: &Store, id: &str, certificate: &AcmeCertificate) {
        let names = certificate.names.join(", ");
        let entry = wanted.entry(certificate);
        let mut record = store.record(&entry);
        record.names.clone_from(&certificate.names);
        // An order counts as failed until it has not: neither a master that dies in it nor a store that takes nothing makes orders
        // without end.
        let (before, not_before_that) = (record.failures, record.not_before);
        record.failures = before.saturating_add(1);
        record.not_before = Some(now() + failure_wait(record.failures, None));
        if let Err(error) = store.save_record(&entry, &record) {
            tracing::error!(%names, "acme: the store takes nothing, so nothing is ordered: {error}");
            self.pause(STORE_PAUSE).await;
            return;
        }
        let hands_over = || self.hands_over.get();
        let given_up = GivenUp::restores(
            store,
            &entry,
            Record {
                failures: before,
                not_before: not_before_that,
                ..record.clone()
            },
            &hands_over,
        );
        self.ordering.replace(Some(id.to_owned()));
        tracing::info!(%names, directory = wanted.acme.directory, "acme: certificate is ordered");
        let ordered = self.try_order(wanted, store, certificate, before).await;
        given_up.forget();
        self.count(ordered.is_ok());
        let mut wait = 0;
        match &ordered {
            Ok(issued) => {
                record = Record {
                    names: record.names,
                    not_before: issued.validity().map(|it| now() + success_wait(it)),
                    ..Record::default()
                };
            }
            Err(Failure { error, retry_after }) => {
                wait = failure_wait(record.failures, *retry_after);
                record.not_before = Some(now() + wait);
                record.last_error = Some(error.clone());
            }
        }
        let saved = store.save_record(&entry, &record);
        match ordered {
            Ok(issued) => {
                let until = end_of(Some(&issued));
                tracing::info!(%names, until, "acme: certificate issued");
            }
            Err(Failure { error, .. }) => {
                let held = held_in(store, wanted, certificate);
                tell_failure(&names, held.as_ref(), record.failures, wait, &error);
            }
        }
        if let Err(error) = saved {
            tracing::error!(%names, "acme: the store takes nothing: {error}");
            self.pause(STORE_PAUSE).await;
        }
    }

    async fn try_order(
        &self,
        wanted: &Wanted,
        store: &Store,
        certificate: &AcmeCertificate,
        failures: u32,
    ) -> Result<Certificate, Failure> {
        let acme = &wanted.acme;
        let credentials = store.account(&acme.directory);
        let credentials = credentials
            .map_err(|error| own(format!("the account in the store cannot be read: {error}")))?;
        let held = held_in(store, wanted, certificate);
        let replaces = held.and_then(|held| held.chain.into_iter().next());
        let work = Work::Order(Box::new(OrderWork {
            account: AccountWork {
                credentials,
                contact: acme.contact.clone(),
                external: acme.external_account.clone(),
            },
            names: certificate.names.clone(),
            key_type: acme.key_type,
            challenges: turned(&acme.challenges, failures),
            profile: acme.profile.clone(),
            replaces: replaces.map(Der),
        }));
        let mut helper = start(wanted, work).await?;
        loop {
            match helper.next().await {
                FromHelper::Account(account) => store
                    .save_account(&acme.directory, &account)
                    .map_err(|error| {
                        own(format!("the store does not take the account: {error}"))
                    })?,
                FromHelper::Challenges(challenges) => {
                    self.shared.answer(challenges);
                    if !self.shared.taken_in().await {
                        return Err(own("a worker does not take in the challenge".to_owned()));
                    }
                    let told = helper.tell(&ToHelper::Deployed).await;
                    told.map_err(|error| own(format!("its helper is gone: {error}")))?;
                }
                FromHelper::Issued { chain, key } => {
                    let taken = self.take(wanted, store, certificate, &(key + &chain));
                    return taken.map_err(own);
                }
                FromHelper::Failed(failure) => return Err(failure),
                FromHelper::RenewalInfo(_) => {
                    return Err(own("its helper answers another question".to_owned()));
                }
            }
        }
    }

    /// Checks what an authority has made, keeps it, and has it served. One that is over, or to be renewed at once, counts as a
    /// failure, so that the next order waits, and takes no better one's place.
    fn take(
        &self,
        wanted: &Wanted,
        store: &Store,
        certificate: &AcmeCertificate,
        pem: &str,
    ) -> Result<Certificate, String> {
        let new = wanted::parsed(pem.as_bytes(), &certificate.names, "the authority")?;
        let untimely = wanted::untimely(&new, now());
        if let Some(error) = &untimely {
            let held = held_in(store, wanted, certificate);
            if !wanted::is_longer_good(&new, held.as_ref(), now()) {
                return Err(error.clone());
            }
        }
        let kept = keep(wanted, store, certificate, pem)?;
        self.shared.serve(&certificate.id(), kept.clone());
        match untimely {
            Some(error) => Err(error),
            None => Ok(kept),
        }
    }

    /// Asks the authority when the certificate is to be renewed. Without an answer its own life decides.
    async fn ask_window(&self, wanted: &Wanted, store: &Store, certificate: &AcmeCertificate) {
        let entry = wanted.entry(certificate);
        let mut record = store.record(&entry);
        let held = held_in(store, wanted, certificate);
        let der = held.and_then(|held| held.chain.into_iter().next());
        let work = Work::RenewalInfo {
            certificate: Der(der.unwrap_or_default()),
        };
        let answer = match start(wanted, work).await {
            Ok(mut helper) => helper.next().await,
            Err(failure) => FromHelper::Failed(failure),
        };
        let names = certificate.names.join(", ");
        let ask_again = match answer {
            FromHelper::RenewalInfo(Some(info)) => {
                record.window = Some(info.window);
                // RFC 9773 §4.3.2: within bounds of our own.
                Duration::from_secs(info.ask_again).clamp(SHORTEST_ASK, LONGEST_ASK)
            }
            FromHelper::RenewalInfo(None) => {
                record.window = None;
                LONGEST_ASK
            }
            FromHelper::Failed(Failure { error, .. }) => {
                tracing::warn!(%names, "acme: the authority does not say when to renew: {error}");
                USUAL_ASK
            }
            FromHelper::Account(_) | FromHelper::Challenges(_) | FromHelper::Issued { .. } => {
                USUAL_ASK
            }
        };
        record.ask_again = Some(now() + ask_again.as_secs() as i64);
        if let Err(error) = store.save_record(&entry, &record) {
            tracing::error!(%names, "acme: the store takes nothing: {error}");
            self.pause(STORE_PAUSE).await;
        }
    }

    fn count(&self, is_issued: bool) {
        if let Some(ledger) = &*self.metrics.borrow() {
            ledger.metrics().certificate_ordered(is_issued);
        }
    }
}

/// Logs that an order has failed: loudly, where there is no certificate yet.
fn tell_failure(names: &str, held: Option<&Certificate>, failures: u32, wait: i64, error: &str) {
    let wait = Duration::from_secs(wait.unsigned_abs());
    match held {
        Some(_) => {
            let until = end_of(held);
            tracing::warn!(%names, failures, ?wait, until, "acme: certificate not renewed: {error}");
        }
        None => tracing::error!(%names, failures, ?wait, "acme: no certificate: {error}"),
    }
}

/// The certificate that the store has. One that is damaged is none.
fn held_in(store: &Store, wanted: &Wanted, certificate: &AcmeCertificate) -> Option<Certificate> {
    let held = stored(store, &wanted.entry(certificate), &certificate.names);
    held.ok().flatten()
}

/// Keeps a certificate, and returns it as the store has it from now on.
fn keep(
    wanted: &Wanted,
    store: &Store,
    certificate: &AcmeCertificate,
    pem: &str,
) -> Result<Certificate, String> {
    let entry = wanted.entry(certificate);
    let names = &certificate.names;
    store
        .save_certificate(&entry, pem.as_bytes())
        .map_err(|error| format!("the store does not take the certificate: {error}"))?;
    let kept = stored(store, &entry, names)?;
    kept.ok_or_else(|| "the store has lost the certificate".to_owned())
}

async fn start(wanted: &Wanted, work: Work) -> Result<Helper, Failure> {
    let task = Task {
        directory: wanted.acme.directory.clone(),
        roots: wanted.acme.roots.clone(),
        work,
    };
    let started = Helper::start(task, &wanted.workers).await;
    started.map_err(|error| own(format!("its helper cannot be started: {error}")))
}

/// The challenges with another one first after each failure: a port that is not reached from outside does not block the other.
fn turned(challenges: &[ChallengeKind], failures: u32) -> Vec<ChallengeKind> {
    let mut turned = challenges.to_vec();
    let by = failures as usize % turned.len().max(1);
    turned.rotate_left(by);
    turned
}

fn own(error: String) -> Failure {
    Failure {
        error,
        retry_after: None,
    }
}

/// Time up to which a certificate is good, as text.
fn end_of(certificate: Option<&Certificate>) -> Option<String> {
    text_of(certificate?.validity()?.not_after)
}

/// Longest time without a look at what is due.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Pause where the store cannot be used.
const STORE_PAUSE: Duration = Duration::from_secs(60);

const LOCK_EVERY: Duration = Duration::from_millis(200);

/// Longest wait for the lock that is no news: a master that hands over lets go of it at once.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Bounds of the time between two questions about a renewal, and what it is where the authority does not say.
const SHORTEST_ASK: Duration = Duration::from_secs(60);
const USUAL_ASK: Duration = Duration::from_secs(6 * 3600);
const LONGEST_ASK: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_brings_another_challenge_first() {
        let (http, tls) = (ChallengeKind::Http01, ChallengeKind::TlsAlpn01);
        let firsts = (0..4).map(|failures| turned(&[tls, http], failures)[0]);
        assert_eq!(firsts.collect::<Vec<_>>(), [tls, http, tls, http]);
        assert_eq!(turned(&[http], 3), [http]);
    }
}
