//! The data that a store holds for its guest, and the guest's memory seen from the host.
//!
//! Nothing here trusts the guest: every pointer and length is checked at each use, and no borrow of its memory outlives
//! the host call that made it.

use std::sync::Arc;

use bytes::Bytes;
use castling_abi::{ErrorKind, Hook, Status};
use wasmtime::{Caller, Memory, ResourceLimiter, Result, bail};

use super::cpu::Cpu;
use super::granted_file::{FileVersion, GrantedFile};
use super::io_request::{CallFailure, CallResult, Handoff};
use super::limit::{Allowance, LineBudget, Reached};
use super::module_text;
use super::output::BegunLines;
use crate::config::{GrantedHost, PluginLimits};
use crate::exchange::{Exchange, PluginKey, Section, Size, Usage};
use crate::message::Headers;
use crate::metrics::{InstanceMetrics, PermitMetrics};
use crate::zone::Zone;

/// The host's side of one instance.
///
/// In this order: what every call and host call looks at comes first, as in [`Plugin`](super::plugin::Plugin).
#[repr(C, align(64))]
pub(super) struct Guest {
    /// Lent by the flow while a hook runs, an idle one otherwise.
    pub(super) exchange: Box<Exchange>,
    /// Found once, when the instance is made; `None` only before that.
    pub(super) memory: Option<Memory>,
    /// The hook that runs, `None` while it is configured.
    pub(super) hook: Option<Hook>,
    /// The memory has grown to three quarters of its limit.
    pub(super) is_grown: bool,
    /// How many host calls the hook may still make.
    pub(super) host_calls_left: u32,
    /// `limits.host_calls`.
    pub(super) host_calls: u32,
    pub(super) report: Option<Box<CallReport>>,
    pub(super) results: Option<Box<CallResults>>,
    /// Key of `plugin`, in the exchange's accounts.
    pub(super) key: PluginKey,
    /// Fields that it may add to a head: `headers` and `header_bytes` of `limits`, which is farther away.
    pub(super) most_of_head: Size,
    pub(super) cpu: Cpu,
    pub(super) memory_limit: MemoryLimit,
    pub(super) plugin: Arc<str>,
    pub(super) limits: Arc<PluginLimits>,
    /// The plugin's config as JSON.
    pub(super) config: Arc<str>,
    /// Where it asks for what it waits for.
    pub(super) handoff: Handoff,
    /// Upstreams that it may call.
    pub(super) upstreams: Arc<[Arc<str>]>,
    /// The guest may call the gateway's own routes.
    pub(super) own_routes: bool,
    /// Zones that it may use.
    pub(super) zones: Zones,
    /// Hosts that it may call.
    pub(super) hosts: Arc<[GrantedHost]>,
    /// Files that it may read, by name.
    pub(super) files: Files,
    /// Largest body that it may have read, bytes.
    pub(super) body_limit_bytes: usize,
    /// Calls out that a request may make.
    pub(super) calls_limit: usize,
    /// Budget of log lines of all instances of the plugin in this worker.
    pub(super) log_lines: Arc<LineBudget>,
    /// Host calls of `configure` that a snapshot makes up for, see [`super::snapshot`].
    pub(super) repeatable_calls: u32,
    /// Metrics that the guest has defined.
    pub(super) metrics: InstanceMetrics,
    /// Variables of its manifest, which its `variable` hook computes.
    pub(super) computes: Arc<[String]>,
    /// Variables that its `configure` has added to them.
    pub(super) declared: Vec<String>,
}

/// Report of a guest's call beside what it returns. Few calls have that, and it goes when the next one begins.
#[derive(Default)]
pub(super) struct CallReport {
    /// By the guest, of the error it returns.
    pub(super) failure: Option<String>,
    /// Kind of that error; `None`: the plugin's own.
    pub(super) kind: Option<ErrorKind>,
    /// By its panic hook before it trapped.
    pub(super) panic: Option<String>,
    /// The limit that a host call was refused for last.
    pub(super) reached: Option<Reached>,
    /// The limit that its memory or table was not let grow for.
    pub(super) denied: Option<Reached>,
}

