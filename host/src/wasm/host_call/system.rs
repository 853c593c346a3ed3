//! Host calls beside the exchange: log, errors, config, clocks, random.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use castling_abi::rules::limits::RANDOM_BYTES;
use castling_abi::{ErrorKind, IMPORT_MODULE, LogLevel, header_list, imports};
use serde_json::Value as Json;
use tracing::{debug, error, info, trace, warn};
use wasmtime::{Caller, Linker, Result, bail};

use crate::wasm::guest::{Guest, bytes, bytes_mut, hand_out, split, text};
use crate::wasm::module_text;
use crate::wasm::output::{is_written, write_line};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::LOG, log)?
        .func_wrap(IMPORT_MODULE, imports::LOG_FIELDS, log_fields)?
        .func_wrap(IMPORT_MODULE, imports::FAIL, fail)?
        .func_wrap(IMPORT_MODULE, imports::FAIL_WITH, fail_with)?
        .func_wrap(IMPORT_MODULE, imports::PANICKED, panicked)?
        .func_wrap(IMPORT_MODULE, imports::CONFIG_GET, config_get)?
        .func_wrap(IMPORT_MODULE, imports::RANDOM_GET, random_get)?
        .func_wrap(IMPORT_MODULE, imports::CLOCK_MONOTONIC, clock_monotonic)?
        .func_wrap(IMPORT_MODULE, imports::CLOCK_WALL, clock_wall)?;
    Ok(())
}

fn log(mut caller: Caller<'_, Guest>, level: u32, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = split(&mut caller)?;
    let Some(level) = LogLevel::from_raw(level) else {
        bail!("the plugin logged at level {level}, which there is not")
    };
    // A line that the log's level leaves out costs no text and none of the budget; the pointer is checked all the same.
    let line = bytes(memory, ptr, len)?;
    if !is_written(level) {
        guest.note_repeatable();
        return Ok(());
    }
    if !guest.log_lines.admits() {
        return Ok(());
    }
    write_line(&guest.plugin, level, line);
    Ok(())
}

fn log_fields(
    mut caller: Caller<'_, Guest>,
    level: u32,
    ptr: u32,
    len: u32,
    fields_ptr: u32,
    fields_len: u32,
) -> Result<()> {
    let (memory, guest) = split(&mut caller)?;
    let Some(level) = LogLevel::from_raw(level) else {
        bail!("the plugin logged at level {level}, which there is not")
    };
    let line = bytes(memory, ptr, len)?;
    let fields = bytes(memory, fields_ptr, fields_len)?;
    if !is_written(level) {
        guest.note_repeatable();
        return Ok(());
    }
    if !guest.log_lines.admits() {
        return Ok(());
    }
    let (plugin, text, plugin_fields) = (&*guest.plugin, module_text::bytes(line), json(fields));
    match level {
        LogLevel::Error => error!(plugin, %plugin_fields, "{text}"),
        LogLevel::Warn => warn!(plugin, %plugin_fields, "{text}"),
        LogLevel::Info => info!(plugin, %plugin_fields, "{text}"),
        LogLevel::Debug => debug!(plugin, %plugin_fields, "{text}"),
        LogLevel::Trace => trace!(plugin, %plugin_fields, "{text}"),
    }
    Ok(())
}

/// The name of the field of an event that has a plugin's own fields, as a JSON object.
pub const PLUGIN_FIELDS: &str = "plugin_fields";

/// Fields of a plugin's line, escaped and cut as its text is. What is no field's name is left out, and so is what comes after
/// [`MAX_FIELDS_BYTES`].
fn json(records: &[u8]) -> Json {
    let records = &records[..records.len().min(MAX_FIELDS_BYTES)];
    let fields = header_list::records(records)
        .map_while(std::result::Result::ok)
        .filter_map(|(name, value)| {
            let name = str::from_utf8(name)
                .ok()
                .filter(|name| is_field_name(name))?;
            Some((name.to_owned(), Json::from(module_text::bytes(value))))
        });
    Json::Object(fields.collect())
}

