//! Certificates that the gateway orders itself (ACME: RFC 8555, RFC 8737, RFC 9773).
//!
//! Three processes have a part. A helper talks to the authority: [`client`] is what it does, over [`http`]. The master holds the
//! account's key and the [`store`], and says when something is due ([`schedule`]). Workers answer the authority's challenges
//! and serve the certificates. What goes between them is here.

mod client;
mod http;
mod schedule;
mod store;

use serde::{Deserialize, Serialize};

use crate::config::{AcmeKeyType, Certificate, ChallengeKind, Der, ExternalAccount};

pub use client::{printable, work};
pub use schedule::{Window, failure_wait, renewal_time, success_wait};
#[cfg(test)]
pub use store::placed_store;
pub use store::{Entry, Record, Store, StoreLock};

/// Work for a helper: one order, or one question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    pub directory: String,
    /// Authorities that vouch for the directory's TLS.
    pub roots: Vec<Der>,
    pub work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    Order(Box<OrderWork>),
    /// When is this certificate to be renewed (RFC 9773)?
    RenewalInfo {
        certificate: Der,
    },
}

/// Order of one certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrderWork {
    pub account: AccountWork,
    pub names: Vec<String>,
    pub key_type: AcmeKeyType,
    /// Challenges that may be taken, the preferred one first.
    pub challenges: Vec<ChallengeKind>,
    pub profile: Option<String>,
    /// Certificate that the new one takes the place of.
    pub replaces: Option<Der>,
}

/// The account that an order is made by.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountWork {
    /// `None`: there is none yet, and one is to be made.
    pub credentials: Option<Credentials>,
    pub contact: Vec<String>,
    pub external: Option<ExternalAccount>,
}

/// An account's URL and key, as the client library writes them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(pub serde_json::Value);

/// Message of a helper to its master.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromHelper {
    /// An account was made: it is to be kept.
    Account(Credentials),
    /// All workers are to answer these. The helper waits for [`ToHelper::Deployed`] before it tells the authority.
    Challenges(Vec<Challenge>),
    /// Chain of the new certificate and its key, PEM. The last message.
    Issued { chain: String, key: String },
    /// Answer to [`Work::RenewalInfo`]; `None`: the authority has nothing to say about that. The last message.
    RenewalInfo(Option<RenewalInfo>),
    /// The last message.
    Failed(Failure),
}

/// Message of the master to a helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHelper {
    Task(Box<Task>),
    /// Every worker answers the challenges.
    Deployed,
}

/// Reason why a helper comes back with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason in one line for a person. Parts of it may be the authority's words.
    pub error: String,
    /// Seconds that the authority has asked for.
    pub retry_after: Option<u64>,
}

/// Answer about a certificate's renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    pub window: Window,
    /// Seconds until the question is to be asked again.
    pub ask_again: u64,
}

/// Challenge that workers answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Challenge {
    Http01 {
        token: String,
        answer: String,
    },
    /// Certificate for the one name that is to be shown.
    TlsAlpn01(Certificate),
}

/// News that a worker learns while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// A certificate that was ordered has come.
    Certificate(Ordered),
    /// These challenges are answered from now on, and no others.
    Challenges(Vec<Challenge>),
}

/// A certificate that was ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ordered {
    /// [`crate::config::AcmeCertificate::id`].
    pub id: String,
    pub certificate: Certificate,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an account")
    }
}
