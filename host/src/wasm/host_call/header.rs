//! Headers of the request and of the response.

use std::iter;

use castling_abi::{HeaderMap, Hook, IMPORT_MODULE, Status, header_list, imports, rules};
use wasmtime::{Caller, Linker, Result, bail};

use super::{DONE, refuse};
use crate::exchange::{Exchange, PluginUsage, Section, Size, Usage};
use crate::message::{FieldName, Headers, KnownHeader, Occurrences, is_valid_host, is_valid_value};
use crate::wasm::guest::{CallReport, Guest, bytes, bytes_mut, hand_out, split};
use crate::wasm::limit::{Allowance, Reached};

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
    if name.is_empty() {
        return hand_out_list(memory, out, capacity, headers.iter());
    }
    match headers.find(name) {
        Some(Occurrences {
            count: 1, first, ..
        }) => {
            let field = headers.field_at(first);
            hand_out_list(memory, out, capacity, iter::once(field))
        }
        Some(found) => hand_out_list(memory, out, capacity, headers.of(found)),
        None => hand_out(memory, out, capacity, &[]),
    }
}

/// Hands out fields as the ABI's header list: its length, and the list itself where it fits into `capacity`.
pub(super) fn hand_out_list<'a>(
    memory: &mut [u8],
    out: u32,
    capacity: u32,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<i32> {
    let mut len = 0;
    for (name, value) in fields.clone() {
        len += header_list::record_bytes(name, value);
    }
    let Ok(len) = i32::try_from(len) else {
        bail!("a header list of {len} bytes is too long to hand out")
    };
    if len.unsigned_abs() <= capacity {
        let mut room = bytes_mut(memory, out, len.unsigned_abs())?;
        for (name, value) in fields {
            // Heads are bounded far below what a record has room for.
            let Some(head) = header_list::record_head(name, value) else {
                bail!("a header is too long to hand out")
            };
            for part in [&head, name, value] {
                room.split_off_mut(..part.len())
                    .expect("the room is as long as all records")
                    .copy_from_slice(part);
            }
        }
    }
    Ok(len)
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
    let Guest {
        exchange,
        hook,
        key,
        most_of_head,
        report,
        ..
    } = guest;
    let Writable {
        headers,
        usage,
        part,
    } = writable(exchange, *hook, map)?;
    let there = headers.find(name);
    let known = there.and_then(|there| headers.known_at(there.first));
    let goes = match there {
        // A second Host would make the request ambiguous (RFC 9112 §3.2).
        Some(there) if how == How::Set || known == Some(KnownHeader::Host) => {
            extent_of(there, name)
        }
        _ => Size::default(),
    };
    // Before it is looked at or copied: it may be all of the guest's memory.
    let comes = Size::of(name, value);
    let room = Allowance::of_head(part, *most_of_head);
    let added = usage.of(*key, part);
    if !room.admits(comes) {
        let alone = Usage::default().after(comes, Size::default());
        return Err(refused_by(room.reached(alone), report));
    }
    let Some(after) = room.after(*added, comes, goes) else {
        let after = added.after(comes, goes);
        return Err(refused_by(room.reached(after), report));
    };
    match there {
        None => {
            let name = checked(name, value).ok_or(Status::BadArgument)?;
            headers.add(name, value);
        }
        // A name that is there is well formed.
        Some(_) if !may_be_set(known, value) => return Err(Status::BadArgument),
        Some(there) if goes.count > 0 => headers.replace(there, value),
        Some(there) => headers.add_like(there, value),
    }
    *added = after;
    Ok(())
}

#[cold]
fn refused_by(limit: Reached, said: &mut Option<Box<CallReport>>) -> Status {
    said.get_or_insert_default().reached = Some(limit);
    Status::Limit
}

fn extent_of(there: Occurrences, name: &[u8]) -> Size {
    Size {
        count: there.count,
        bytes: there.count * name.len() + there.value_bytes,
    }
}

