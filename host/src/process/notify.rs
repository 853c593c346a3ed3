//! Notices to systemd, where it has started the gateway (`Type=notify`, sd_notify(3)). Without `NOTIFY_SOCKET` in the
//! environment nothing is told to anybody.

use std::time::Duration;

use sd_notify::NotifyState;

/// Variables that are meant for one process: a new master has other means (and workers get none at all).
pub const ONE_PROCESS_ONLY: [&str; 4] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Tells that the gateway serves; also after a reload, whether that was refused or not.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that a reload begins, which lasts until the next [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd is not told of the reload"),
    }
}

/// Tells that the gateway ends, and why it has not ended yet.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Tells that another process is the main one, to be watched from now on.
pub fn main_pid(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Says every so often that the event loop turns, where systemd wants to hear it (`WatchdogSec=`) of this
/// process: until it is not watched any more.
pub async fn keep_watchdog(is_watched: impl Fn() -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    // Half the time, which sd_watchdog_enabled(3) recommends.
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    while is_watched() {
        tell(&[NotifyState::Watchdog]);
        ticks.tick().await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, ?states, "systemd does not hear");
    }
}
