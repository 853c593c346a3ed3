//! Fields that are meant for one connection only (RFC 9110 §7.6.1).

use super::{Headers, name_in};
use crate::message::field_name::KnownHeader;

impl Headers {
    /// Removes what is meant for this connection only (RFC 9110 §7.6.1): `Connection` and the fields it names,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding`, `Upgrade`. `Trailer` stays (RFC 9110 §6.6.2), as trailers
    /// are passed on.
    ///
    /// Call it on a request before the first hook runs. A sender names fields in `Connection` as it likes; later, it
    /// could so remove what a plugin has set (the user that `access` has found, say). Fields that are meant for the whole
    /// way are kept even if named, as are all that begin with `x-forwarded-`; after 64 options the rest is
    /// ignored.
    pub fn remove_hop_by_hop(&mut self) {
        let hop_by_hop = HOP_BY_HOP;
        if !self.contains_any(hop_by_hop) {
            return;
        }
        let nominated = self.nominated();
        let Self { text, fields, .. } = self;
        fields.retain(|field| {
            let is_hop_by_hop = field
                .known
                .is_some_and(|known| known.bit() & hop_by_hop != 0);
            !is_hop_by_hop && !nominated.iter().any(|name| name == name_in(text, field))
        });
        let known = nominated
            .iter()
            .filter_map(|name| KnownHeader::of_lower(name));
        let bits = known.fold(hop_by_hop, |bits, known| bits | known.bit());
        self.known &= !bits;
    }

    /// Names that `Connection` has beyond the fields that are removed anyway: mostly none, which allocates nothing. In lower
    /// case.
    fn nominated(&self) -> Vec<Vec<u8>> {
        self.get_all(KnownHeader::Connection)
            .flat_map(|value| value.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .take(MAX_CONNECTION_OPTIONS)
            .filter(|option| {
                !option.eq_ignore_ascii_case(b"close")
                    && !option.eq_ignore_ascii_case(b"keep-alive")
                    && self.find(option).is_some()
            })
            .map(<[u8]>::to_ascii_lowercase)
            .filter(|name| !is_end_to_end(name))
            .collect()
    }
}

const HOP_BY_HOP: u32 = KnownHeader::Connection.bit()
    | KnownHeader::KeepAlive.bit()
    | KnownHeader::ProxyConnection.bit()
    | KnownHeader::Te.bit()
    | KnownHeader::TransferEncoding.bit()
    | KnownHeader::Upgrade.bit();

/// RFC 9110 §7.6.1: a sender must not name a field that is meant for all recipients. These are the ones whose removal
/// would change who is asked, what for, by whom, or what the body is.
fn is_end_to_end(name: &[u8]) -> bool {
    matches!(
        name,
        b"authorization"
            | b"cache-control"
            | b"cdn-loop"
            | b"content-encoding"
            | b"content-length"
            | b"content-range"
            | b"content-type"
            | b"cookie"
            | b"date"
            | b"expect"
            | b"forwarded"
            | b"host"
            | b"location"
            | b"origin"
            | b"set-cookie"
            | b"vary"
            | b"via"
            | b"x-real-ip"
    ) || name.starts_with(b"x-forwarded-")
}

/// Options of `Connection` that are looked at.
const MAX_CONNECTION_OPTIONS: usize = 64;
