//! Names of subjects and issuers as text.

use std::fmt::Write as _;

use x509_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The name as RFC 4514 writes it, and OpenSSL and nginx do: `CN=ada,OU=math,O=Example`, the last part first. All of it is ASCII
/// without control characters, whatever an authority has signed; what could end a part is escaped.
pub fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let relative: Vec<_> = name.iter_rdn().collect();
    for (idx, relative) in relative.into_iter().rev().enumerate() {
        if idx > 0 {
            text.push(',');
        }
        for (idx, attribute) in relative.iter().enumerate() {
            if idx > 0 {
                text.push('+');
            }
            add_attribute(&mut text, attribute);
        }
    }
    text
}

/// Appends a text whose bytes are all visible ASCII, and none of `special`: others become a backslash and two digits.
pub fn add_escaped(text: &mut String, value: &str, special: &str) {
    for byte in value.bytes() {
        let char = char::from(byte);
        match char.is_ascii_graphic() && char != '\\' && !special.contains(char) {
            true => text.push(char),
            // Writing to a String cannot fail.
            false => drop(write!(text, "\\{byte:02X}")),
        }
    }
}

fn add_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let known = NAMES.iter().find(|(known, _)| *known == id);
    text.push_str(known.map_or(&id, |(_, name)| name));
    text.push('=');
    let value = attribute.attr_value();
    match string(value.tag(), value.data) {
        Some(value) => add_value(text, &value),
        None => add_encoded(text, value.tag(), value.data),
    }
}

/// Text of the string types. `None`: it is of no such type, or no text.
fn string(tag: Tag, data: &[u8]) -> Option<String> {
    match tag {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString => String::from_utf8(data.to_vec()).ok(),
        // Read as Latin-1, as OpenSSL does.
        Tag::T61String => Some(data.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (pairs, []) = data.as_chunks() else {
                return None;
            };
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// RFC 4514 §2.4: special characters get a backslash, as do a number sign and a space at the start and a space at the end.
fn add_value(text: &mut String, value: &str) {
    let bytes = value.as_bytes();
    for (idx, &byte) in bytes.iter().enumerate() {
        let is_edge = idx == 0 || idx + 1 == bytes.len();
        // Writing to a String cannot fail.
        let _ = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                write!(text, "\\{}", char::from(byte))
            }
            b'#' if idx == 0 => write!(text, "\\#"),
            b' ' if is_edge => write!(text, "\\ "),
            b' '..=b'~' => write!(text, "{}", char::from(byte)),
            _ => write!(text, "\\{byte:02X}"),
        };
    }
}

/// A number sign and the DER encoding in hexadecimal digits. Values of a certificate that was let in are short.
fn add_encoded(text: &mut String, tag: Tag, data: &[u8]) {
    text.push('#');
    let length = (data.len() as u64).to_be_bytes();
    let skipped = length.iter().take_while(|byte| **byte == 0).count();
    let long = &length[skipped..];
    let mut bytes = vec![tag.0 as u8];
    match data.len() {
        short @ ..128 => bytes.push(short as u8),
        _ => {
            bytes.push(0x80 | long.len() as u8);
            bytes.extend_from_slice(long);
        }
    }
    bytes.extend_from_slice(data);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
}

/// Names of attributes (RFC 4514 §3), and those that OpenSSL has beside them.
const NAMES: [(&str, &str); 13] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    /// A name of one attribute, by the type's encoded identifier.
    fn name(parts: &[(&[u8], u8, &[u8])]) -> String {
        let wrap = |tag: u8, inner: &[u8]| {
            let len = inner.len();
            let mut out = vec![tag];
            match len {
                ..128 => out.push(len as u8),
                _ => out.extend([0x81, len as u8]),
            }
            out.extend_from_slice(inner);
            out
        };
        let relative = parts.iter().map(|(id, tag, value)| {
            let pair = [wrap(6, id), wrap(*tag, value)].concat();
            wrap(0x31, &wrap(0x30, &pair))
        });
        let der = wrap(0x30, &relative.collect::<Vec<_>>().concat());
        let (_, name) = X509Name::from_der(&der).unwrap();
        distinguished_name(&name)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];

    #[test]
    fn the_last_part_is_first_and_nothing_can_end_a_part() {
        assert_eq!(
            name(&[(O, 12, b"Example"), (CN, 19, b"ada")]),
            "CN=ada,O=Example"
        );
        assert_eq!(
            name(&[(CN, 12, b"x,O=admin+\"<;>\\\n\x7f")]),
            "CN=x\\,O=admin\\+\\\"\\<\\;\\>\\\\\\0A\\7F"
        );
        assert_eq!(
            name(&[(CN, 12, "# \u{e4} ".as_bytes())]),
            "CN=\\# \\C3\\A4\\ "
        );
        assert_eq!(name(&[(CN, 12, b"")]), "CN=");
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn other_types_are_read_or_shown_encoded() {
        assert_eq!(name(&[(CN, 30, b"\0a\0b")]), "CN=ab");
        assert_eq!(name(&[(CN, 20, b"\xe4")]), "CN=\\C3\\A4");
        assert_eq!(name(&[(CN, 12, b"\xff")]), "CN=#0C01FF");
        assert_eq!(name(&[(CN, 30, b"odd")]), "CN=#1E036F6464");
        assert_eq!(name(&[(&[0x2a, 3], 4, &[7; 2])]), "1.2.3=#04020707");
        let long = name(&[(CN, 4, &[1; 130])]);
        assert!(long.starts_with("CN=#0481820101"), "{long}");
    }

    #[test]
    fn a_list_of_names_is_told_apart() {
        let mut text = String::new();
        add_escaped(&mut text, "a,b\\ \u{e4}", ",");
        assert_eq!(text, "a\\2Cb\\5C\\20\\C3\\A4");
    }
}
