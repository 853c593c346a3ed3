//! Knowledge of all workers about certificates that are ordered: those that run are told, those that start are handed it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::acme::{Challenge, News, Ordered};
use crate::config::{Certificate, Config};
use crate::process::channel::ToWorker;
use crate::process::child::WorkerChild;

/// Knowledge that the workers of all generations of this master share.
#[derive(Default)]
pub struct AcmeShared {
    /// Certificates by [`crate::config::AcmeCertificate::id`].
    certificates: RefCell<BTreeMap<String, Certificate>>,
    challenges: RefCell<Vec<Challenge>>,
    workers: RefCell<Vec<Weak<WorkerChild>>>,
    /// Number of the last news.
    last: Cell<u64>,
}

/// Longest wait for the workers to take news in. One that takes longer is silent, and no authority is to meet it.
const TAKE_IN_TIMEOUT: Duration = Duration::from_secs(60);

impl AcmeShared {
    /// Everything that a worker of this config is handed at its start.
    pub fn for_worker(&self, config: &Config) -> Vec<News> {
        let certificates = self.certificates.borrow();
        let mut news = Vec::new();
        for id in ids(config) {
            if let Some(certificate) = certificates.get(&id) {
                let certificate = certificate.clone();
                news.push(News::Certificate(Ordered { id, certificate }));
            }
        }
        let challenges = self.challenges.borrow();
        if !challenges.is_empty() {
            news.push(News::Challenges(challenges.clone()));
        }
        news
    }

    /// Remembers a worker that was handed all there is: it is told what comes.
    pub fn joined(&self, worker: &Rc<WorkerChild>) {
        let mut workers = self.workers.borrow_mut();
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Rc::downgrade(worker));
    }

    pub fn certificate(&self, id: &str) -> Option<Certificate> {
        self.certificates.borrow().get(id).cloned()
    }

    /// Has a certificate served by all workers that have a place for it.
    pub fn serve(&self, id: &str, certificate: Certificate) {
        let mut certificates = self.certificates.borrow_mut();
        certificates.insert(id.to_owned(), certificate.clone());
        drop(certificates);
        let id = id.to_owned();
        self.tell(&News::Certificate(Ordered { id, certificate }));
    }

    /// Forgets the certificates that are not in the config, and challenges with them.
    pub fn keep_only(&self, config: &Config) {
        let ids = ids(config);
        let mut certificates = self.certificates.borrow_mut();
        certificates.retain(|id, _| ids.contains(id));
    }

    /// Has these challenges answered by all workers, and no others.
    pub fn answer(&self, challenges: Vec<Challenge>) {
        self.challenges.replace(challenges.clone());
        self.tell(&News::Challenges(challenges));
    }

    /// Waits until every worker that accepts connections has taken in what it was told. Those that start take it in before they
    /// accept, and those that have ended never will. False: one has not, in [`TAKE_IN_TIMEOUT`].
    pub async fn taken_in(&self) -> bool {
        let last = self.last.get();
        let workers: Vec<_> = self
            .workers
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let all = workers.iter().map(|worker| worker.has_taken_in(last));
        let all = futures_util::future::join_all(all);
        tokio::time::timeout(TAKE_IN_TIMEOUT, all).await.is_ok()
    }

    fn tell(&self, news: &News) {
        let number = self.last.get() + 1;
        self.last.set(number);
        for worker in self.workers.borrow().iter().filter_map(Weak::upgrade) {
            worker.tell(ToWorker::News(number, Box::new(news.clone())));
        }
    }
}

/// Ids of the certificates that are ordered.
fn ids(config: &Config) -> std::collections::BTreeSet<String> {
    let tls = config.listeners.values().filter_map(|it| it.tls.as_ref());
    tls.flat_map(|tls| &tls.acme).map(|it| it.id()).collect()
}
