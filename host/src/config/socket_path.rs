//! Paths of Unix sockets.

use std::path::PathBuf;

use super::table::Value;

/// Path of `unix:PATH`, relative to the file that it stands in. `key` and `rule` are for errors.
pub(super) fn socket_path(value: Value<'_>, text: &str, key: &str, rule: &str) -> Option<PathBuf> {
    let is_path = !text.is_empty() && !text.contains(char::is_control);
    if !is_path {
        return value.expected(rule);
    }
    let path = value.map().resolve_path(value.place(), text);
    let bytes = path.as_os_str().len();
    match bytes <= SOCKET_PATH_BYTES {
        true => Some(path),
        false => value.refuse(format_args!(
            "{key}: the path {} has {bytes} bytes: expected {SOCKET_PATH_BYTES} at most for a Unix socket",
            path.display()
        )),
    }
}

/// `sun_path` with its final zero byte has 108 (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
