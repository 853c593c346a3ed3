//! `Vary`, RFC 9110 §12.5.5: of an error, of the page in its place, and of the choice between pages.

use castling_sdk::prelude::*;

/// One value for all of these fields, with `accept` where that has decided. `None`: nothing is named.
pub(crate) fn merged(
    fields: impl IntoIterator<Item = HeaderValue>,
    is_by_accept: bool,
) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let is_known = names.iter().any(|it| it.eq_ignore_ascii_case(name));
        if !name.is_empty() && !is_known {
            names.push(name.to_owned());
        }
    };
    for field in fields {
        field
            .to_string_lossy()
            .split(',')
            .map(str::trim)
            .for_each(&mut add);
    }
    if is_by_accept {
        add("accept");
    }
    if names.iter().any(|name| name == "*") {
        return Some("*".to_owned());
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once() {
        for (fields, is_by_accept, expected) in [
            (&[][..], false, None),
            (&[], true, Some("accept")),
            (&["Origin"], false, Some("Origin")),
            (
                &["Origin, Accept", ", origin"],
                true,
                Some("Origin, Accept"),
            ),
            (&["origin", "cookie"], true, Some("origin, cookie, accept")),
            (&["origin", "*"], true, Some("*")),
        ] {
            let values = fields.iter().map(|field| HeaderValue::new(field).unwrap());
            assert_eq!(
                merged(values, is_by_accept).as_deref(),
                expected,
                "{fields:?}"
            );
        }
    }
}
