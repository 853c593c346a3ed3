//! Cookies that browsers would not keep.

use super::super::table::Table;
use super::super::{SameSite, StickyCookie};

/// Refuses what browsers drop without a word (RFC 6265bis §5.7): each session would be balanced anew with each request. `table`:
/// the cookie's.
pub(super) fn refuse_dropped(table: &mut Table<'_>, cookie: &StickyCookie) {
    if cookie.same_site == Some(SameSite::None) && !cookie.secure {
        refuse(
            table,
            "same_site",
            "same_site \"none\": expected secure = true, without which browsers drop the cookie",
        );
    }
    let has_prefix = |prefix: &str| {
        let name = cookie.name.as_bytes().get(..prefix.len());
        name.is_some_and(|it| it.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let is_of_host = has_prefix("__Host-");
    if (is_of_host || has_prefix("__Secure-")) && !cookie.secure {
        let name = &cookie.name;
        refuse(
            table,
            "cookie",
            &format!("cookie {name:?}: expected secure = true, without which browsers drop it"),
        );
    }
    if is_of_host && cookie.domain.is_some() {
        refuse(
            table,
            "domain",
            "domain beside a cookie \"__Host-...\": expected none, with which browsers drop it",
        );
    }
    if is_of_host && cookie.path != "/" {
        refuse(
            table,
            "path",
            "path of a cookie \"__Host-...\": expected \"/\", without which browsers drop it",
        );
    }
}

fn refuse(table: &mut Table<'_>, key: &'static str, message: &str) {
    if let Some(value) = table.get(key) {
        value.refuse::<()>(message);
    }
}
