//! Orphans: workers that a master which was killed has left running when the next one starts.
//!
//! Its workers learn of it by the end of their channel. They stop listening at once, and finish what they have while the
//! next gateway serves already.

use std::time::{Duration, Instant};

use crate::config::{Config, Listener};

use super::sockets::{self, SocketTable};

/// Waits until the workers of the master with this pid listen no more on what the config binds. Not for ever: then
/// binding says what is in the way. Only for a start after a kill: where there is no orphan, an address in use is another
/// server's, and is told at once. What `ours` holds is waited for by nobody: it came with this process.
pub async fn listen_no_more(config: &Config, ours: &SocketTable, killed_master: &str) {
    let listeners = config.listeners.values();
    let to_bind: Vec<&Listener> = listeners
        .filter(|listener| !ours.holds(&listener.bind))
        .collect();
    let begun = Instant::now();
    while to_bind.iter().any(|listener| sockets::is_in_use(listener)) {
        if begun.elapsed() > LONGEST_WAIT {
            tracing::warn!(
                killed_master,
                "the gateway before this one was killed; its workers, or another server, still listen"
            );
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::info!(killed_master, waited = ?begun.elapsed(), "the gateway before this one was killed");
}

/// A worker notices within a turn of its event loop; on a machine that is overloaded that may take a while.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
