//! Cryptography, by the same functions as the gateway's.

use castling_abi::{Digest, LARGEST_CRYPTO_BYTES, PasswordHash, Signature, Status, rules};

use super::hook::may;
use super::host::hand_out;
use super::world::with_facts;

pub(crate) fn digest(algorithm: Digest, data: &[u8], out: &mut [u8]) -> i32 {
    must_be_quick("digest", [data.len()]);
    hand_out(castling_crypto::digest(algorithm, data).as_ref(), out)
}

pub(crate) fn hmac(algorithm: Digest, key: &[u8], data: &[u8], out: &mut [u8]) -> i32 {
    must_be_quick("hmac", [key.len(), data.len()]);
    hand_out(castling_crypto::hmac(algorithm, key, data).as_ref(), out)
}

pub(crate) fn seal(key: &[u8], aad: &[u8], plain: &[u8], out: &mut [u8]) -> i32 {
    must_be_quick("seal or open", [key.len(), aad.len(), plain.len()]);
    handed_out(castling_crypto::seal(key, aad, plain), out)
}

pub(crate) fn unseal(key: &[u8], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> i32 {
    must_be_quick("seal or open", [key.len(), aad.len(), sealed.len()]);
    handed_out(castling_crypto::open(key, aad, sealed), out)
}

pub(crate) fn signature_verify(
    algorithm: Signature,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> i32 {
    must_be_quick("verify", [key.len(), message.len(), signature.len()]);
    said(castling_crypto::verify(algorithm, key, message, signature))
}

pub(crate) fn password_hash(algorithm: PasswordHash, password: &[u8], out: &mut [u8]) -> i32 {
    if password.len() > castling_crypto::LONGEST_PASSWORD_BYTES {
        return match may(&rules::PASSWORD_HASH) {
            true => Status::Limit as i32,
            false => rules::PASSWORD_HASH.refused as i32,
        };
    }
    match may(&rules::PASSWORD_HASH) {
        true if out.len() < castling_crypto::LONGEST_HASH_BYTES => Status::BadArgument as i32,
        true if !with_facts(|facts| facts.count_calls(1)) => Status::Limit as i32,
        true => {
            let hash = castling_crypto::hash_password(algorithm, password);
            handed_out(hash.map(String::into_bytes), out)
        }
        false => rules::PASSWORD_HASH.refused as i32,
    }
}

pub(crate) fn password_verify(hash: &[u8], password: &[u8]) -> i32 {
    let is_too_long = hash.len() > castling_crypto::LONGEST_HASH_BYTES
        || password.len() > castling_crypto::LONGEST_PASSWORD_BYTES;
    match (may(&rules::PASSWORD_VERIFY), str::from_utf8(hash)) {
        (false, _) => rules::PASSWORD_VERIFY.refused as i32,
        (true, _) if is_too_long => Status::Limit as i32,
        (true, Err(_)) => Status::BadArgument as i32,
        (true, Ok(_)) if !with_facts(|facts| facts.count_calls(1)) => Status::Limit as i32,
        (true, Ok(hash)) => said(castling_crypto::verify_password(hash, password)),
    }
}

/// Panics where the gateway traps.
fn must_be_quick<const N: usize>(call: &str, lengths: [usize; N]) {
    let bytes: usize = lengths.into_iter().sum();
    assert!(
        bytes <= LARGEST_CRYPTO_BYTES,
        "crypto::{call} of {bytes} bytes; at most {LARGEST_CRYPTO_BYTES} a call"
    );
}

fn handed_out(made: Result<Vec<u8>, Status>, out: &mut [u8]) -> i32 {
    match made {
        Ok(bytes) => hand_out(&bytes, out),
        Err(status) => status as i32,
    }
}

fn said(made: Result<bool, Status>) -> i32 {
    made.map_or_else(|status| status as i32, i32::from)
}
