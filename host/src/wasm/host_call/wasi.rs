//! Functions of WASI preview 1 that a module built for `wasm32-wasip1` finds: standard output and error, which are lines of the
//! plugin's log, clocks, random bytes, and what a standard library asks at its start. There are no arguments, no environment, no files
//! and nothing to wait for; a module that imports anything else is refused when it is loaded.
//!
//! Numbers and layouts: WebAssembly/WASI, `legacy/preview1/docs.md`. As with the gateway's own functions, a pointer outside of the guest's memory
//! traps, and what draws random bytes or reads a clock in `configure` is done for each instance ([`super::super::snapshot`]).

use wasmtime::{Caller, Linker, Result, bail};

use super::system;
use crate::wasm::guest::{Guest, bytes, bytes_mut, split};
use crate::wasm::output::{self, Output};

/// Name of the import module of WASI preview 1.
pub const MODULE: &str = "wasi_snapshot_preview1";

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(MODULE, "args_get", no_list)?
        .func_wrap(MODULE, "args_sizes_get", no_sizes)?
        .func_wrap(MODULE, "clock_res_get", clock_res_get)?
        .func_wrap(MODULE, "clock_time_get", clock_time_get)?
        .func_wrap(MODULE, "environ_get", no_list)?
        .func_wrap(MODULE, "environ_sizes_get", no_sizes)?
        .func_wrap(MODULE, "fd_close", fd_close)?
        .func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?
        .func_wrap(MODULE, "fd_prestat_dir_name", fd_prestat_dir_name)?
        .func_wrap(MODULE, "fd_prestat_get", fd_prestat_get)?
        .func_wrap(MODULE, "fd_seek", fd_seek)?
        .func_wrap(MODULE, "fd_write", fd_write)?
        .func_wrap(MODULE, "proc_exit", proc_exit)?
        .func_wrap(MODULE, "random_get", random_get)?
        .func_wrap(MODULE, "sched_yield", sched_yield)?;
    Ok(())
}

/// Names and types of the functions, as [`castling_abi::rules`] has those of the gateway's own.
pub const SIGNATURES: &[(&str, &str)] = &[
    ("args_get", "(i32, i32) -> i32"),
    ("args_sizes_get", "(i32, i32) -> i32"),
    ("clock_res_get", "(i32, i32) -> i32"),
    ("clock_time_get", "(i32, i64, i32) -> i32"),
    ("environ_get", "(i32, i32) -> i32"),
    ("environ_sizes_get", "(i32, i32) -> i32"),
    ("fd_close", "(i32) -> i32"),
    ("fd_fdstat_get", "(i32, i32) -> i32"),
    ("fd_prestat_dir_name", "(i32, i32, i32) -> i32"),
    ("fd_prestat_get", "(i32, i32) -> i32"),
    ("fd_seek", "(i32, i64, i32, i32) -> i32"),
    ("fd_write", "(i32, i32, i32, i32) -> i32"),
    ("proc_exit", "(i32)"),
    ("random_get", "(i32, i32) -> i32"),
    ("sched_yield", "() -> i32"),
];

/// What a plugin has in the place of a function of WASI that is not offered.
pub(in crate::wasm) fn instead_of(name: &str) -> &'static str {
    match name {
        "poll_oneoff" => "`castling_sdk::delay` waits",
        name if name.starts_with("sock_") => {
            "`castling_sdk::http` and `tcp` reach what the config grants"
        }
        name if name.starts_with("path_") || name.starts_with("fd_") => {
            "`castling_sdk::files` reads files that the config grants"
        }
        _ => "it offers clocks, random bytes and standard output",
    }
}

/// An `errno`.
#[derive(Clone, Copy, Debug)]
enum Errno {
    Success = 0,
    /// No such descriptor.
    BadDescriptor = 8,
    InvalidArgument = 28,
    /// A pipe, in which nobody can seek.
    Pipe = 70,
}

const fn errno(errno: Errno) -> Result<i32> {
    Ok(errno as i32)
}

/// Most bytes that one call takes. It may take fewer than it is given, and the guest writes the rest by another call, as to a pipe: no
/// call keeps a worker for long.
const MOST_WRITTEN_BYTES: usize = 16 * 1024;

/// Most pieces that one call looks at; IOV_MAX of Linux.
const MOST_PIECES: u32 = 1024;

/// Bytes of an `iovec`: pointer and length.
const PIECE_BYTES: usize = 8;

fn fd_write(
    mut caller: Caller<'_, Guest>,
    fd: u32,
    pieces: u32,
    pieces_len: u32,
    written_out: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(output) = Output::of_descriptor(fd) else {
        return errno(Errno::BadDescriptor);
    };
    let Some(list_bytes) = pieces_len.checked_mul(PIECE_BYTES as u32) else {
        bail!("the plugin passed {pieces_len} pieces at {pieces:#x}, outside of its memory")
    };
    // A line that the log's level leaves out costs neither text nor budget; the pointers are checked all the same.
    let is_written = output::is_written(output.level());
    if !is_written {
        guest.note_repeatable();
    }
    let mut written = 0;
    let (list, _) = bytes(memory, pieces, list_bytes)?.as_chunks::<PIECE_BYTES>();
    for piece in list.iter().take(MOST_PIECES as usize) {
        let [ptr, len] = [u32_at(piece, 0), u32_at(piece, 4)];
        let piece = bytes(memory, ptr, len)?;
        let taken = &piece[..piece.len().min(MOST_WRITTEN_BYTES - written)];
        if is_written {
            guest.write_out(output, taken);
        }
        written += taken.len();
        if taken.len() < piece.len() {
            break;
        }
    }
    put(memory, written_out, &(written as u32).to_le_bytes())
}

