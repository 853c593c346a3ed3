//! Variables' values in texts of other languages: HTML, JSON, scripts.

use serde::Deserialize;

/// How variables' values are written into a text, so that a client's words end nothing in it. In a config: `"html"`, `"json"`, `"script"` or `"none"`.
///
/// Each is for one place of its language: text and attributes in quotes of HTML and XML, strings in quotes of JSON and of scripts. No escape makes a
/// client's words safe in a script *within* a page, or where there are no quotes.
///
/// ```
/// # use castling_sdk::template::Escape;
/// let page = Escape::of_type("text/html; charset=utf-8");
/// assert_eq!((page, page.apply(b"<b>")), (Escape::Html, b"&lt;b&gt;".to_vec()));
/// assert_eq!(Escape::of_type("application/problem+json"), Escape::Json);
/// assert_eq!(Escape::of_type("text/javascript"), Escape::Script);
/// assert_eq!(Escape::of_type("text/plain"), Escape::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Escape {
    /// [`escape_html`].
    Html,
    /// [`escape_json`].
    Json,
    /// [`escape_script`].
    Script,
    /// Values stay as they are.
    #[default]
    None,
}

impl Escape {
    /// The escape for texts of a media type, by its name without parameters.
    pub fn of_type(content_type: &str) -> Self {
        let name = content_type.split(';').next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let has = |parts: [&str; 2]| parts.iter().any(|part| name.contains(part));
        if has(["javascript", "ecmascript"]) {
            Self::Script
        } else if name.contains("json") {
            Self::Json
        } else if has(["html", "xml"]) {
            Self::Html
        } else {
            Self::None
        }
    }

    /// The value as it is written.
    pub fn apply(self, value: &[u8]) -> Vec<u8> {
        match self {
            Self::Html => escape_html(value),
            Self::Json => escape_json(value),
            Self::Script => escape_script(value),
            Self::None => value.to_vec(),
        }
    }
}

/// A variable's value as HTML has it, for [`Template::expand_with`](super::Template::expand_with): `& < > " '` are written otherwise.
///
/// ```
/// # use castling_sdk::template;
/// assert_eq!(template::escape_html(b"<b a='1'>"), b"&lt;b a=&#39;1&#39;&gt;");
/// ```
pub fn escape_html(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for &byte in value {
        match byte {
            b'&' => text.extend_from_slice(b"&amp;"),
            b'<' => text.extend_from_slice(b"&lt;"),
            b'>' => text.extend_from_slice(b"&gt;"),
            b'"' => text.extend_from_slice(b"&quot;"),
            b'\'' => text.extend_from_slice(b"&#39;"),
            _ => text.push(byte),
        }
    }
    text
}

/// A variable's value as it stands in a string of JSON, for [`Template::expand_with`](super::Template::expand_with). What is not UTF-8 becomes U+FFFD.
///
/// ```
/// # use castling_sdk::template;
/// assert_eq!(template::escape_json(b"a\"b\n"), br#"a\"b\u000a"#);
/// ```
pub fn escape_json(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for &byte in String::from_utf8_lossy(value).as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            0..0x20 => text.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => text.push(byte),
        }
    }
    text
}

/// A variable's value as it stands in a string of JavaScript, whatever its quotes, for [`Template::expand_with`](super::Template::expand_with): as in JSON, with what
/// ends such a string, an element or a line as `\u`.
///
/// ```
/// # use castling_sdk::template;
/// assert_eq!(template::escape_script(b"</script>'"), br"\u003c/script\u003e\u0027");
/// ```
pub fn escape_script(value: &[u8]) -> Vec<u8> {
    let json = escape_json(value);
    let mut text = String::with_capacity(json.len());
    for char in String::from_utf8_lossy(&json).chars() {
        match char {
            '<' | '>' | '&' | '\'' | '`' | '$' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            char => text.push(char),
        }
    }
    text.into_bytes()
}