/// The headers of a list, for a head that the plugin makes itself.
pub(super) fn decode(guest: &mut Guest, list: &[u8], part: Section) -> Result<Headers, Status> {
    let mut headers = Headers::new();
    let mut made = Size::default();
    for record in header_list::records(list) {
        let (name, value) = record.map_err(|()| Status::BadArgument)?;
        made = [made, Size::of(name, value)].into_iter().sum();
        guest.make(part, made)?;
        let name = checked(name, value).ok_or(Status::BadArgument)?;
        match name.known() {
            Some(KnownHeader::Host) => headers.set(name, value),
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
    let Writable {
        headers,
        usage,
        part,
    } = match writable(&mut guest.exchange, guest.hook, map) {
        Ok(writable) => writable,
        Err(status) => return refuse(status),
    };
    let Some(checked) = FieldName::new(name).filter(|name| name.known() != Some(KnownHeader::Host))
    else {
        return refuse(Status::BadArgument);
    };
    let Some(there) = headers.find(name) else {
        return Ok(0);
    };
    headers.remove(checked);
    let added = usage.of(guest.key, part);
    *added = added.after(Size::default(), extent_of(there, name));
    Ok(i32::try_from(there.count).unwrap_or(i32::MAX))
}

/// The name, where a plugin may set it to this: well formed, and not about framing, which is the host's business.
fn checked<'a>(name: &'a [u8], value: &[u8]) -> Option<FieldName<'a>> {
    let name = FieldName::new(name)?;
    may_be_set(name.known(), value).then_some(name)
}

/// Finds a field by a name that is known to be well formed.
fn may_be_set(name: Option<KnownHeader>, value: &[u8]) -> bool {
    match name {
        // RFC 9112 §3.2: what is no host there is answered 400.
        Some(KnownHeader::Host) => is_valid_host(value),
        Some(name) if name.is_framing() => false,
        _ => is_valid_value(value),
    }
}

fn readable(guest: &Guest, map: u32) -> Result<&Headers, Status> {
    let map = HeaderMap::from_raw(map).ok_or(Status::BadArgument)?;
    if !guest.is_at(rules::reads(map)) {
        return Err(rules::HEADER_GET.refused);
    }
    Ok(match map {
        HeaderMap::Request => &guest.exchange.request().headers,
        HeaderMap::Response => &guest.exchange.reply().headers,
        HeaderMap::Trailers => &guest.exchange.body().trailers,
    })
}

/// Headers that may be changed, and what is counted of that.
struct Writable<'a> {
    headers: &'a mut Headers,
    usage: &'a mut PluginUsage,
    part: Section,
}

fn writable(exchange: &mut Exchange, hook: Option<Hook>, map: u32) -> Result<Writable<'_>, Status> {
    let map = HeaderMap::from_raw(map).ok_or(Status::BadArgument)?;
    if !rules::changes(map).allows(hook, exchange.stage()) {
        return Err(rules::HEADER_SET.refused);
    }
    let part = match map {
        HeaderMap::Request => Section::RequestHead,
        HeaderMap::Response => Section::ReplyHead,
        HeaderMap::Trailers => return Err(Status::NotNow),
    };
    let (headers, context) = exchange.guest_headers_mut(part).ok_or(Status::NotNow)?;
    Ok(Writable {
        headers,
        usage: &mut context.usage,
        part,
    })
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
    fn a_list_is_written_only_where_it_fits() {
        let fields: [(&[u8], &[u8]); 2] = [(b"a", b"12"), (b"b-c", b"")];
        let list = b"\x01\0\x02\0\0\0a12\x03\0\0\0\0\0b-c";
        let mut memory = [0; 19];
        for (out, capacity) in [(1, 18), (0, 19), (1, 200)] {
            memory.fill(0);
            let len = hand_out_list(&mut memory, out, capacity, fields.into_iter()).unwrap();
            assert_eq!(len, 18);
            assert_eq!(&memory[out as usize..][..18], list);
        }
        memory.fill(0);
        let len = hand_out_list(&mut memory, 0, 17, fields.into_iter()).unwrap();
        assert_eq!((len, memory), (18, [0; 19]));
        assert!(hand_out_list(&mut memory, 2, 18, fields.into_iter()).is_err());
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