/// Results that the host holds for a guest until its hook returns. Few hooks have that.
#[derive(Default)]
pub(super) struct CallResults {
    /// Bodies that were read, by [`castling_abi::HeaderMap`].
    pub(super) bodies: [Option<Bytes>; 2],
    /// Bytes that a body's filter has sent on before it returns.
    pub(super) emitted_bytes: usize,
    /// Results of its last calls out.
    pub(super) calls: Vec<CallResult>,
    /// Reason for which the last work on a connection has failed.
    pub(super) tcp_error: Option<String>,
    /// Lines that it has begun to write, and not ended.
    pub(super) lines: BegunLines,
    /// Head of the streamed response that was begun last, and its call.
    pub(super) streamed_head: Option<(u32, Headers)>,
    /// Failure of the last work on a streamed call.
    pub(super) streamed_failure: Option<CallFailure>,
    /// Versions of granted files that the hook has begun to read.
    pub(super) files: Vec<(u32, Arc<FileVersion>)>,
}

impl Guest {
    pub(super) fn report_mut(&mut self) -> &mut CallReport {
        self.report.get_or_insert_default()
    }

    pub(super) fn results_mut(&mut self) -> &mut CallResults {
        self.results.get_or_insert_default()
    }

    /// Forgets what was told of the last call, which is mostly nothing.
    #[inline]
    pub(super) fn forget_report(&mut self) {
        if self.report.is_some() {
            self.report = None;
        }
    }

    /// Forgets what is held, which is mostly nothing.
    #[inline]
    pub(super) fn forget_results(&mut self) {
        if self.results.is_some() {
            self.drop_results();
        }
    }

    /// Lines that were begun end here.
    #[inline(never)]
    fn drop_results(&mut self) {
        if let Some(results) = self.results.take() {
            results.lines.end(&self.plugin, &self.log_lines);
        }
    }
}

/// Granted zones. A plugin has one or two.
pub(super) type Zones = Arc<[GrantedZone]>;

/// A zone that the config grants to the plugin.
pub(super) struct GrantedZone {
    pub(super) name: Arc<str>,
    pub(super) zone: Arc<Zone>,
    /// Metrics of a gauge zone's permits; of another zone they are nowhere.
    pub(super) permits: PermitMetrics,
}

/// Granted files by name.
pub(super) type Files = Arc<[(Arc<str>, Arc<GrantedFile>)]>;

/// Bounds of an instance's memory and table.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryLimit {
    /// Size that the memory has been let grow to.
    pub(super) grown_to: usize,
    pub(super) bytes: usize,
    pub(super) table_elements: usize,
}

/// Growth beyond the limit fails in the guest as an allocation does, which Rust answers with an abort; `denied` tells that trap
/// from others.
impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let admitted = self.admits(desired, Reached::bytes("memory", self.memory_limit.bytes));
        // Beyond the module's own maximum it does not grow, whatever is said here.
        if admitted && maximum.is_none_or(|maximum| desired <= maximum) {
            self.memory_limit.grown_to = desired;
            self.is_grown = desired >= self.memory_limit.bytes.div_ceil(4) * 3;
        }
        Ok(admitted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let limit = Reached::count("table", self.memory_limit.table_elements);
        Ok(self.admits(desired, limit))
    }
}

impl Guest {
    fn admits(&mut self, desired: usize, limit: Reached) -> bool {
        let admitted = desired as u64 <= limit.value;
        if !admitted {
            self.report_mut().denied = Some(limit);
        }
        admitted
    }
}

impl Guest {
    /// Counts a host call against `limits.host_calls`. The error ends the hook.
    #[inline]
    pub(super) fn count_host_call(&mut self) -> Result<()> {
        match self.host_calls_left.checked_sub(1) {
            Some(left) => {
                self.host_calls_left = left;
                Ok(())
            }
            None => Err(self.no_host_calls_left()),
        }
    }

    /// A piece of a body is sent: from here `limits.host_calls` and `limits.cpu` count anew, as they do from one chunk to the
    /// next where a hook is called for each. `limits.request_cpu` goes on.
    pub(super) fn begin_piece(&mut self) {
        self.host_calls_left = self.host_calls;
        self.cpu.begin_piece();
    }

    #[cold]
    fn no_host_calls_left(&self) -> wasmtime::Error {
        Reached::count("host_calls", self.limits.host_calls as usize).into()
    }

    /// Refuses a host call because of a limit, which the hook's failure will name.
    #[cold]
    pub(super) fn limit(&mut self, reached: Reached) -> Status {
        self.report_mut().reached = Some(reached);
        Status::Limit
    }

    /// Counts what the plugin adds to a part of the exchange in the place of something else. Beyond its limits nothing
    /// is counted, and it must not be added.
    pub(super) fn add(&mut self, part: Section, comes: Size, goes: Size) -> Result<(), Status> {
        let room = Allowance::of(&self.limits, part);
        let added = self.exchange.context_mut().usage.of(self.key, part);
        match room.after(*added, comes, goes) {
            Some(after) => {
                *added = after;
                Ok(())
            }
            None => {
                let after = added.after(comes, goes);
                Err(self.limit(room.reached(after)))
            }
        }
    }

