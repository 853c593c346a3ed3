//! Raw shared memory: a sealed memory file seen as atomics, and the opening of an LMDB environment.
#![allow(
    unsafe_code,
    reason = "the compiler cannot know what else maps the memory that processes share"
)]

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use heed::{Env, EnvFlags, EnvOpenOptions};
use portable_atomic::AtomicU128;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memory file that this process has mapped, readable and writable, until it is dropped.
///
/// Everything in it is seen as [`Shared`] types only.
pub(super) struct Mapping {
    start: NonNull<u8>,
    size_bytes: usize,
    file: OwnedFd,
}

impl Mapping {
    /// Makes a memory file of zeroes whose size can never change again, and maps it.
    ///
    /// All of its memory is taken at once: that it does not suffice shows here, not in a worker.
    pub(super) fn create(name: &str, size_bytes: usize) -> Result<Self, Errno> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let size = u64::try_from(size_bytes).map_err(|_| Errno::FBIG)?;
        ftruncate(&file, size)?;
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::open(file)
    }

    /// Makes and maps one without taking memory: [`Mapping::take`] does, range by range.
    pub(super) fn create_sparse(name: &str, size_bytes: usize) -> Result<Self, Errno> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, u64::try_from(size_bytes).map_err(|_| Errno::FBIG)?)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::open(file)
    }

    /// Takes memory for this range of a sparse mapping; what is there stays.
    pub(super) fn take(&self, offset_bytes: usize, size_bytes: usize) -> Result<(), Errno> {
        let offset = u64::try_from(offset_bytes).map_err(|_| Errno::FBIG)?;
        let size = u64::try_from(size_bytes).map_err(|_| Errno::FBIG)?;
        fallocate(&self.file, FallocateFlags::empty(), offset, size)
    }

    /// Maps a memory file that [`Mapping::create`] has made in this or another process.
    ///
    /// Fails with `EPERM` when its size is not sealed and with `EINVAL` when the descriptor is no memory file or empty.
    pub(super) fn open(file: OwnedFd) -> Result<Self, Errno> {
        if !fcntl_get_seals(&file)?.contains(SEALS) {
            return Err(Errno::PERM);
        }
        let size_bytes = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::FBIG)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists already.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                size_bytes,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self {
            start,
            size_bytes,
            file,
        })
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The `T` at the start. None when it does not fit.
    pub(super) fn header<T: Shared>(&self) -> Option<&T> {
        self.table(0, 1)?.first()
    }

    /// Slice of `count` values from `offset_bytes` on. None when they do not fit or would not be aligned.
    pub(super) fn table<T: Shared>(&self, offset_bytes: usize, count: usize) -> Option<&[T]> {
        let end = size_of::<T>()
            .checked_mul(count)?
            .checked_add(offset_bytes)?;
        if end > self.size_bytes {
            return None;
        }
        // SAFETY: `offset_bytes` is at most `size_bytes`, which is the length of the mapping at `start`.
        let first = unsafe { self.start.add(offset_bytes) }.cast::<T>();
        if !first.is_aligned() {
            return None;
        }
        // SAFETY: the range is aligned, inside of the mapping, and mapped until `self` is dropped, which the borrow
        // outlives not; its pages exist, because the file cannot shrink (`SEALS`, checked in `open`). `T: Shared` says
        // that any bytes are a `T` and that all changes through `&T` are atomic; other processes that map the file see
        // it through this type too.
        Some(unsafe { std::slice::from_raw_parts(first.as_ptr(), count) })
    }
}

/// A value in a mapping, which stays mapped for as long as this lives. Reading it costs no check.
pub struct Pinned<T> {
    at: NonNull<T>,
    /// Keeps the memory mapped.
    _mapping: Rc<Mapping>,
}

impl<T: Shared> Pinned<T> {
    /// The value at `offset_bytes`. None when it does not fit or would not be aligned.
    pub(super) fn new(mapping: &Rc<Mapping>, offset_bytes: usize) -> Option<Self> {
        let value = mapping.table::<T>(offset_bytes, 1)?.first()?;
        Some(Self {
            at: NonNull::from(value),
            _mapping: Rc::clone(mapping),
        })
    }
}

impl<T: Shared> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` got the pointer from a reference into the mapping, which is unmapped no sooner than `_mapping` is
        // dropped, with `self`; the borrow does not outlive `self`.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Clone for Pinned<T> {
    fn clone(&self) -> Self {
        Self {
            at: self.at,
            _mapping: Rc::clone(&self._mapping),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `size_bytes` are what `mmap` was called with and returned, nothing else unmaps it, and
        // `table` lends it no longer than `self` lives.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.size_bytes) };
        debug_assert!(unmapped.is_ok(), "the arguments are those of mmap");
    }
}

// SAFETY: a mapping belongs to the process, not to a thread, and is used through atomics only (`Shared: Sync`).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The size is for ever what it was, and so is this.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Types that may lie in memory that processes share.
///
/// # Safety
/// Any bytes are a valid value; there is no padding and no pointer; what a `&Self` can change is atomic.
pub unsafe trait Shared: Sync {}

// SAFETY: an integer behind atomic instructions.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an integer behind atomic instructions. Where they would need a lock (which other processes would not see),
// `CounterZone::over` opens no zone.
unsafe impl Shared for AtomicU128 {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::headers::CounterHeader {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::headers::MetricsHeader {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::headers::PeersHeader {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::headers::GaugeHeader {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::headers::TopicHeader {}
// SAFETY: `repr(C)` and nothing but `AtomicU64` and arrays of them.
unsafe impl Shared for super::peers::PeerRecord {}
// SAFETY: `repr(transparent)` over the atomic of 128 bits above. `GaugeZone::over` opens no zone where that needs a lock.
unsafe impl Shared for super::gauge::cell::Cell {}
// SAFETY: `repr(C)`, nothing but arrays of the two above, and no padding (asserted beside it).
unsafe impl Shared for super::counter::slots::Set {}

/// Opens or makes the LMDB files in `folder`, for this process.
///
/// The map is read-only: a stray write of a worker cannot reach what all share, and a full file system is an error, not
/// a SIGBUS. (Measured: a put of 200 bytes takes 6 µs, with a writable map 4 µs.)
///
/// `map_bytes` is a multiple of the page size and the same in all processes. Fails with `EnvAlreadyOpened` when this
/// process has the folder open.
pub(super) fn open_env(
    folder: &Path,
    map_bytes: usize,
    readers_max: u32,
) -> Result<Env, heed::Error> {
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes).max_readers(readers_max);
    // SAFETY: the flags only give up what a crash of the whole machine would leave. `kv::folder` does not use the files
    // again after one (boot id). Locks stay on.
    unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::NO_READ_AHEAD) };
    // SAFETY: the files are mapped and must change through LMDB only. They lie in a folder that nobody but the
    // gateway's user owns and may enter (`kv::folder::must_be_private`). `kv::folder` takes space for a
    // file that LMDB has made before others open it, and else only unlinks: what a process has mapped stays as it was.
    // heed refuses to open a folder twice in one process; workers are executed anew, so that none uses an environment
    // from before a fork.
    unsafe { options.open(folder) }
}
