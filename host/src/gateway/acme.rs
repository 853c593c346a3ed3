//! News of certificates that are ordered, in a worker: its listeners take them while they serve.

use std::collections::BTreeMap;

use super::Gateway;
use crate::acme::{Challenge, News, Ordered};

impl Gateway {
    /// Learns the news; connections and requests that come afterwards have it. What cannot be taken is logged: what there was before
    /// stays.
    pub fn learn(&self, news: &News) {
        match news {
            News::Certificate(ordered) => self.take_certificate(ordered),
            News::Challenges(challenges) => self.take_challenges(challenges),
        }
    }

    fn take_certificate(&self, Ordered { id, certificate }: &Ordered) {
        for (name, listener) in &self.config.listeners {
            let has_place = |tls: &crate::config::ListenerTls| {
                tls.acme.iter().any(|ordered| ordered.id() == *id)
            };
            let tls = self.acceptors.get(name).and_then(|it| it.tls());
            let (Some(tls), true) = (tls, listener.tls.as_ref().is_some_and(has_place)) else {
                continue;
            };
            match tls.take_ordered(id, certificate) {
                Ok(()) => {
                    let first_name = certificate.names.first().map_or("", String::as_str);
                    if let Some(validity) = certificate.validity() {
                        let metrics = self.worker.metrics();
                        metrics.certificate(name, first_name, validity.not_after);
                    }
                }
                Err(error) => tracing::error!(listener = %name, "{error}"),
            }
        }
    }

    fn take_challenges(&self, challenges: &[Challenge]) {
        let (mut over_http, mut over_tls) = (BTreeMap::new(), Vec::new());
        for challenge in challenges {
            match challenge {
                Challenge::Http01 { token, answer } => {
                    over_http.insert(token.clone(), answer.clone());
                }
                Challenge::TlsAlpn01(certificate) => over_tls.push(certificate.clone()),
            }
        }
        for (name, acceptor) in &self.acceptors {
            match acceptor.tls() {
                Some(tls) => {
                    if let Err(error) = tls.replace_challenges(&over_tls) {
                        tracing::error!(listener = %name, "challenge: {error}");
                    }
                }
                None => acceptor.service().challenges.replace(over_http.clone()),
            }
        }
    }
}
