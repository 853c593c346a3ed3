use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    let mut headers = Headers::new();
    for &(name, value) in fields {
        headers.add(named(name), value.as_bytes());
    }
    headers
}

fn named(name: &str) -> FieldName<'_> {
    FieldName::new(name.as_bytes()).expect("a name")
}

fn names(headers: &Headers) -> Vec<&str> {
    let names = headers.iter().map(|(name, _)| std::str::from_utf8(name));
    names.collect::<Result<_, _>>().expect("ASCII")
}

#[test]
fn set_keeps_the_place_of_the_first() {
    let mut it = headers(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("a", "5")]);
    it.set(named("a"), b"9");
    assert_eq!(it, headers(&[("a", "9"), ("b", "2"), ("c", "4")]));
    it.set(named("D"), b"5");
    assert_eq!(names(&it), ["a", "b", "c", "d"]);
}

#[test]
fn remove_counts_what_it_removed() {
    let mut it = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
    assert_eq!(it.remove(named("a")), 2);
    assert_eq!(it.remove(named("a")), 0);
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
    assert_eq!(names(&it), ["host", "trailer", "accept"]);
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
        KnownHeader::Connection,
        b"host, Authorization, x-forwarded-for, content-length, \"x, ,",
    );
    it.remove_hop_by_hop();
    assert_eq!(it, headers(&fields));
}

#[test]
fn what_is_gone_is_not_known_any_more() {
    let mut it = headers(&[
        ("via", "1.1 a"),
        ("connection", "server, x-a"),
        ("server", "b"),
    ]);
    it.remove_hop_by_hop();
    assert_eq!(names(&it), ["via"]);
    assert!(!it.contains(KnownHeader::Server) && !it.contains(KnownHeader::Connection));
    it.append_to_list(KnownHeader::Via, b"1.1 c");
    assert_eq!(it.get(KnownHeader::Via), Some(&b"1.1 a, 1.1 c"[..]));
    assert_eq!(it.remove(KnownHeader::Via), 1);
    assert!(it.is_empty() && !it.contains(KnownHeader::Via));
}

#[test]
fn a_field_that_is_set_over_and_over_takes_no_more_room() {
    let mut it = headers(&[("a", "1"), ("host", "b")]);
    for round in 0..100_000_u32 {
        it.set(named("x-counter"), round.to_string().as_bytes());
        it.set(KnownHeader::Host, round.to_string().as_bytes());
    }
    assert!(it.text.capacity() < 4 * COMPACT_AT_LEAST_BYTES);
    assert_eq!(
        it,
        headers(&[("a", "1"), ("host", "99999"), ("x-counter", "99999")])
    );
}

#[derive(Clone, Debug)]
enum Change {
    Set(usize, Vec<u8>),
    Add(usize, Vec<u8>),
    Remove(usize),
    Compact,
}

const NAMES: [&str; 5] = ["a", "Host", "x-b", "VIA", "content-length"];

fn any_change() -> impl Strategy<Value = Change> {
    let value = || prop::collection::vec(0x20..0x7f_u8, 0..8);
    prop_oneof![
        (0..NAMES.len(), value()).prop_map(|(name, value)| Change::Set(name, value)),
        (0..NAMES.len(), value()).prop_map(|(name, value)| Change::Add(name, value)),
        (0..NAMES.len()).prop_map(Change::Remove),
        Just(Change::Compact),
    ]
}

proptest! {
    /// Beside a plain list that does the same, from a head that came.
    #[test]
    fn changes_do_what_they_would_to_a_list(
        spaces in prop::collection::vec("[ ]{0,2}", 5),
        changes in prop::collection::vec(any_change(), 0..30),
    ) {
        let mut list: Vec<(String, Vec<u8>)> = Vec::new();
        let mut came = String::new();
        let mut places = Vec::new();
        for (name, space) in NAMES.iter().zip(&spaces) {
            places.push((came.len(), name.len(), came.len() + name.len() + 1 + space.len(), 1));
            came += &format!("{name}:{space}v\r\n");
            list.push((name.to_ascii_lowercase(), b"v".to_vec()));
        }
        let mut it = Headers::new();
        it.take_over(came.as_bytes(), NAMES.len());
        for (name_at, name_len, value_at, value_len) in places {
            let name = (name_at, u16::try_from(name_len).expect("short"));
            it.found(name, (value_at, value_len), true).expect("any name");
        }
        for change in changes {
            match change {
                Change::Set(name, value) => {
                    let lower = NAMES[name].to_ascii_lowercase();
                    it.set(named(NAMES[name]), &value);
                    let first = list.iter().position(|(n, _)| *n == lower);
                    let mut idx = 0;
                    list.retain(|(n, _)| {
                        idx += 1;
                        *n != lower || Some(idx - 1) == first
                    });
                    match first {
                        Some(first) => list[first].1 = value,
                        None => list.push((lower, value)),
                    }
                }
                Change::Add(name, value) => {
                    it.add(named(NAMES[name]), &value);
                    list.push((NAMES[name].to_ascii_lowercase(), value));
                }
                Change::Remove(name) => {
                    let before = list.len();
                    list.retain(|(n, _)| *n != NAMES[name].to_ascii_lowercase());
                    prop_assert_eq!(it.remove(named(NAMES[name])), before - list.len());
                }
                Change::Compact => it.compact(),
            }
            let now: Vec<_> = it.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let expected: Vec<_> = list.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone())).collect();
            prop_assert_eq!(now, expected);
            for name in NAMES {
                let first = list.iter().find(|(n, _)| *n == name.to_ascii_lowercase());
                prop_assert_eq!(it.get(named(name)), first.map(|(_, v)| &v[..]));
            }
            let mut written = Vec::new();
            it.write_lines(&mut written, KnownHeader::Host.bit());
            let mut expected = Vec::new();
            for (name, value) in list.iter().filter(|(n, _)| n != "host") {
                write_line(&mut expected, name.as_bytes(), value);
            }
            prop_assert_eq!(written, expected);
        }
    }
}
