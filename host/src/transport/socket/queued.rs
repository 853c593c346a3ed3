//! Bytes that were written and that the other side has not taken yet.
#![allow(unsafe_code, reason = "rustix has no function for SIOCOUTQ")]

use std::ffi::c_int;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl};

/// `asm-generic/ioctls.h`, where SIOCOUTQ is TIOCOUTQ.
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes in the send queue of a socket.
pub(super) fn bytes(socket: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: SIOCOUTQ writes an int (tcp(7)), which is what the getter has room for.
    let getter = unsafe { Getter::<SIOCOUTQ, c_int>::new() };
    // SAFETY: the getter is for this operation, which changes nothing about the socket.
    let queued = unsafe { ioctl(socket, getter) }?;
    Ok(u64::try_from(queued).unwrap_or(0))
}
