//! Responses that a hook writes piece by piece.

use castling_abi::rules::{self, check};
use castling_abi::{BODY_UNWANTED, LENGTH_UNKNOWN, Property, Status, header_list};

use super::hook::{check_answer, check_fields, may};
use super::trace::begin_piece;
use super::world::{Facts, Section, with_facts, with_world};

/// Body of a streamed response, as far as a hook has written it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamedBody {
    pieces: Vec<Vec<u8>>,
    trailers: Section,
    /// Bytes that are still to come, where the length is told.
    left: Option<u64>,
    is_wanted: bool,
    is_finished: bool,
}

impl StreamedBody {
    /// The pieces that were taken, in the order in which they were written.
    pub fn pieces(&self) -> &[Vec<u8>] {
        &self.pieces
    }

    /// The pieces together.
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// The first value of a trailer; `None` when there is no such trailer.
    pub fn trailer(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.trailers.iter();
        let field = fields.find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_slice())
    }

    /// Whether the hook has returned that it is whole: [`BodyWriter::finish`](crate::BodyWriter::finish).
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }
}

pub(crate) fn response_begin(status: u16, headers: &[u8], length: i64) -> i32 {
    let is_known = length != LENGTH_UNKNOWN;
    if !may(&rules::RESPONSE_BEGIN) || with_facts(|facts| facts.response.is_some()) {
        return rules::RESPONSE_BEGIN.refused as i32;
    }
    if is_known && length < 0 {
        return Status::BadArgument as i32;
    }
    if let Some(refused) = check_answer(status, headers, &[]) {
        return refused as i32;
    }
    with_facts(|facts| {
        let is_head = facts.properties[Property::Method as usize].as_deref() == Some(b"HEAD");
        let stream = StreamedBody {
            left: is_known.then_some(length.unsigned_abs()),
            is_wanted: !is_head && !matches!(status, 204 | 304) && facts.wanted_pieces != Some(0),
            ..StreamedBody::default()
        };
        let is_wanted = stream.is_wanted;
        // An answer that the hook has made before is given up.
        facts.answer = None;
        facts.response = Some((status, section(headers)));
        facts.stream = Some(stream);
        wanted(is_wanted)
    })
}

pub(crate) fn response_write(piece: &[u8]) -> i32 {
    if !may(&rules::RESPONSE_WRITE) {
        return rules::RESPONSE_WRITE.refused as i32;
    }
    let limit = with_world(|world| world.limits.body_bytes);
    with_stream(|stream, facts| {
        if piece.len() > limit {
            return Status::Limit as i32;
        }
        if !stream.is_wanted || piece.is_empty() {
            return wanted(stream.is_wanted);
        }
        if let Some(left) = &mut stream.left {
            match left.checked_sub(piece.len() as u64) {
                Some(after) => *left = after,
                None => return Status::BadArgument as i32,
            }
        }
        stream.pieces.push(piece.to_vec());
        stream.is_wanted = facts
            .wanted_pieces
            .is_none_or(|most| stream.pieces.len() < most);
        if stream.is_wanted {
            begin_piece();
            // A stream may ask upstreams for each of its pieces.
            facts.calls_made = 0;
        }
        wanted(stream.is_wanted)
    })
}

/// A part of what a chunk becomes.
pub(crate) fn chunk_emit(part: &[u8]) -> i32 {
    if !may(&rules::CHUNK_EMIT) {
        return rules::CHUNK_EMIT.refused as i32;
    }
    let (part_limit, limit) =
        with_world(|world| (world.limits.body_bytes, world.limits.emit_bytes));
    with_facts(|facts| {
        let emitted: usize = facts.emitted.iter().map(Vec::len).sum();
        if part.len() > part_limit || emitted + part.len() > limit {
            return Status::Limit as i32;
        }
        if part.is_empty() {
            return 0;
        }
        let most = facts.wanted_pieces.unwrap_or(usize::MAX);
        if facts.emitted.len() < most {
            facts.emitted.push(part.to_vec());
        }
        let is_wanted = facts.emitted.len() < most;
        facts.body_ended |= !is_wanted;
        if is_wanted {
            begin_piece();
        }
        wanted(is_wanted)
    })
}

pub(crate) fn response_trailers(fields: &[u8]) -> i32 {
    if !may(&rules::RESPONSE_TRAILERS) {
        return rules::RESPONSE_TRAILERS.refused as i32;
    }
    with_stream(|stream, _| {
        if let Err(refused) = check_fields(fields) {
            return refused as i32;
        }
        let mut names = header_list::records(fields).map_while(Result::ok);
        if !names.all(|(name, _)| check::may_be_trailer(name)) {
            return Status::BadArgument as i32;
        }
        stream.trailers = section(fields);
        0
    })
}

/// The hook returns that the response is whole. `Some`: so many bytes are missing of the length that it has told.
pub(super) fn finish() -> Option<u64> {
    with_facts(|facts| {
        let stream = facts.stream.as_mut()?;
        stream.is_finished = true;
        stream.left.filter(|left| stream.is_wanted && *left > 0)
    })
}

/// Whether a hook has begun a response.
pub(super) fn is_begun() -> bool {
    with_facts(|facts| facts.stream.is_some())
}

fn with_stream(use_it: impl FnOnce(&mut StreamedBody, &mut Facts) -> i32) -> i32 {
    with_facts(|facts| {
        let Some(mut stream) = facts.stream.take() else {
            return Status::NotNow as i32;
        };
        let result = use_it(&mut stream, facts);
        facts.stream = Some(stream);
        result
    })
}

fn wanted(is_wanted: bool) -> i32 {
    match is_wanted {
        true => 0,
        false => BODY_UNWANTED,
    }
}

fn section(list: &[u8]) -> Section {
    let records = header_list::records(list).map_while(Result::ok);
    let field = |(name, value): (&[u8], &[u8])| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        (name, value.to_vec())
    };
    records.map(field).collect()
}
