//! The master's signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Meaning of a signal, as nginx has it.
#[derive(Clone, Copy, Debug)]
pub enum Verb {
    Reload,
    GracefulStop,
    FastStop,
    ReopenLogs,
    DrainWorkers,
    BinaryUpgrade,
}

/// Signals to the master, caught.
pub struct Signals {
    hangup: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    user2: Signal,
    window_change: Signal,
}

impl Signals {
    /// Catches the signals, which from here on do nothing by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            window_change: signal(SignalKind::window_change())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Verb {
        tokio::select! {
            _ = self.hangup.recv() => Verb::Reload,
            _ = self.quit.recv() => Verb::GracefulStop,
            _ = self.terminate.recv() => Verb::FastStop,
            _ = self.interrupt.recv() => Verb::FastStop,
            _ = self.user1.recv() => Verb::ReopenLogs,
            _ = self.user2.recv() => Verb::BinaryUpgrade,
            _ = self.window_change.recv() => Verb::DrainWorkers,
        }
    }

    /// Waits for the next signal that ends a gateway; returns its name.
    pub async fn ends(&mut self) -> &'static str {
        tokio::select! {
            _ = self.quit.recv() => "QUIT",
            _ = self.terminate.recv() => "TERM",
            _ = self.interrupt.recv() => "INT",
        }
    }
}
