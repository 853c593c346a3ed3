//! Account of host calls: how many a hook makes, and what is written down of them.

use std::fmt::Debug;

use castling_abi::{KvExpected, Status};

use super::world::with_world;

/// A host call begins. One too many ends the hook, as a trap ends it in the gateway.
pub(super) fn begin() {
    let left = with_world(|world| {
        if world.hook.is_none() {
            return Ok(());
        }
        let left = world.host_calls_left.checked_sub(1);
        world.host_calls_left = left.unwrap_or(0);
        left.map(drop).ok_or(world.limits.host_calls)
    });
    if let Err(limit) = left {
        panic!("the hook traps in the gateway: limits.host_calls of {limit} reached");
    }
}

/// A piece of a body is sent: from here host calls count anew.
pub(super) fn begin_piece() {
    with_world(|world| world.host_calls_left = world.limits.host_calls);
}

pub(super) fn is_on() -> bool {
    with_world(|world| world.trace.is_some())
}

/// Writes a call down. One that had too little room is not: the SDK makes it again.
pub(super) fn note(name: &str, arguments: &[&dyn Shown], result: Option<i64>) {
    let mut texts = Vec::new();
    let mut said = String::new();
    for argument in arguments {
        match argument.shown(result.unwrap_or(0)) {
            Part::Argument(text) => texts.push(text),
            Part::Result(text) => said = format!("{said} {text}"),
            Part::Nothing => {}
            Part::TooLittleRoom => return,
        }
    }
    let status = result.and_then(|result| i32::try_from(result).ok());
    let told = match (status.and_then(Status::from_raw), result) {
        (Some(status), _) => format!(" = {}", status.name()),
        (None, Some(result)) => format!(" = {result}"),
        (None, None) => String::new(),
    };
    line(&format!("{name}({}){told}{said}", texts.join(", ")));
}

/// Writes a line down, with the hook that runs.
pub(super) fn line(text: &str) {
    with_world(|world| {
        let plugin = world.plugin_names.get(world.plugin);
        let plugin = plugin.map_or(String::new(), |name| format!("{name} "));
        let place = world.hook.map(|hook| format!("{plugin}{}: ", hook.name()));
        if let Some(trace) = &mut world.trace {
            trace.push(format!("{}{text}", place.unwrap_or_default()));
        }
    });
}

/// Part of a line.
pub(super) enum Part {
    Argument(String),
    Result(String),
    Nothing,
    TooLittleRoom,
}

/// An argument of a call, as a line shows it.
pub(super) trait Shown {
    fn shown(&self, result: i64) -> Part;
}

impl Shown for &[u8] {
    fn shown(&self, _: i64) -> Part {
        Part::Argument(quoted(self))
    }
}

/// Room for a result.
impl Shown for &mut [u8] {
    fn shown(&self, result: i64) -> Part {
        match usize::try_from(result) {
            Ok(len) => match self.get(..len) {
                Some(bytes) => Part::Result(quoted(bytes)),
                None => Part::TooLittleRoom,
            },
            Err(_) => Part::Nothing,
        }
    }
}

impl Shown for &mut i64 {
    fn shown(&self, result: i64) -> Part {
        match result {
            0.. => Part::Result(self.to_string()),
            _ => Part::Nothing,
        }
    }
}

impl Shown for (KvExpected, &[u8]) {
    fn shown(&self, _: i64) -> Part {
        Part::Argument(match self {
            (KvExpected::Value, value) => quoted(value),
            (expected, _) => expected.name().to_owned(),
        })
    }
}

/// Writes [`Shown`] for types whose `Debug` is what is shown.
macro_rules! shown {
    ($($ty:ty)+) => {
        $(impl Shown for $ty {
            fn shown(&self, _: i64) -> Part {
                Part::Argument(text(self))
            }
        })+
    };
}

shown! {
    u16 u32 usize i64 f64
    castling_abi::ErrorKind castling_abi::FileFact castling_abi::Grant castling_abi::HeaderMap castling_abi::LogLevel
    castling_abi::Number castling_abi::Property castling_abi::TlsFact castling_abi::Digest castling_abi::PasswordHash
    castling_abi::Signature
}

fn text(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn quoted(bytes: &[u8]) -> String {
    const MOST_BYTES: usize = 200;
    match bytes.get(..MOST_BYTES) {
        Some(first) => format!("\"{}\" of {} bytes", first.escape_ascii(), bytes.len()),
        None => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Result of a call.
pub(super) trait Told {
    fn number(self) -> Option<i64>;
}

impl Told for () {
    fn number(self) -> Option<i64> {
        None
    }
}

impl Told for i32 {
    fn number(self) -> Option<i64> {
        Some(self.into())
    }
}

impl Told for i64 {
    fn number(self) -> Option<i64> {
        Some(self)
    }
}
