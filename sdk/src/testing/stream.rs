//! Responses that a hook writes piece by piece.

use castling_abi::{BODY_UNWANTED, Hook, LENGTH_UNKNOWN, Property, Status, header_list};

use super::hook::{check_answer, running};
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
    let in_content = matches!(running(), None | Some(Hook::Content));
    let is_known = length != LENGTH_UNKNOWN;
    if !in_content || with_facts(|facts| facts.response.is_some()) {
        return Status::NotNow as i32;
    }
    if let Some(refused) = check_answer(status, headers, &[]) {
        return refused as i32;
    }
    if is_known && length < 0 {
        return Status::BadArgument as i32;
    }
    with_facts(|facts| {
        let is_head = facts.properties[Property::Method as usize].as_deref() == Some(b"HEAD");
        let stream = StreamedBody {
            left: is_known.then_some(length.unsigned_abs()),
            is_wanted: !is_head && !matches!(status, 204 | 304) && facts.wanted_pieces != Some(0),
            ..StreamedBody::default()
        };
        let is_wanted = stream.is_wanted;
        facts.response = Some((status, section(headers)));
        facts.stream = Some(stream);
        wanted(is_wanted)
    })
}

pub(crate) fn response_write(piece: &[u8]) -> i32 {
    if piece.len() > with_world(|world| world.body_limit_bytes) {
        return Status::Limit as i32;
    }
    with_stream(|stream, facts| {
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
        wanted(stream.is_wanted)
    })
}

/// A part of what a chunk becomes.
pub(crate) fn chunk_emit(part: &[u8]) -> i32 {
    if !matches!(
        running(),
        None | Some(Hook::RequestBody | Hook::ResponseBody)
    ) {
        return Status::NotNow as i32;
    }
    let (part_limit, limit) = with_world(|world| (world.body_limit_bytes, world.emit_limit_bytes));
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
        wanted(is_wanted)
    })
}

pub(crate) fn response_trailers(fields: &[u8]) -> i32 {
    if let Some(refused) = check_answer(200, fields, &[]) {
        return refused as i32;
    }
    with_stream(|stream, _| {
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

fn with_stream(use_it: impl FnOnce(&mut StreamedBody, &Facts) -> i32) -> i32 {
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