    /// Whether the plugin may make something of this extent that is all its own, such as the head of a call out.
    pub(super) fn make(&mut self, part: Section, made: Size) -> Result<(), Status> {
        let room = Allowance::of(&self.limits, part);
        match room.admits(made) {
            true => Ok(()),
            false => Err(self.limit(room.reached(Usage::default().after(made, Size::default())))),
        }
    }
}

/// The guest's memory and the host's data, borrowed for one host call, which it counts.
#[inline]
pub(super) fn split<'a>(
    caller: &'a mut Caller<'_, Guest>,
) -> Result<(&'a mut [u8], &'a mut Guest)> {
    let Some(memory) = caller.data().memory else {
        bail!("a host call before the instance was ready")
    };
    let (memory, guest) = memory.data_and_store_mut(caller);
    guest.count_host_call()?;
    Ok((memory, guest))
}

/// The bytes that the guest names. Outside of its memory: a trap.
pub(super) fn bytes(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    let range = range(ptr, len);
    match memory.get(range) {
        Some(bytes) => Ok(bytes),
        None => bail!("the plugin passed {len} bytes at {ptr:#x}, outside of its memory"),
    }
}

/// The room that the guest names. Outside of its memory: a trap.
pub(super) fn bytes_mut(memory: &mut [u8], ptr: u32, len: u32) -> Result<&mut [u8]> {
    let range = range(ptr, len);
    match memory.get_mut(range) {
        Some(bytes) => Ok(bytes),
        None => bail!("the plugin passed room for {len} bytes at {ptr:#x}, outside of its memory"),
    }
}

/// Hands out `value`: its length, and the bytes themselves where they fit into `capacity`.
pub(super) fn hand_out(memory: &mut [u8], out: u32, capacity: u32, value: &[u8]) -> Result<i32> {
    let Ok(len) = i32::try_from(value.len()) else {
        bail!("a value of {} bytes is too long to hand out", value.len())
    };
    if len.unsigned_abs() <= capacity {
        bytes_mut(memory, out, len.unsigned_abs())?.copy_from_slice(value);
    }
    Ok(len)
}

/// Text for a log line or an error, as far as it is UTF-8 and cut and escaped ([`module_text`]).
pub(super) fn text(memory: &[u8], ptr: u32, len: u32) -> Result<String> {
    Ok(module_text::bytes(bytes(memory, ptr, len)?))
}

/// Makes a range of `usize`, where no sum of two `u32` overflows.
fn range(ptr: u32, len: u32) -> std::ops::Range<usize> {
    let start = ptr as usize;
    start..start + len as usize
}

const _: () = assert!(
    usize::BITS == 64,
    "the range of a guest's pointer and length is computed without overflow"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_outside_are_refused_without_overflow() {
        let mut memory = [0_u8; 16];
        assert!(bytes(&memory, 0, 16).is_ok());
        assert!(bytes(&memory, 16, 0).is_ok());
        assert!(bytes(&memory, 1, 16).is_err());
        assert!(bytes(&memory, u32::MAX, u32::MAX).is_err());
        assert!(bytes_mut(&mut memory, 17, 0).is_err());
    }

    #[test]
    fn a_value_is_written_only_where_it_fits() {
        let mut memory = [0_u8; 4];
        assert_eq!(hand_out(&mut memory, 0, 2, b"abc").unwrap(), 3);
        assert_eq!(memory, [0; 4]);
        assert_eq!(hand_out(&mut memory, 1, 3, b"abc").unwrap(), 3);
        assert_eq!(&memory, b"\0abc");
        assert!(hand_out(&mut memory, 2, 3, b"abc").is_err());
    }

    #[test]
    fn text_stays_on_its_line() {
        let said = b"a\r\n2026-01-01 ERROR forged\x1b[31m";
        assert_eq!(
            text(said, 0, said.len() as u32).unwrap(),
            "a\\r\\n2026-01-01 ERROR forged\\u{1b}[31m"
        );
    }

    #[test]
    fn long_text_is_cut() {
        let memory = vec![b'x'; module_text::MAX_TEXT_BYTES + 1];
        assert!(
            text(&memory, 0, module_text::MAX_TEXT_BYTES as u32 + 1)
                .unwrap()
                .ends_with("x [cut]")
        );
    }
}
