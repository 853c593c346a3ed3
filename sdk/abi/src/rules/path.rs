//! Paths as routes, peers and plugins see them.
//!
//! A path is read once, by [`read`], for the config, for requests and for plugins: dot segments are resolved, empty segments
//! taken out, and each segment is decoded once (RFC 3986 §2.4, §6.2.2). `%2F` and `%5C` stay data: they separate nothing.
//! A path that is another one to a peer that decodes more than that is refused.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A path that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPath<'a> {
    /// The path as it is sent on: segments as they came, a backslash percent-encoded.
    pub text: Cow<'a, str>,
    /// The path as it is compared: visible ASCII decoded, but for `%`, `/` and `\`. Hexadecimal digits are in upper
    /// case.
    pub key: Cow<'a, str>,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A `%` without two hexadecimal digits.
    Encoding,
    /// An encoded NUL.
    Nul,
    /// The segment is another path to a peer that decodes before it splits, or for which a backslash separates or a semicolon
    /// ends a segment.
    HiddenDots,
    /// Dot segments leave the root.
    AboveRoot,
    /// See [`is_strict`].
    NotStrict,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "a % without two hexadecimal digits",
            Self::Nul => "an encoded NUL",
            Self::HiddenDots => "a segment that decodes to \".\" or \"..\"",
            Self::AboveRoot => "it leaves the root",
            Self::NotStrict => {
                "a dot segment, an empty segment, a backslash or an encoded separator, with paths = \"strict\""
            }
        })
    }
}

impl core::error::Error for PathError {}

/// Reads a path that begins with `/`, or `*`.
pub fn read(path: &str) -> Result<ReadPath<'_>, PathError> {
    if is_plain(path.as_bytes()) {
        return Ok(ReadPath {
            text: Cow::Borrowed(path),
            key: Cow::Borrowed(path),
        });
    }
    let segments = resolved(path, check)?;
    let key: Vec<String> = segments.iter().map(|segment| key_of(segment)).collect();
    let text: Vec<String> = segments
        .iter()
        .map(|segment| segment.replace('\\', "%5C"))
        .collect();
    Ok(ReadPath {
        text: Cow::Owned(joined(&text, path)),
        key: Cow::Owned(joined(&key, path)),
    })
}

/// Key of a path that peers are sent as it came: that of [`read`], but with all decoded that a peer could decode, `%2F` to a
/// separator and dots included. `None`: the path leaves the root.
pub fn key_as_sent(path: &str) -> Option<Cow<'_, str>> {
    if is_plain(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decoded(path, |byte| byte.is_ascii_graphic() && byte != b'%');
    let segments = resolved(&decoded, |_| Ok(())).ok()?;
    Some(Cow::Owned(joined(&segments, &decoded)))
}

/// The path as routes compare it. `None`: it leaves the root.
pub fn routed(path: &str) -> Option<Cow<'_, str>> {
    match read(path) {
        Ok(read) => Some(read.key),
        Err(_) => key_as_sent(path),
    }
}

/// Whether nobody could read it otherwise: it has no dot segment, no empty segment but the last, no backslash and no encoded
/// separator.
pub fn is_strict(path: &str) -> bool {
    let inner = path.strip_suffix('/').unwrap_or(path);
    let mut segments = inner.split('/').skip(1);
    let has_detour = segments.any(|segment| matches!(segment, "" | "." | ".."));
    let upper = path.to_ascii_uppercase();
    let has_separator = ["\\", "%2F", "%5C"].iter().any(|it| upper.contains(it));
    !has_detour && !has_separator && read(path).is_ok()
}

/// Whether a path is neither encoded nor has detours. No early ends, so that the compiler looks at many bytes at once.
#[inline]
pub fn is_plain(path: &[u8]) -> bool {
    let encoded = path
        .iter()
        .fold(false, |found, &b| found | (b == b'%') | (b == b'\\'));
    let after = path.get(1..).unwrap_or_default();
    let detour = path.iter().zip(after).fold(false, |found, (&b, &next)| {
        found | ((b == b'/') & ((next == b'/') | (next == b'.')))
    });
    !encoded & !detour
}

/// Segments of a path, dots resolved and empty ones taken out.
fn resolved(
    path: &str,
    check: impl Fn(&str) -> Result<(), PathError>,
) -> Result<Vec<&str>, PathError> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop().ok_or(PathError::AboveRoot)?),
            segment => {
                check(segment)?;
                segments.push(segment);
            }
        }
    }
    Ok(segments)
}

/// The segments with a slash before each, and one at the end where the path that they are of is a folder.
fn joined<S: AsRef<str>>(segments: &[S], of: &str) -> String {
    let mut path = String::with_capacity(of.len());
    for segment in segments {
        path.push('/');
        path.push_str(segment.as_ref());
    }
    // `/a/.` and `/a/b/..` are folders.
    let is_folder = matches!(of.rsplit('/').next(), Some("" | "." | ".."));
    if is_folder || path.is_empty() {
        path.push('/');
    }
    path
}

/// Refuses what is another segment, or more than one with dots among them, to who decodes or splits it otherwise.
fn check(segment: &str) -> Result<(), PathError> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(PathError::Encoding);
        };
        match u8::try_from(high << 4 | low) {
            Ok(0) | Err(_) => return Err(PathError::Nul),
            Ok(byte) => decoded.push(byte),
        }
    }
    let is_dots = |part: &[u8]| {
        let name = part.split(|&byte| byte == b';').next();
        matches!(name, Some(b"." | b".."))
    };
    match decoded
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(is_dots)
    {
        true => Err(PathError::HiddenDots),
        false => Ok(()),
    }
}

fn key_of(segment: &str) -> String {
    let key = decoded(segment, |byte| {
        byte.is_ascii_graphic() && !matches!(byte, b'%' | b'/' | b'\\')
    });
    key.replace('\\', "%5C")
}

/// Percent-decodes the bytes that `is_decoded` says, once. Others stay encoded, with digits in upper case, as does a `%`
/// without two digits.
fn decoded(text: &str, is_decoded: impl Fn(u8) -> bool) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        decoded.push_str(&rest[..percent]);
        rest = &rest[percent..];
        // A target is ASCII, so every index is a character's.
        let digits = rest
            .get(1..3)
            .filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some((digits, byte)) =
            digits.and_then(|digits| Some((digits, u8::from_str_radix(digits, 16).ok()?)))
        else {
            decoded.push('%');
            rest = &rest[1..];
            continue;
        };
        match is_decoded(byte) {
            true => decoded.push(char::from(byte)),
            false => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &rest[3..];
    }
    decoded.push_str(rest);
    decoded
}
