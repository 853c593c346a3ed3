//! `Cache-Status`: what the cache has done, for those who look into it (RFC 9211).

use crate::message::{FieldName, Headers};

/// Value of the field for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusField {
    /// Why the request went to the origin; `None`: it did not.
    pub fwd: Option<&'static str>,
    /// Status of the origin's response, where that is not the one that is sent.
    pub fwd_status: Option<u16>,
    /// The request has waited for the response to another.
    pub collapsed: bool,
    pub stored: bool,
    /// Seconds that are left of the lifetime of what was stored.
    pub ttl: Option<i64>,
    /// Reason or remark, in a word.
    pub detail: Option<&'static str>,
}

impl StatusField {
    /// Appends it to the field of the caches before this one.
    pub fn add_to(&self, headers: &mut Headers) {
        if let Some(name) = FieldName::new(NAME) {
            let own = self.text();
            let before: Vec<&[u8]> = headers.get_all(name).collect();
            let all = match before.is_empty() {
                true => own.into_bytes(),
                false => [&before.join(&b", "[..]), &b", "[..], own.as_bytes()].concat(),
            };
            headers.set(name, &all);
        }
    }

    fn text(&self) -> String {
        let mut text = "castling".to_owned();
        match self.fwd {
            None => text += "; hit",
            Some(why) => {
                text += "; fwd=";
                text += why;
            }
        }
        if let Some(status) = self.fwd_status {
            text += &format!("; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            text += &format!("; ttl={ttl}");
        }
        if self.stored {
            text += "; stored";
        }
        if self.collapsed {
            text += "; collapsed";
        }
        if let Some(detail) = self.detail {
            text += &format!("; detail={detail}");
        }
        text
    }
}

const NAME: &[u8] = b"cache-status";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caches_of_a_chain_stand_in_the_order_of_the_response() {
        let mut headers = Headers::new();
        let hit = StatusField {
            ttl: Some(-3),
            detail: Some("stale"),
            ..StatusField::default()
        };
        hit.add_to(&mut headers);
        let miss = StatusField {
            fwd: Some("uri-miss"),
            fwd_status: Some(200),
            stored: true,
            collapsed: true,
            ..StatusField::default()
        };
        miss.add_to(&mut headers);
        assert_eq!(
            headers.find_value(NAME),
            Some(&b"castling; hit; ttl=-3; detail=stale, castling; fwd=uri-miss; fwd-status=200; stored; collapsed"[..])
        );
    }
}
