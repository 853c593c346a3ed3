//! Cryptography for the plugin: what is quick at once, hashes of passwords on a thread beside the event loop.

use castling_abi::{
    Digest, IMPORT_MODULE, LARGEST_CRYPTO_BYTES, PasswordHash, Signature, Status, imports, rules,
};
use castling_crypto::{LONGEST_HASH_BYTES, LONGEST_PASSWORD_BYTES};
use wasmtime::{Caller, Linker, Result, bail};

use super::refuse;
use super::wait::wait;
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::io_request::{IoRequest, IoResult, PasswordWork};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::DIGEST, digest)?
        .func_wrap(IMPORT_MODULE, imports::HMAC, hmac)?
        .func_wrap(IMPORT_MODULE, imports::SEAL, aead(castling_crypto::seal))?
        .func_wrap(IMPORT_MODULE, imports::UNSEAL, aead(castling_crypto::open))?
        .func_wrap(IMPORT_MODULE, imports::SIGNATURE_VERIFY, signature_verify)?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::PASSWORD_HASH,
            |caller, (algorithm, ptr, len, out, capacity)| {
                Box::new(password_hash(
                    caller,
                    algorithm,
                    (ptr, len),
                    (out, capacity),
                ))
            },
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::PASSWORD_VERIFY,
            |caller, (hash, hash_len, ptr, len)| {
                Box::new(password_verify(caller, (hash, hash_len), (ptr, len)))
            },
        )?;
    Ok(())
}

fn digest(
    mut caller: Caller<'_, Guest>,
    algorithm: u32,
    ptr: u32,
    len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    must_be_quick("digest", [len])?;
    let (memory, _) = split(&mut caller)?;
    let data = bytes(memory, ptr, len)?;
    let Some(algorithm) = Digest::from_raw(algorithm) else {
        return refuse(Status::BadArgument);
    };
    let digest = castling_crypto::digest(algorithm, data);
    hand_out(memory, out, capacity, digest.as_ref())
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn hmac(
    mut caller: Caller<'_, Guest>,
    algorithm: u32,
    key: u32,
    key_len: u32,
    ptr: u32,
    len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    must_be_quick("hmac", [key_len, len])?;
    let (memory, _) = split(&mut caller)?;
    let (key, data) = (bytes(memory, key, key_len)?, bytes(memory, ptr, len)?);
    let Some(algorithm) = Digest::from_raw(algorithm) else {
        return refuse(Status::BadArgument);
    };
    let code = castling_crypto::hmac(algorithm, key, data);
    hand_out(memory, out, capacity, code.as_ref())
}

/// `seal` and `unseal`: key, additional data, and what is sealed or opened.
#[expect(clippy::type_complexity, reason = "the ABI has so many arguments")]
fn aead(
    work: fn(&[u8], &[u8], &[u8]) -> Result<Vec<u8>, Status>,
) -> impl Fn(Caller<'_, Guest>, u32, u32, u32, u32, u32, u32, u32, u32) -> Result<i32> {
    move |mut caller, key, key_len, aad, aad_len, ptr, len, out, capacity| {
        must_be_quick("seal or open", [key_len, aad_len, len])?;
        let (memory, _) = split(&mut caller)?;
        let (key, aad) = (bytes(memory, key, key_len)?, bytes(memory, aad, aad_len)?);
        match work(key, aad, bytes(memory, ptr, len)?) {
            Ok(result) => hand_out(memory, out, capacity, &result),
            Err(status) => refuse(status),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn signature_verify(
    mut caller: Caller<'_, Guest>,
    algorithm: u32,
    key: u32,
    key_len: u32,
    ptr: u32,
    len: u32,
    signature: u32,
    signature_len: u32,
) -> Result<i32> {
    must_be_quick("verify", [key_len, len, signature_len])?;
    let (memory, _) = split(&mut caller)?;
    let (key, message) = (bytes(memory, key, key_len)?, bytes(memory, ptr, len)?);
    let signature = bytes(memory, signature, signature_len)?;
    let Some(algorithm) = Signature::from_raw(algorithm) else {
        return refuse(Status::BadArgument);
    };
    match castling_crypto::verify(algorithm, key, message, signature) {
        Ok(is_good) => Ok(i32::from(is_good)),
        Err(status) => refuse(status),
    }
}

/// Traps a call whose work would hold the event loop.
fn must_be_quick<const N: usize>(call: &str, lengths: [u32; N]) -> Result<()> {
    let bytes: u64 = lengths.into_iter().map(u64::from).sum();
    if bytes > LARGEST_CRYPTO_BYTES as u64 {
        bail!("crypto::{call} of {bytes} bytes; at most {LARGEST_CRYPTO_BYTES} a call");
    }
    Ok(())
}

async fn password_hash(
    mut caller: Caller<'_, Guest>,
    algorithm: u32,
    (ptr, len): (u32, u32),
    (out, capacity): (u32, u32),
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let password = bytes(memory, ptr, len)?;
    if !guest.may(&rules::PASSWORD_HASH) {
        return refuse(rules::PASSWORD_HASH.refused);
    }
    let Some(algorithm) = PasswordHash::from_raw(algorithm) else {
        return refuse(Status::BadArgument);
    };
    if password.len() > LONGEST_PASSWORD_BYTES {
        return refuse(Status::Limit);
    }
    // The hash is made once: there must be room for any.
    if (capacity as usize) < LONGEST_HASH_BYTES {
        return refuse(Status::BadArgument);
    }
    let work = PasswordWork::Hash(algorithm, password.to_vec());
    match work_out(&mut caller, work).await {
        Ok(hash) => {
            let (memory, _) = split(&mut caller)?;
            hand_out(memory, out, capacity, hash.as_bytes())
        }
        Err(status) => refuse(status),
    }
}

async fn password_verify(
    mut caller: Caller<'_, Guest>,
    (hash, hash_len): (u32, u32),
    (ptr, len): (u32, u32),
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let (hash, password) = (bytes(memory, hash, hash_len)?, bytes(memory, ptr, len)?);
    if !guest.may(&rules::PASSWORD_VERIFY) {
        return refuse(rules::PASSWORD_VERIFY.refused);
    }
    if hash.len() > LONGEST_HASH_BYTES || password.len() > LONGEST_PASSWORD_BYTES {
        return refuse(Status::Limit);
    }
    let Ok(hash) = str::from_utf8(hash) else {
        return refuse(Status::BadArgument);
    };
    let work = PasswordWork::Verify(hash.to_owned(), password.to_vec());
    match work_out(&mut caller, work).await {
        // The text is the hash where it is the password's.
        Ok(found) => Ok(i32::from(!found.is_empty())),
        Err(status) => refuse(status),
    }
}

/// Has the work done while the guest is suspended.
async fn work_out(caller: &mut Caller<'_, Guest>, work: PasswordWork) -> Result<String, Status> {
    let calls_limit = caller.data().calls_limit;
    let request = IoRequest::Password(Box::new(work), calls_limit);
    match wait(caller, request).await {
        Some(IoResult::Password(found)) => found,
        Some(IoResult::TooManyCalls) => {
            let guest = caller.data_mut();
            Err(guest.limit(Reached::count("calls", calls_limit)))
        }
        _ => Err(Status::NotNow),
    }
}
