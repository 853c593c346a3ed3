//! Removing what has expired, off the path of requests.

use std::sync::Arc;
use std::time::Duration;

use super::{Zone, now_ns};

/// Looks at a kv zone or a cache every second and removes what has expired, a few entries at a time, so that the writes of other
/// workers do not wait for long. Never ends; there is nothing to do for a counter zone.
pub async fn sweep(zone: Arc<Zone>) {
    let (Zone::Kv(zone) | Zone::Cache(zone)) = &*zone else {
        return;
    };
    loop {
        tokio::time::sleep(EVERY).await;
        loop {
            match zone.sweep(now_ns(), AT_ONCE) {
                Ok(AT_ONCE) => tokio::time::sleep(BREATH).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what has expired in a zone cannot be removed");
                    break;
                }
            }
        }
    }
}

const EVERY: Duration = Duration::from_secs(1);

/// Entries that are removed with the zone's lock held: 9 µs each.
const AT_ONCE: usize = 16;

/// Pause for requests, here and in other workers.
const BREATH: Duration = Duration::from_millis(1);
