//! The host's functions for cryptography.

use castling_abi::{Digest, PasswordHash, Signature};

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn digest(
            algorithm: u32,
            ptr: *const u8,
            len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn hmac(
            algorithm: u32,
            key: *const u8,
            key_len: usize,
            ptr: *const u8,
            len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn seal(
            key: *const u8,
            key_len: usize,
            aad: *const u8,
            aad_len: usize,
            ptr: *const u8,
            len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn unseal(
            key: *const u8,
            key_len: usize,
            aad: *const u8,
            aad_len: usize,
            ptr: *const u8,
            len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn signature_verify(
            algorithm: u32,
            key: *const u8,
            key_len: usize,
            ptr: *const u8,
            len: usize,
            signature: *const u8,
            signature_len: usize,
        ) -> i32;
        pub(super) fn password_hash(
            algorithm: u32,
            ptr: *const u8,
            len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn password_verify(
            hash: *const u8,
            hash_len: usize,
            ptr: *const u8,
            len: usize,
        ) -> i32;
    }
}

pub(crate) fn digest(algorithm: Digest, data: &[u8], out: &mut [u8]) -> i32 {
    let (algorithm, room) = (algorithm as u32, out.as_mut_ptr());
    // SAFETY: the host reads `data.len()` bytes and writes at most `out.len()` at these pointers, which are borrowed for the call.
    unsafe { import::digest(algorithm, data.as_ptr(), data.len(), room, out.len()) }
}

pub(crate) fn hmac(algorithm: Digest, key: &[u8], data: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: `key`, `data` and `out` as in `digest`.
    unsafe {
        import::hmac(
            algorithm as u32,
            key.as_ptr(),
            key.len(),
            data.as_ptr(),
            data.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn seal(key: &[u8], aad: &[u8], plain: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: `key`, `aad`, `plain` and `out` as in `digest`.
    unsafe {
        import::seal(
            key.as_ptr(),
            key.len(),
            aad.as_ptr(),
            aad.len(),
            plain.as_ptr(),
            plain.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn unseal(key: &[u8], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: `key`, `aad`, `sealed` and `out` as in `digest`.
    unsafe {
        import::unseal(
            key.as_ptr(),
            key.len(),
            aad.as_ptr(),
            aad.len(),
            sealed.as_ptr(),
            sealed.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn signature_verify(
    algorithm: Signature,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> i32 {
    // SAFETY: `key`, `message` and `signature` as `data` in `digest`.
    unsafe {
        import::signature_verify(
            algorithm as u32,
            key.as_ptr(),
            key.len(),
            message.as_ptr(),
            message.len(),
            signature.as_ptr(),
            signature.len(),
        )
    }
}

pub(crate) fn password_hash(algorithm: PasswordHash, password: &[u8], out: &mut [u8]) -> i32 {
    let (algorithm, room) = (algorithm as u32, out.as_mut_ptr());
    // SAFETY: `password` and `out` as in `digest`.
    unsafe {
        import::password_hash(
            algorithm,
            password.as_ptr(),
            password.len(),
            room,
            out.len(),
        )
    }
}

pub(crate) fn password_verify(hash: &[u8], password: &[u8]) -> i32 {
    // SAFETY: `hash` and `password` as `data` in `digest`.
    unsafe { import::password_verify(hash.as_ptr(), hash.len(), password.as_ptr(), password.len()) }
}