fn u32_at(piece: &[u8; PIECE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([piece[at], piece[at + 1], piece[at + 2], piece[at + 3]])
}

impl Guest {
    /// Logs the lines that end in `text`, and keeps what follows them until its line ends, or the call does.
    fn write_out(&mut self, output: Output, mut text: &[u8]) {
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&text[..end], &text[end + 1..]);
            let begun = self.results.as_mut().map(|results| &mut results.lines);
            match begun.and_then(|lines| lines.take(output)) {
                Some(mut begun) => {
                    output::append(&mut begun, line);
                    output::log_line(&self.plugin, &self.log_lines, output, &begun);
                }
                None => output::log_line(&self.plugin, &self.log_lines, output, line),
            }
            text = rest;
        }
        if !text.is_empty() {
            self.results_mut().lines.begin(output, text);
        }
    }
}

/// Writes to the guest's memory, for a call that has succeeded.
fn put(memory: &mut [u8], out: u32, value: &[u8]) -> Result<i32> {
    bytes_mut(memory, out, value.len() as u32)?.copy_from_slice(value);
    errno(Errno::Success)
}

/// `args_sizes_get` and `environ_sizes_get`: none, and no bytes.
fn no_sizes(mut caller: Caller<'_, Guest>, count_out: u32, bytes_out: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    guest.note_repeatable();
    put(memory, count_out, &[0; 4])?;
    put(memory, bytes_out, &[0; 4])
}

/// `args_get` and `environ_get`: there is nothing to write.
fn no_list(mut caller: Caller<'_, Guest>, _pointers_out: u32, _bytes_out: u32) -> Result<i32> {
    repeatable(&mut caller, Errno::Success)
}

/// Answers a call that asks for no more than this, every time the same.
fn repeatable(caller: &mut Caller<'_, Guest>, answer: Errno) -> Result<i32> {
    let guest = caller.data_mut();
    guest.count_host_call()?;
    guest.note_repeatable();
    errno(answer)
}

/// Nothing is open but standard output and error, which cannot be closed.
fn fd_close(mut caller: Caller<'_, Guest>, _fd: u32) -> Result<i32> {
    repeatable(&mut caller, Errno::BadDescriptor)
}

/// No folders were opened before.
fn fd_prestat_get(mut caller: Caller<'_, Guest>, _fd: u32, _out: u32) -> Result<i32> {
    repeatable(&mut caller, Errno::BadDescriptor)
}

fn fd_prestat_dir_name(
    mut caller: Caller<'_, Guest>,
    _fd: u32,
    _out: u32,
    _capacity: u32,
) -> Result<i32> {
    repeatable(&mut caller, Errno::BadDescriptor)
}

fn fd_seek(
    mut caller: Caller<'_, Guest>,
    fd: u32,
    _offset: i64,
    _whence: u32,
    _out: u32,
) -> Result<i32> {
    let answer = match Output::of_descriptor(fd) {
        Some(_) => Errno::Pipe,
        None => Errno::BadDescriptor,
    };
    repeatable(&mut caller, answer)
}

/// Says of standard output and error that they are a terminal's, to which a C library writes line by line.
fn fd_fdstat_get(mut caller: Caller<'_, Guest>, fd: u32, out: u32) -> Result<i32> {
    const CHARACTER_DEVICE: u8 = 2;
    const MAY_WRITE: u64 = 1 << 6;
    let (memory, guest) = split(&mut caller)?;
    guest.note_repeatable();
    if Output::of_descriptor(fd).is_none() {
        return errno(Errno::BadDescriptor);
    }
    // Type, a byte that pads, 2 of flags, 4 that pad; rights, and those of what is opened by it.
    let mut stat = [0; 24];
    stat[0] = CHARACTER_DEVICE;
    stat[8..16].copy_from_slice(&MAY_WRITE.to_le_bytes());
    put(memory, out, &stat)
}

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

fn clock_time_get(
    mut caller: Caller<'_, Guest>,
    clock: u32,
    _precision: i64,
    out: u32,
) -> Result<i32> {
    let (memory, _) = split(&mut caller)?;
    let nanoseconds = match clock {
        REALTIME => system::wall_ns(),
        MONOTONIC => system::monotonic_ns(),
        _ => return errno(Errno::InvalidArgument),
    };
    put(memory, out, &nanoseconds.to_le_bytes())
}

/// A nanosecond, as both clocks tell them.
fn clock_res_get(mut caller: Caller<'_, Guest>, clock: u32, out: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    guest.note_repeatable();
    match clock {
        REALTIME | MONOTONIC => put(memory, out, &1_u64.to_le_bytes()),
        _ => errno(Errno::InvalidArgument),
    }
}

/// Most random bytes of one call; more is an error of the guest's, which has no partial answer here.
const MOST_RANDOM_BYTES: u32 = 64 * 1024;

fn random_get(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, _) = split(&mut caller)?;
    let room = bytes_mut(memory, ptr, len)?;
    if len > MOST_RANDOM_BYTES {
        return errno(Errno::InvalidArgument);
    }
    system::fill_random(room)?;
    errno(Errno::Success)
}

fn sched_yield(mut caller: Caller<'_, Guest>) -> Result<i32> {
    repeatable(&mut caller, Errno::Success)
}

fn proc_exit(mut caller: Caller<'_, Guest>, code: u32) -> Result<()> {
    caller.data_mut().count_host_call()?;
    bail!("it ended itself by proc_exit({code}); a plugin returns from its hooks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_there_is_instead() {
        for (name, word) in [
            ("path_open", "files"),
            ("fd_read", "files"),
            ("sock_accept", "tcp"),
            ("poll_oneoff", "delay"),
            ("proc_raise", "clocks"),
        ] {
            assert!(instead_of(name).contains(word), "{name}");
        }
    }
}
