//! The header fields of a head, in order.

use http::header::{self, HeaderName, HeaderValue};

/// Header fields in the order they came, names in lower case.
///
/// A list, not a map: a request has some ten headers and well-known names compare by number, so a search costs less
/// than hashing the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

/// Where the fields of one name are, and what they hold.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The index of the first.
    pub first: usize,
    /// At least one.
    pub count: usize,
    /// Of all their values.
    pub value_bytes: usize,
}

impl Headers {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all, keeps the room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Room for so many more.
    pub fn reserve(&mut self, fields: usize) {
        self.0.reserve(fields);
    }

    /// The first value of that name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)
    }

    /// All values of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// This value in the place of all of that name: where the first of them stood, else at the end.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match self.find(name.as_str().as_bytes()) {
            Some(there) => self.replace(there, value),
            None => self.0.push((name, value)),
        }
    }

    /// All fields of that name, in one walk. Compared as text in any case: to make a checked name of it first would cost
    /// more than the walk.
    pub fn find(&self, name: &[u8]) -> Option<Found> {
        let is_named = |(n, _): &(HeaderName, _)| n.as_str().as_bytes().eq_ignore_ascii_case(name);
        let first = self.0.iter().position(is_named)?;
        let same = self.0[first..].iter().filter(|field| is_named(field));
        let mut found = Found {
            first,
            count: 0,
            value_bytes: 0,
        };
        for (_, value) in same {
            found.count += 1;
            found.value_bytes += value.len();
        }
        Some(found)
    }

    /// The name of the field with this index.
    pub fn name_at(&self, idx: usize) -> &HeaderName {
        &self.0[idx].0
    }

    /// This value in the place of those that [`Self::find`] has found, where the first of them stood. The fields must not have
    /// changed since.
    pub fn replace(&mut self, found: Found, value: HeaderValue) {
        self.0[found.first].1 = value;
        if found.count > 1 {
            let name = self.0[found.first].0.clone();
            let mut idx = 0;
            self.0.retain(|(n, _)| {
                let keep = idx <= found.first || *n != name;
                idx += 1;
                keep
            });
        }
    }

    /// One more value, at the end.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Removes all of that name; says how many there were.
    pub fn remove(&mut self, name: &HeaderName) -> usize {
        let before = self.0.len();
        self.0.retain(|(n, _)| n != name);
        before - self.0.len()
    }

    /// Keeps the fields for which `keep` is true.
    #[cfg(test)]
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut HeaderValue> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Removes what is meant for this connection only (RFC 9110 §7.6.1): `Connection` and the fields it names,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `Transfer-Encoding`, `Upgrade`.
    ///
    /// Call it on a request before the first hook runs. A sender names fields in `Connection` as it likes; later, it
    /// could so remove what a plugin has set (the user that `access` has found, say). Fields that are meant for the whole
    /// way are kept even if named, as are all that begin with `x-forwarded-`; after 64 options the rest is
    /// ignored.
    pub fn remove_hop_by_hop(&mut self) {
        let nominated = self.nominated();
        self.0
            .retain(|(name, _)| !is_hop_by_hop(name) && !nominated.contains(name));
    }

    /// What `Connection` names beyond the fields that are removed anyway: mostly nothing, which allocates nothing.
    fn nominated(&self) -> Vec<HeaderName> {
        self.get_all(&header::CONNECTION)
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .take(MAX_CONNECTION_OPTIONS)
            .filter(|option| {
                !option.eq_ignore_ascii_case(b"close")
                    && !option.eq_ignore_ascii_case(b"keep-alive")
            })
            .filter_map(|option| HeaderName::from_bytes(option).ok())
            .filter(|name| !is_hop_by_hop(name) && !is_end_to_end(name) && self.contains(name))
            .collect()
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        // No constants of `http`.
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// RFC 9110 §7.6.1: a sender must not name a field that is meant for all recipients. These are the ones whose removal
/// would change who is asked, what for, by whom, or what the body is.
fn is_end_to_end(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "forwarded"
            | "host"
            | "location"
            | "origin"
            | "set-cookie"
            | "vary"
            | "via"
            | "x-real-ip"
    ) || name.as_str().starts_with("x-forwarded-")
}

/// Options of `Connection` that are looked at.
const MAX_CONNECTION_OPTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for &(name, value) in fields {
            headers.add(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn names(headers: &Headers) -> Vec<&str> {
        headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn set_keeps_the_place_of_the_first() {
        let mut it = headers(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("a", "5")]);
        it.set(HeaderName::from_static("a"), HeaderValue::from_static("9"));
        assert_eq!(it, headers(&[("a", "9"), ("b", "2"), ("c", "4")]));
        it.set(HeaderName::from_static("d"), HeaderValue::from_static("5"));
        assert_eq!(names(&it), ["a", "b", "c", "d"]);
    }

    #[test]
    fn remove_counts_what_it_removed() {
        let mut it = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(it.remove(&HeaderName::from_static("a")), 2);
        assert_eq!(it.remove(&HeaderName::from_static("a")), 0);
        assert_eq!(names(&it), ["b"]);
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_names_are_removed() {
        let mut it = headers(&[
            ("host", "a"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("connection", "x-other"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        it.remove_hop_by_hop();
        assert_eq!(names(&it), ["host", "accept"]);
    }

    #[test]
    fn connection_cannot_remove_fields_for_the_whole_way() {
        let fields = [
            ("host", "a"),
            ("authorization", "b"),
            ("x-forwarded-for", "c"),
            ("content-length", "0"),
        ];
        let mut it = headers(&fields);
        it.add(
            header::CONNECTION,
            HeaderValue::from_static(
                "host, Authorization, x-forwarded-for, content-length, \"x, ,",
            ),
        );
        it.remove_hop_by_hop();
        assert_eq!(it, headers(&fields));
    }
}
