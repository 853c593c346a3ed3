//! Variants of a response: the fields of a request that choose among them (RFC 9111 §4.1).

use sha2::{Digest, Sha256};

use super::key::KeyDigest;
use crate::message::Headers;

/// Names of fields that choose a variant, in lower case, each once, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary(Vec<Vec<u8>>);

/// Most fields that a response may vary by; one with more is not stored.
const MAX_NAMES: usize = 16;

impl Vary {
    /// Fields by which a response varies. `None`: by all there is, or by too many: it is no request's but one.
    pub fn of(headers: &Headers) -> Option<Self> {
        let mut names = Vec::new();
        for line in headers.get_all(&http::header::VARY) {
            for name in line.split(|&byte| byte == b',') {
                match name.trim_ascii() {
                    b"" => {}
                    b"*" => return None,
                    name if is_written_here(name) => return None,
                    name => names.push(name.to_ascii_lowercase()),
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        (names.len() <= MAX_NAMES).then_some(Self(names))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Key of the variant that a request with these fields has, of the response with this key. `generation`: of the entry that says by
    /// what it varies; variants of an entry that is gone are found by nobody.
    pub fn key(&self, of: &KeyDigest, generation: u64, request: &Headers) -> KeyDigest {
        let mut hasher = Sha256::new();
        hasher.update(of.bytes());
        hasher.update(generation.to_le_bytes());
        for name in &self.0 {
            let value = request.find(name).map(|found| {
                let lines = request.of(found).map(|(_, value)| value);
                normal(name, &lines.collect::<Vec<_>>())
            });
            // A field that is not there is another than one that is empty.
            for part in [Some(name), value.as_ref()] {
                let length = part.map_or(u64::MAX, |part| part.len() as u64);
                hasher.update(length.to_le_bytes());
                hasher.update(part.map_or(&[][..], Vec::as_slice));
            }
        }
        KeyDigest::from_hash(&hasher.finalize())
    }

    /// The names, as they are kept.
    pub fn write(&self) -> Vec<u8> {
        self.0.join(&b","[..])
    }

    pub fn read(text: &[u8]) -> Self {
        let names = text.split(|&byte| byte == b',');
        Self(names.map(<[u8]>::to_vec).collect())
    }
}

/// Whether a field is one that the gateway itself writes into what it sends on: the client's own says nothing of what the origin
/// got.
fn is_written_here(name: &[u8]) -> bool {
    [
        &b"via"[..],
        b"cdn-loop",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        b"if-none-match",
        b"if-modified-since",
        b"range",
    ]
    .iter()
    .any(|own| own.eq_ignore_ascii_case(name))
}

/// The value of a field as far as it matters: lines are one, and blanks around commas are none (RFC 9111 §4.1); codings are compared
/// without regard to their order and case, languages without regard to their case: of those without weights, some origins take the
/// first.
fn normal(name: &[u8], lines: &[&[u8]]) -> Vec<u8> {
    let members = lines
        .iter()
        .flat_map(|line| line.split(|&byte| byte == b','));
    let members = members.map(<[u8]>::trim_ascii);
    match name {
        b"accept-language" | b"accept-encoding" => {
            let mut members: Vec<Vec<u8>> = members
                .filter(|member| !member.is_empty())
                .map(|member| {
                    let solid = member.iter().filter(|byte| !byte.is_ascii_whitespace());
                    solid.map(u8::to_ascii_lowercase).collect()
                })
                .collect();
            if name == b"accept-encoding" {
                members.sort_unstable();
            }
            members.join(&b","[..])
        }
        _ => members.collect::<Vec<_>>().join(&b","[..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldName;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        headers
    }

    fn vary(lines: &[&str]) -> Option<Vary> {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::of(&headers(&lines))
    }

    #[test]
    fn names_are_read_and_all_there_is_is_no_variant() {
        let text = |lines: &[&str]| vary(lines).map(|vary| vary.write());
        assert_eq!(text(&[]), Some(Vec::new()));
        assert_eq!(text(&["Foo, bar", "", ", FOO,"]), Some(b"bar,foo".to_vec()));
        for star in [&["*"][..], &["*, *"], &["", "*"], &["foo, *"], &["*, foo"]] {
            assert_eq!(text(star), None);
        }
        let many: Vec<String> = (0..17).map(|number| format!("x{number}")).collect();
        assert_eq!(text(&[&many.join(",")]), None);
        let kept = vary(&["b, a"]).unwrap();
        assert_eq!(Vary::read(&kept.write()), kept);
    }

    #[test]
    fn requests_that_ask_for_the_same_have_one_variant() {
        let of = KeyDigest::of(b"/");
        let vary = vary(&["foo, accept-language, accept-encoding"]).unwrap();
        let key = |fields: &[(&str, &str)]| vary.key(&of, 1, &headers(fields));
        for same in [
            [&[("foo", "1, 2")][..], &[("Foo", "1"), ("FOO", "2")]],
            [&[("foo", "1,2")], &[("foo", " 1 , 2 ")]],
            [
                &[("accept-language", "en, de")],
                &[("accept-language", " En ,dE")],
            ],
            [
                &[("accept-encoding", "gzip, br;q=0.5")],
                &[
                    ("accept-encoding", "br; q=0.5"),
                    ("accept-encoding", "GZIP"),
                ],
            ],
            [&[("foo", "1"), ("other", "2")], &[("foo", "1")]],
        ] {
            assert_eq!(key(same[0]), key(same[1]), "{same:?}");
        }
        for other in [
            [&[("foo", "1")][..], &[("foo", "2")]],
            [&[("foo", "")], &[]],
            [&[("foo", "a")], &[("foo", "A")]],
            [&[("foo", "1, 2")], &[("foo", "2, 1")]],
            [
                &[("accept-language", "en, de")],
                &[("accept-language", "de, en")],
            ],
        ] {
            assert_ne!(key(other[0]), key(other[1]), "{other:?}");
        }
    }
}
