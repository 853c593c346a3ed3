//! Bodies: chunks that pass by, and bodies that are read whole or in part.

use castling_abi::{HeaderMap, Status, rules};

use super::hook::{is_at, may};
use super::host::hand_out;
use super::world::{with_facts, with_world};

pub(super) fn chunk_get(out: &mut [u8]) -> i32 {
    if !may(&rules::CHUNK_GET) {
        return rules::CHUNK_GET.refused as i32;
    }
    with_facts(|facts| hand_out(&facts.chunk, out))
}

pub(super) fn chunk_set(data: &[u8]) -> i32 {
    if !may(&rules::CHUNK_SET) {
        return rules::CHUNK_SET.refused as i32;
    }
    if data.len() > with_world(|world| world.limits.body_bytes) {
        return Status::Limit as i32;
    }
    with_facts(|facts| facts.chunk = data.to_vec());
    0
}

pub(super) fn chunk_end() -> i32 {
    if !may(&rules::CHUNK_END) {
        return rules::CHUNK_END.refused as i32;
    }
    with_facts(|facts| facts.body_ended = true);
    0
}

pub(super) fn body_peek(bytes: usize) -> i64 {
    if !may(&rules::BODY_PEEK) {
        return rules::BODY_PEEK.refused as i64;
    }
    if bytes > with_world(|world| world.limits.body_bytes) {
        return Status::Limit as i64;
    }
    with_facts(|facts| {
        if bytes > 0 {
            facts.bodies.is_received = true;
        }
        let bodies = &mut facts.bodies;
        let seen = bodies.request.len().min(bytes);
        bodies.request_read = Some(seen);
        let is_whole = seen == bodies.request.len();
        2 * i64::try_from(seen).unwrap_or_default() + i64::from(is_whole)
    })
}

pub(super) fn body_read(map: HeaderMap, limit: usize) -> i32 {
    if map == HeaderMap::Trailers {
        return Status::BadArgument as i32;
    }
    let may_read = is_at(rules::reads_body(map));
    let limit = limit.min(with_world(|world| world.limits.body_bytes));
    with_facts(|facts| {
        let has_response = facts.response.is_some();
        if !may_read || has_response != (map == HeaderMap::Response) {
            return rules::BODY_READ.refused as i32;
        }
        if map == HeaderMap::Request {
            facts.bodies.is_received = true;
        }
        let bodies = &mut facts.bodies;
        let (body, read) = match map {
            HeaderMap::Response => (&bodies.response, &mut bodies.response_read),
            HeaderMap::Request | HeaderMap::Trailers => (&bodies.request, &mut bodies.request_read),
        };
        if body.len() > limit {
            return Status::Limit as i32;
        }
        *read = Some(body.len());
        i32::try_from(body.len()).unwrap_or(Status::Limit as i32)
    })
}

pub(super) fn body_get(map: HeaderMap, out: &mut [u8]) -> i32 {
    with_facts(|facts| {
        let bodies = &facts.bodies;
        let (body, read) = match map {
            HeaderMap::Request => (&bodies.request, bodies.request_read),
            HeaderMap::Response => (&bodies.response, bodies.response_read),
            HeaderMap::Trailers => return Status::BadArgument as i32,
        };
        match read {
            Some(bytes) => hand_out(&body[..bytes], out),
            None => Status::NotFound as i32,
        }
    })
}
