//! Headers of the request and of the response.

use castling_abi::{HeaderMap, IMPORT_MODULE, Status, header_list, imports};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::exchange::{Exchange, Extent, Part, Stage};
use crate::http1::{Headers, Known, Name, is_valid_host, is_valid_value};
use crate::wasm::guest::{Guest, bytes, hand_out, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::HEADER_GET, header_get)?
        .func_wrap(IMPORT_MODULE, imports::HEADERS_GET, headers_get)?
        .func_wrap(IMPORT_MODULE, imports::HEADER_SET, header_set)?
        .func_wrap(IMPORT_MODULE, imports::HEADER_ADD, header_add)?
        .func_wrap(IMPORT_MODULE, imports::HEADER_REMOVE, header_remove)?;
    Ok(())
}

fn header_get(
    mut caller: Caller<'_, Guest>,
    map: u32,
    name_ptr: u32,
    name_len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    let headers = match readable(guest, map) {
        Ok(headers) => headers,
        Err(status) => return refuse(status),
    };
    match headers.find_value(name) {
        Some(value) => hand_out(memory, out, capacity, value),
        None => refuse(Status::NotFound),
    }
}

fn headers_get(
    mut caller: Caller<'_, Guest>,
    map: u32,
    name_ptr: u32,
    name_len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    let headers = match readable(guest, map) {
        Ok(headers) => headers,
        Err(status) => return refuse(status),
    };
    let named = headers
        .iter()
        .filter(|(header, _)| name.is_empty() || header.eq_ignore_ascii_case(name));
    let list = encode(named);
    hand_out(memory, out, capacity, &list)
}

/// A header list, as the ABI has it.
pub(super) fn encode<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut list = Vec::with_capacity(512);
    for (name, value) in fields {
        // Heads are bounded far below these fields' range.
        let Some(head) = header_list::record_head(name, value) else {
            continue;
        };
        list.extend_from_slice(&head);
        list.extend_from_slice(name);
        list.extend_from_slice(value);
    }
    list
}

fn header_set(
    mut caller: Caller<'_, Guest>,
    map: u32,
    name_ptr: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
) -> Result<i32> {
    let (name, value) = ((name_ptr, name_len), (ptr, len));
    change(&mut caller, map, name, value, How::Set)
}

fn header_add(
    mut caller: Caller<'_, Guest>,
    map: u32,
    name_ptr: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
) -> Result<i32> {
    let (name, value) = ((name_ptr, name_len), (ptr, len));
    change(&mut caller, map, name, value, How::Add)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// In the place of all of that name.
    Set,
    Add,
}

