//! Secrets of sessions in a file, for who looks into a recorded connection (Wireshark's key log).

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;

use rustls::KeyLog;

use crate::config::{self, PlacedPath};

/// A file in NSS's key log format. Lines of several workers do not mix: each is one write.
pub(super) struct KeyLogFile(File);

impl KeyLogFile {
    /// The error is a line with the place of the key.
    pub(super) fn open(path: &PlacedPath) -> Result<Self, String> {
        match config::open_private(path) {
            Ok(file) => Ok(Self(file)),
            Err(error) => Err(format!(
                "{}: key_log: {}: {error}",
                path.place,
                path.display()
            )),
        }
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for (bytes, end) in [(client_random, ' '), (secret, '\n')] {
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
            line.push(end);
        }
        // A full disk costs a line of a tool for debugging, and no connection.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key log")
    }
}
