//! Requests of a bystander, and how long they wait while something happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::RawClient;

pub(super) struct Watched {
    /// Ascending, ms.
    latencies: Vec<f64>,
    pub(super) failures: Vec<String>,
}

impl Watched {
    /// Sends a request every 2 ms, which is to be answered with this body. One that is late because the last answer was,
    /// counts from when it should have been sent.
    pub(super) fn watch(gateway: SocketAddr, request: &str, body: &str, lasts: Duration) -> Self {
        let mut watched = Self {
            latencies: Vec::new(),
            failures: Vec::new(),
        };
        let mut client = RawClient::connect(gateway);
        let mut due = Instant::now();
        let end = due + lasts;
        // Where answers take long, those that are due pile up.
        let latest = end + lasts;
        while due < end && Instant::now() < latest {
            let wait = due.saturating_duration_since(Instant::now());
            std::thread::sleep(wait);
            let start = if wait.is_zero() { due } else { Instant::now() };
            match client.send(request).try_read_reply() {
                Ok(reply) if reply.text() == body => {
                    watched.latencies.push(start.elapsed().as_secs_f64() * 1e3);
                    if reply.header("connection") == Some("close") {
                        client = RawClient::connect(gateway);
                    }
                }
                Ok(reply) => watched
                    .failures
                    .push(format!("{} {:?}", reply.status, reply.text())),
                Err(error) => {
                    watched.failures.push(error);
                    client = RawClient::connect(gateway);
                }
            }
            due += Duration::from_millis(2);
        }
        watched.latencies.sort_by(f64::total_cmp);
        watched
    }

    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let idx =
            (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(idx).copied().unwrap_or(f64::INFINITY)
    }

    pub(super) fn told(&self) -> String {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, the longest {:.2} ms of {}",
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
            self.latencies.len()
        )
    }
}
