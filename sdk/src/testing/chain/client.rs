//! The client's view of an exchange, and its trace.

use std::path::Path;

use super::super::Exchange;

/// An exchange that is over, as the client has seen it.
pub struct Served {
    pub(super) exchange: Exchange,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) is_cut: bool,
    pub(super) sent: Option<Vec<u8>>,
    pub(super) failures: Vec<String>,
    pub(super) trace: Vec<String>,
}

impl Served {
    /// Status that the client got.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header that the client got; `None` when there is no such header. Those that the gateway adds itself are not
    /// there.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        let header = headers.find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_slice())
    }

    /// Body that the client got.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the response has ended too early, because a hook failed when its head was out.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether the request came to the peer.
    pub fn reached_peer(&self) -> bool {
        self.sent.is_some()
    }

    /// Body that the peer got.
    pub fn sent_body(&self) -> Option<&[u8]> {
        self.sent.as_deref()
    }

    /// Failures of hooks, as the gateway's log has them: the plugin, the hook, and the error.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The exchange, for what a test wants to know of it else.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// Trace of the exchange: a line for each hook that ran, each host call that it made with its result, and what came of it.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// Compares the trace with a file, whose path is from the crate's root. With the variable `CASTLING_GOLDEN=write` in its
    /// environment, the test writes the file anew in place of that.
    ///
    /// # Panics
    ///
    /// Where they differ, with the first line that does, or where the file cannot be read.
    #[track_caller]
    pub fn assert_trace(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let trace = self.trace.join("\n") + "\n";
        if std::env::var("CASTLING_GOLDEN").as_deref() == Ok("write") {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).expect("the trace's folder can be made");
            }
            std::fs::write(path, trace).expect("the trace can be written");
            return;
        }
        let golden = std::fs::read_to_string(path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; CASTLING_GOLDEN=write writes it",
                path.display()
            )
        });
        if golden == trace {
            return;
        }
        let mut lines = golden.lines().zip(trace.lines()).zip(1..);
        let differs = lines.find(|((before, now), _)| before != now);
        match differs {
            Some(((before, now), line)) => panic!(
                "{}:{line}: the trace differs (CASTLING_GOLDEN=write writes it anew)\n  was: {before}\n  is:  {now}",
                path.display()
            ),
            None => panic!(
                "{}: the trace has {} lines, and had {} (CASTLING_GOLDEN=write writes it anew)",
                path.display(),
                trace.lines().count(),
                golden.lines().count()
            ),
        }
    }
}