fn change(
    caller: &mut Caller<'_, Guest>,
    map: u32,
    (name_ptr, name_len): (u32, u32),
    (ptr, len): (u32, u32),
    how: How,
) -> Result<i32> {
    let (memory, guest) = split(caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    let value = bytes(memory, ptr, len)?;
    match change_checked(guest, map, name, value, how) {
        Ok(()) => Ok(DONE),
        Err(status) => refuse(status),
    }
}

fn change_checked(
    guest: &mut Guest,
    map: u32,
    name: &[u8],
    value: &[u8],
    how: How,
) -> Result<(), Status> {
    let (headers, part) = writable(&mut guest.exchange, map)?;
    let there = headers.find(name);
    let comes = Extent::of(name, value);
    // Before it is copied: it may be all of the guest's memory.
    guest.make(part, comes)?;
    let Some(there) = there else {
        let name = checked(name, value).ok_or(Status::BadArgument)?;
        guest.add(part, comes, Extent::default())?;
        writable(&mut guest.exchange, map)?.0.add(name, value);
        return Ok(());
    };
    let (headers, _) = writable(&mut guest.exchange, map)?;
    let known = headers.known_at(there.first);
    if !may_be_set(known, value) {
        return Err(Status::BadArgument);
    }
    // A second Host would make the request ambiguous (RFC 9112 §3.2).
    if how == How::Add && known != Some(Known::Host) {
        guest.add(part, comes, Extent::default())?;
        // One that is there is well formed.
        let name = Name::new(name).ok_or(Status::BadArgument)?;
        writable(&mut guest.exchange, map)?.0.add(name, value);
        return Ok(());
    }
    let goes = Extent {
        count: there.count,
        bytes: there.count * name.len() + there.value_bytes,
    };
    guest.add(part, comes, goes)?;
    writable(&mut guest.exchange, map)?.0.replace(there, value);
    Ok(())
}

fn extent_of(headers: &Headers, name: &[u8]) -> Extent {
    let found = headers.find(name);
    found.map_or(Extent::default(), |there| Extent {
        count: there.count,
        bytes: there.count * name.len() + there.value_bytes,
    })
}

/// The headers of a list, for a head that the plugin makes itself.
pub(super) fn decode(guest: &mut Guest, list: &[u8], part: Part) -> Result<Headers, Status> {
    let mut headers = Headers::new();
    let mut made = Extent::default();
    for record in header_list::records(list) {
        let (name, value) = record.map_err(|()| Status::BadArgument)?;
        made = [made, Extent::of(name, value)].into_iter().sum();
        guest.make(part, made)?;
        let name = checked(name, value).ok_or(Status::BadArgument)?;
        match name.known() {
            Some(Known::Host) => headers.set(name, value),
            _ => headers.add(name, value),
        }
    }
    Ok(headers)
}

fn header_remove(
    mut caller: Caller<'_, Guest>,
    map: u32,
    name_ptr: u32,
    name_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    let exchange = &mut *guest.exchange;
    let (headers, part) = match writable(exchange, map) {
        Ok(writable) => writable,
        Err(status) => return refuse(status),
    };
    match Name::new(name) {
        Some(name) if name.known() == Some(Known::Host) => refuse(Status::BadArgument),
        Some(checked) => {
            let goes = extent_of(headers, name);
            headers.remove(checked);
            if goes.count > 0 {
                let added = exchange.additions.of(&guest.plugin, part);
                *added = added.after(Extent::default(), goes);
            }
            Ok(i32::try_from(goes.count).unwrap_or(i32::MAX))
        }
        None => refuse(Status::BadArgument),
    }
}

/// The name, where a plugin may set it to this: well formed, and not about framing, which is the host's business.
fn checked<'a>(name: &'a [u8], value: &[u8]) -> Option<Name<'a>> {
    let name = Name::new(name)?;
    may_be_set(name.known(), value).then_some(name)
}

/// The same for a name that is known to be well formed.
fn may_be_set(name: Option<Known>, value: &[u8]) -> bool {
    match name {
        // RFC 9112 §3.2: what is no host there is answered 400.
        Some(Known::Host) => is_valid_host(value),
        Some(
            Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::Upgrade
            | Known::Te
            | Known::Trailer
            | Known::KeepAlive
            | Known::ProxyConnection,
        ) => false,
        _ => is_valid_value(value),
    }
}

fn readable(guest: &Guest, map: u32) -> Result<&Headers, Status> {
    match HeaderMap::from_raw(map).ok_or(Status::BadArgument)? {
        HeaderMap::Request if guest.has_request() => Ok(&guest.exchange.request.headers),
        HeaderMap::Response if guest.has_reply() => Ok(&guest.exchange.reply.headers),
        HeaderMap::Trailers => Ok(&guest.exchange.trailers),
        HeaderMap::Request | HeaderMap::Response => Err(Status::NotFound),
    }
}

fn writable(exchange: &mut Exchange, map: u32) -> Result<(&mut Headers, Part), Status> {
    match (
        HeaderMap::from_raw(map).ok_or(Status::BadArgument)?,
        exchange.stage,
    ) {
        (HeaderMap::Request, Stage::Request) => {
            Ok((&mut exchange.request.headers, Part::RequestHead))
        }
        (HeaderMap::Response, Stage::Reply) => Ok((&mut exchange.reply.headers, Part::ReplyHead)),
        (HeaderMap::Request | HeaderMap::Response | HeaderMap::Trailers, _) => Err(Status::NotNow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_is_not_a_plugins_business() {
        assert!(checked(b"content-length", b"5").is_none());
        assert!(checked(b"Transfer-Encoding", b"chunked").is_none());
        assert!(checked(b"connection", b"close").is_none());
        assert!(checked(b"x-ok", b"value").is_some());
    }

    #[test]
    fn a_host_is_one() {
        assert!(checked(b"Host", b"a b").is_none());
        assert!(checked(b"host", b"u@h").is_none());
        assert!(checked(b"host", b"[::1]:80").is_some());
    }

    #[test]
    fn what_would_split_a_head_is_refused() {
        assert!(checked(b"x-a", b"b\r\nx-c: d").is_none());
        assert!(checked(b"x a", b"b").is_none());
        assert!(checked(b"", b"b").is_none());
        assert!(checked(b"x-a", &[0xff, 0xfe]).is_some());
    }
}
