//! Log, errors, config, clocks and chance of this thread.

use std::time::Duration;

use castling_abi::{ErrorKind, LONGEST_DELAY_MS, LogLevel, Status, header_list, rules};

use super::hook::may;
use super::world::with_world;

pub(super) fn log(level: LogLevel, text: &[u8]) {
    let line = String::from_utf8_lossy(text).into_owned();
    with_world(|world| world.log_lines.push((level, line)));
}

/// Prints an event as a log of text has it.
pub(super) fn log_fields(level: LogLevel, text: &[u8], fields: &[u8]) {
    let mut line = String::from_utf8_lossy(text).into_owned();
    for (key, value) in header_list::records(fields).map_while(Result::ok) {
        let [key, value] = [key, value].map(String::from_utf8_lossy);
        let is_plain = !value.is_empty()
            && value
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\'));
        line += &match is_plain {
            true => format!(" {key}={value}"),
            false => format!(" {key}={value:?}"),
        };
    }
    log(level, line.as_bytes());
}

pub(super) fn fail_with(kind: ErrorKind, text: &[u8]) {
    let text = String::from_utf8_lossy(text).into_owned();
    with_world(|world| {
        world.failure = Some(text);
        world.failure_kind = kind;
    });
}

pub(super) fn config_get(out: &mut [u8]) -> i32 {
    with_world(|world| super::host::hand_out(world.config.as_bytes(), out))
}

pub(super) fn random_get(out: &mut [u8]) {
    with_world(|world| {
        for word in out.chunks_mut(8) {
            word.copy_from_slice(&world.next_random().to_le_bytes()[..word.len()]);
        }
    });
}

pub(super) fn clock_monotonic() -> i64 {
    with_world(|world| i64::try_from(world.monotonic.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) fn clock_wall() -> i64 {
    with_world(|world| i64::try_from(world.wall.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) fn delay(milliseconds: u32) -> i32 {
    if !may(&rules::DELAY) {
        return rules::DELAY.refused as i32;
    }
    if milliseconds > LONGEST_DELAY_MS {
        return Status::BadArgument as i32;
    }
    super::advance_clock(Duration::from_millis(milliseconds.into()));
    0
}
