//! The path as routes see it: decoded and without detours, so that `/a/../admin`, `//admin` and `/%61dmin` cannot pass
//! by the route for `/admin` (nginx matches locations likewise). What is sent upstream stays as the client wrote it.

use std::borrow::Cow;

/// `None`: it climbs above the root.
pub(super) fn normalized(path: &str) -> Option<Cow<'_, str>> {
    let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if plain {
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

/// Percent-decodes what is visible ASCII; anything else stays encoded, as does a `%` without two digits.
fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = String::with_capacity(path.len());
    let mut rest = 0;
    while rest < bytes.len() {
        let digit = |at: usize| {
            bytes
                .get(at)
                .and_then(|&byte| char::from(byte).to_digit(16))
        };
        if bytes[rest] == b'%'
            && let (Some(high), Some(low)) = (digit(rest + 1), digit(rest + 2))
            && let Ok(byte) = u8::try_from(high * 16 + low)
            && byte.is_ascii_graphic()
        {
            decoded.push(char::from(byte));
            rest += 3;
        } else {
            // A target is ASCII, so a byte is a character.
            decoded.push(char::from(bytes[rest]));
            rest += 1;
        }
    }
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
        fn a_normal_path_has_no_detours_left(path in "/[a-c./%2e]{0,24}") {
            if let Some(normal) = normal(&path) {
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//"));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
