//! Where clients are redirected to.

/// A path or URL for `Location`, made of what a client has sent. Blanks and control characters, which browsers take away before they read it, go; and
/// one that begins with several slashes has one: it would name another host. A URL with its scheme stays as it is.
///
/// ```
/// # use castling_sdk::http::on_this_host;
/// assert_eq!(on_this_host("/a?b"), "/a?b");
/// assert_eq!(on_this_host("https://example.com/a"), "https://example.com/a");
/// assert_eq!(on_this_host("//evil.example/"), "/evil.example/");
/// assert_eq!(on_this_host("/\t\\evil.example"), "/evil.example");
/// ```
pub fn on_this_host(location: &str) -> String {
    let location: String = location.chars().filter(|c| *c > ' ').collect();
    let rest = location.trim_start_matches(['/', '\\']);
    match location.len() - rest.len() {
        0 | 1 => location,
        _ => format!("/{rest}"),
    }
}