fn is_field_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// Cut to the length that a line's text may have.
const MAX_FIELDS_BYTES: usize = 4096;

fn fail(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = split(&mut caller)?;
    let said = text(memory, ptr, len)?;
    let report = guest.report_mut();
    report.failure = Some(said);
    report.kind = None;
    Ok(())
}

fn fail_with(mut caller: Caller<'_, Guest>, kind: u32, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = split(&mut caller)?;
    let said = text(memory, ptr, len)?;
    let report = guest.report_mut();
    report.failure = Some(said);
    report.kind = ErrorKind::from_raw(kind);
    Ok(())
}

fn panicked(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = split(&mut caller)?;
    guest.report_mut().panic = Some(text(memory, ptr, len)?);
    Ok(())
}

fn config_get(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    guest.note_repeatable();
    hand_out(memory, out, capacity, guest.config.as_bytes())
}

fn random_get(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<()> {
    if len > RANDOM_BYTES {
        bail!("the plugin asked for {len} random bytes; at most {RANDOM_BYTES} a call");
    }
    let (memory, _) = split(&mut caller)?;
    let room = bytes_mut(memory, ptr, len)?;
    fill_random(room)
}

/// Fills the room with random bytes.
pub(super) fn fill_random(room: &mut [u8]) -> Result<()> {
    RANDOM.with_borrow_mut(|random| {
        let mut pieces = room.chunks_mut(RANDOM_BYTES as usize);
        pieces.try_for_each(|piece| random.fill(piece))
    })
}

thread_local! {
    static RANDOM: RefCell<RandomBytes> = const {
        RefCell::new(RandomBytes {
            bytes: [0; RANDOM_BYTES as usize],
            left: 0,
        })
    };
}

/// The kernel's random bytes, fetched ahead: the system call costs ten times what a plugin that draws a number takes for the
/// rest. A byte that was handed out is not kept.
struct RandomBytes {
    bytes: [u8; RANDOM_BYTES as usize],
    /// How many at the front were not handed out.
    left: usize,
}

impl RandomBytes {
    /// `room` is not larger than [`RANDOM_BYTES`].
    fn fill(&mut self, room: &mut [u8]) -> Result<()> {
        if self.left < room.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            self.left = rustix::rand::getrandom(&mut self.bytes, flags)?;
        }
        let Some(start) = self.left.checked_sub(room.len()) else {
            bail!(
                "the system's random source gave {} of {} bytes",
                self.left,
                room.len()
            );
        };
        let drawn = &mut self.bytes[start..self.left];
        room.copy_from_slice(drawn);
        drawn.fill(0);
        self.left = start;
        Ok(())
    }
}

fn clock_monotonic(mut caller: Caller<'_, Guest>) -> Result<i64> {
    caller.data_mut().count_host_call()?;
    Ok(monotonic_ns())
}

pub(super) fn monotonic_ns() -> i64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let elapsed = EPOCH.get_or_init(Instant::now).elapsed();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn clock_wall(mut caller: Caller<'_, Guest>) -> Result<i64> {
    caller.data_mut().count_host_call()?;
    Ok(wall_ns())
}

pub(super) fn wall_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_handed_out_once() {
        let mut random = RandomBytes {
            bytes: [0; RANDOM_BYTES as usize],
            left: 0,
        };
        let mut first = [0; 100];
        random.fill(&mut first).unwrap();
        assert_eq!(random.left, 156);
        assert!(random.bytes[156..].iter().all(|&byte| byte == 0));
        let mut second = [0; 100];
        random.fill(&mut second).unwrap();
        assert_ne!(first, second);
        let mut all = [0; RANDOM_BYTES as usize];
        random.fill(&mut all).unwrap();
        assert_eq!(random.left, 0);
        random.fill(&mut []).unwrap();
    }
}
