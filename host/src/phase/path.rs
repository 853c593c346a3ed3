//! The path as routes see it: decoded and without detours, so that `/a/../admin`, `//admin` and `/%61dmin` cannot pass
//! by the route for `/admin` (nginx matches locations likewise). What is sent upstream stays as the client wrote it.

use std::borrow::Cow;

/// `None`: it climbs above the root.
pub(super) fn normalized(path: &str) -> Option<Cow<'_, str>> {
    if is_plain(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decode(path);
    let mut segments: Vec<&str> = Vec::new();
    // A slash at the end stays: `/a/.` and `/a/b/..` are folders.
    let mut folder = true;
    for segment in decoded.split('/').skip(1) {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            name => segments.push(name),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if folder || normal.is_empty() {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

/// Neither encoded nor with detours. Without early ends, so that the compiler looks at many bytes at once.
fn is_plain(path: &[u8]) -> bool {
    let encoded = path.iter().fold(false, |found, &b| found | (b == b'%'));
    let after = path.get(1..).unwrap_or_default();
    let detour = path.iter().zip(after).fold(false, |found, (&b, &next)| {
        found | ((b == b'/') & ((next == b'/') | (next == b'.')))
    });
    !encoded & !detour
}

/// Percent-decodes what is visible ASCII. Other octets stay encoded, with digits in upper case (RFC 3986 §6.2.2.1), as
/// does a `%` without two digits.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(percent) = rest.find('%') {
        decoded.push_str(&rest[..percent]);
        rest = &rest[percent..];
        // A target is ASCII, so every index is a character's.
        match rest.get(1..3).and_then(|digits| {
            u8::from_str_radix(digits, 16)
                .ok()
                .map(|byte| (digits, byte))
        }) {
            Some((_, byte)) if byte.is_ascii_graphic() => {
                decoded.push(char::from(byte));
                rest = &rest[3..];
            }
            Some((digits, _)) => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
                rest = &rest[3..];
            }
            None => {
                decoded.push('%');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Option<String> {
        normalized(path).map(Cow::into_owned)
    }

    #[test]
    fn detours_are_taken_out() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/%zz%4", "/%zz%4"),
            ("/%00%20", "/%00%20"),
            ("/.hidden", "/.hidden"),
            ("/%c3%a4", "/%C3%A4"),
        ] {
            assert_eq!(normal(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_path_above_the_root_is_refused() {
        for path in ["/..", "/../a", "/a/../../b", "/%2e%2e/a"] {
            assert_eq!(normal(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_has_none_of_these(path in "/[a-c./%]{0,40}") {
            let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
            prop_assert_eq!(is_plain(path.as_bytes()), plain);
        }

        #[test]
        fn a_normal_path_has_no_detours_left(path in "/[a-c./%2e]{0,24}") {
            if let Some(normal) = normal(&path) {
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//"));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
