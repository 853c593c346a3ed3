//! Lines that guests write to the log, and the standard output and error of those that are built for WASI.

use std::sync::Arc;

use castling_abi::LogLevel;
use tracing::{Level, debug, enabled, error, info, trace, warn};

use super::limit::LineBudget;
use super::module_text::{self, MAX_TEXT_BYTES};

/// Where a guest built for WASI writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Standard,
    Error,
}

impl Output {
    const ALL: [Self; 2] = [Self::Standard, Self::Error];

    pub(super) fn of_descriptor(fd: u32) -> Option<Self> {
        match fd {
            1 => Some(Self::Standard),
            2 => Some(Self::Error),
            _ => None,
        }
    }

    pub(super) const fn level(self) -> LogLevel {
        match self {
            Self::Standard => LogLevel::Info,
            Self::Error => LogLevel::Warn,
        }
    }
}

/// Lines that a guest has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct BegunLines([Vec<u8>; Output::ALL.len()]);

impl BegunLines {
    /// Takes the line that earlier text has begun.
    pub(super) fn take(&mut self, output: Output) -> Option<Vec<u8>> {
        let begun = &mut self.0[output as usize];
        (!begun.is_empty()).then(|| std::mem::take(begun))
    }

    /// Begins a line, or goes on with one.
    pub(super) fn begin(&mut self, output: Output, text: &[u8]) {
        append(&mut self.0[output as usize], text);
    }

    /// Logs them as they are: the call has ended.
    pub(super) fn end(&self, plugin: &str, budget: &Arc<LineBudget>) {
        for (output, line) in Output::ALL.into_iter().zip(&self.0) {
            log_line(plugin, budget, output, line);
        }
    }
}

/// Adds to a line no more than is told of it, and a byte that says that it was cut.
pub(super) fn append(begun: &mut Vec<u8>, text: &[u8]) {
    let room = (MAX_TEXT_BYTES + 1).saturating_sub(begun.len());
    begun.extend_from_slice(&text[..text.len().min(room)]);
}

/// Logs a line of a standard output or error. One without text says nothing, and is left out.
pub(super) fn log_line(plugin: &str, budget: &Arc<LineBudget>, output: Output, line: &[u8]) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.is_empty() && budget.admits() {
        write_line(plugin, output.level(), line);
    }
}

/// Writes a line of a plugin's, escaped and cut.
pub(super) fn write_line(plugin: &str, level: LogLevel, line: &[u8]) {
    let text = module_text::bytes(line);
    match level {
        LogLevel::Error => error!(plugin, "{text}"),
        LogLevel::Warn => warn!(plugin, "{text}"),
        LogLevel::Info => info!(plugin, "{text}"),
        LogLevel::Debug => debug!(plugin, "{text}"),
        LogLevel::Trace => trace!(plugin, "{text}"),
    }
}

/// Whether the log's level lets such a line pass.
pub(super) fn is_written(level: LogLevel) -> bool {
    match level {
        LogLevel::Error => enabled!(Level::ERROR),
        LogLevel::Warn => enabled!(Level::WARN),
        LogLevel::Info => enabled!(Level::INFO),
        LogLevel::Debug => enabled!(Level::DEBUG),
        LogLevel::Trace => enabled!(Level::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_never_ends_is_kept_as_far_as_it_is_told() {
        let mut begun = BegunLines::default();
        for _ in 0..10 {
            begun.begin(Output::Error, &[b'a'; 1000]);
        }
        assert_eq!(begun.take(Output::Standard), None);
        let line = begun.take(Output::Error).unwrap();
        assert_eq!(line.len(), MAX_TEXT_BYTES + 1);
        assert_eq!(begun.take(Output::Error), None);
    }
}
