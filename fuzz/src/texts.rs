//! Texts that decide: the path of a request, its query and cookies, what is said of caching, and the config. Bytes that are no UTF-8 are read as a reader of files or heads
//! would refuse them, and are no input.

use std::fs;
use std::path::PathBuf;

use castling::rig::{cached, wire};

/// The path of a request's target.
///
/// Holds: no panic; a path that was read has no detours left, is read as itself again, and stays within the root for a peer
/// that decodes it.
pub fn paths(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        wire::request_path(text);
    }
}

/// A name, a query and a field of cookies, on three lines.
///
/// Holds: no panic; values that were found, once encoded again, are found again.
pub fn query_and_cookies(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        wire::query_and_cookies(text);
    }
}

/// A request's fields, a response's status and fields, and its body, with an empty line between them: what a cache makes of them.
///
/// Holds: no panic; what may not be stored is not; an entry is read as it was written; parts lie within the body.
pub fn cached_responses(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        cached::exchange(text);
    }
}

/// A config file, beside which a module `x.wasm` lies; and the same as a list of peers.
///
/// Holds: no panic; each error is one line with its place. `include` is left out: it may name any file of this machine.
pub fn configs(data: &[u8]) {
    thread_local! {
        static FOLDER: Folder = Folder::new();
    }
    if data.windows(INCLUDE.len()).any(|part| part == INCLUDE) {
        return;
    }
    if let Ok(text) = str::from_utf8(data) {
        wire::peers_list(text);
    }
    FOLDER.with(|folder| {
        fs::write(&folder.config, data).expect("the config can be written");
        wire::config_file(&folder.config);
    });
}

const INCLUDE: &[u8] = b"include";

struct Folder {
    /// Removed at the end.
    _folder: tempfile::TempDir,
    config: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::write(folder.path().join("x.wasm"), "").expect("a module can be written");
        Self {
            config: folder.path().join("castling.toml"),
            _folder: folder,
        }
    }
}
