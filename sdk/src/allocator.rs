//! The allocator of a plugin: std's own for this target, but it begins with memory that an instance has from the start.
//!
//! std's asks the host for more memory before it gives out the first byte. For the host that is two system calls, of which
//! the second flushes the other cores' TLBs: some 5 µs of each fresh instance of a plugin that never needs more than the region
//! here. What is beyond the region comes from the host as ever.
#![allow(
    unsafe_code,
    reason = "an allocator hands out raw memory; this is the only file that has one"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::memory_grow;
use std::cell::{Cell, UnsafeCell};
use std::ptr;

use dlmalloc::{Allocator, Dlmalloc};

#[global_allocator]
static ALLOCATOR: PluginAllocator =
    PluginAllocator(UnsafeCell::new(Dlmalloc::new_with_allocator(Pages {
        region_left: Cell::new(true),
    })));

/// Size that dlmalloc asks for at a time. Plain plugins need a few KiB.
const REGION_BYTES: usize = 64 * 1024;

/// Zeros, which are no bytes in the module's file; a page of it takes no memory before it is written to.
#[repr(align(16))]
struct Region(UnsafeCell<[u8; REGION_BYTES]>);

static REGION: Region = Region(UnsafeCell::new([0; REGION_BYTES]));

// SAFETY: an instance has one thread (see `PluginAllocator`), and only the allocator has the region's address.
unsafe impl Sync for Region {}

struct PluginAllocator(UnsafeCell<Dlmalloc<Pages>>);

#[cfg(target_feature = "atomics")]
compile_error!("the SDK's allocator is for one thread; switch its feature `allocator` off");

// SAFETY: without atomics, which are refused above, a module has one thread.
unsafe impl Sync for PluginAllocator {}

// SAFETY: all is handed on to dlmalloc, whose functions have the same contract. Each exclusive borrow ends before the
// function that made it returns, and none is made meanwhile: there is one thread, and dlmalloc calls nothing but `Pages`.
//
// Never inlined: dlmalloc's functions are long or look at much before they begin, and a hook that rarely allocates is to be short.
unsafe impl GlobalAlloc for PluginAllocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { (*self.0.get()).free(ptr, layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).realloc(ptr, layout.size(), layout.align(), new_bytes) }
    }
}

/// Where dlmalloc has its memory from: first the region, then the host.
struct Pages {
    region_left: Cell<bool>,
}

// SAFETY: what `alloc` returns is the region, once, or pages that the module has just been given, and so nobody else's.
unsafe impl Allocator for Pages {
    fn alloc(&self, bytes: usize) -> (*mut u8, usize, u32) {
        if bytes <= REGION_BYTES && self.region_left.replace(false) {
            return (REGION.0.get().cast(), REGION_BYTES, 0);
        }
        let none = (ptr::null_mut(), 0, 0);
        let pages = bytes.div_ceil(PAGE_BYTES);
        let first = memory_grow::<0>(pages);
        // The memory's very end is not used: a pointer behind it would be null.
        match (first.checked_mul(PAGE_BYTES), pages.checked_mul(PAGE_BYTES)) {
            (Some(start), Some(bytes)) if start.checked_add(bytes).is_some() => {
                (ptr::with_exposed_provenance_mut(start), bytes, 0)
            }
            _ => none, // `first` is usize::MAX where there is no more
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

const PAGE_BYTES: usize = 64 * 1024;
