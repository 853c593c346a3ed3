//! Cryptography that the gateway does for its plugins: what would be slow in Wasm, or is better not written by hand. The SDK's fake
//! host calls the same functions, so that a test sees what the gateway does.

mod password;
mod signature;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use castling_abi::{Digest, Status};

pub use password::{LONGEST_HASH_BYTES, LONGEST_PASSWORD_BYTES, hash_password, verify_password};
pub use signature::verify;

/// SHA-2 of the data (FIPS 180-4).
pub fn digest(algorithm: Digest, data: &[u8]) -> impl AsRef<[u8]> + use<> {
    let algorithm = match algorithm {
        Digest::Sha256 => &digest::SHA256,
        Digest::Sha384 => &digest::SHA384,
        Digest::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, data)
}

/// HMAC of the data (RFC 2104), by a key of any length.
pub fn hmac(algorithm: Digest, key: &[u8], data: &[u8]) -> impl AsRef<[u8]> + use<> {
    let algorithm = match algorithm {
        Digest::Sha256 => hmac::HMAC_SHA256,
        Digest::Sha384 => hmac::HMAC_SHA384,
        Digest::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), data)
}

/// Encrypts by AES-GCM (NIST SP 800-38D) with a random nonce: the nonce of 12 bytes, the ciphertext, the tag of 16 bytes. A key of 16 or
/// 32 bytes says which AES; another one is a bad argument.
pub fn seal(key: &[u8], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, Status> {
    let key = aead_key(key)?;
    let mut sealed = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(aad), &mut sealed)
        .map_err(|_| Status::HostFailed)?;
    sealed.splice(..0, nonce.as_ref().iter().copied());
    Ok(sealed)
}

/// Decrypts what [`seal`] has made; `NotFound` for anything else, and for other associated data.
pub fn open(key: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Status> {
    let key = aead_key(key)?;
    let (nonce, cipher) = sealed
        .split_at_checked(NONCE_BYTES)
        .ok_or(Status::NotFound)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Status::NotFound)?;
    let mut plain = cipher.to_vec();
    let len = key
        .open_in_place(nonce, Aad::from(aad), &mut plain)
        .map_err(|_| Status::NotFound)?
        .len();
    plain.truncate(len);
    Ok(plain)
}

fn aead_key(key: &[u8]) -> Result<RandomizedNonceKey, Status> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return Err(Status::BadArgument),
    };
    RandomizedNonceKey::new(algorithm, key).map_err(|_| Status::BadArgument)
}

const NONCE_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: impl AsRef<[u8]>) -> String {
        let bytes = bytes.as_ref().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_and_codes_are_those_of_the_standards() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(digest(Digest::Sha256, b"abc")), abc);
        assert_eq!(hex(digest(Digest::Sha384, b"abc")).len(), 96);
        assert_eq!(hex(digest(Digest::Sha512, b"abc")).len(), 128);
        // RFC 4231 §4.3.
        let code = hmac(Digest::Sha256, b"Jefe", b"what do ya want for nothing?");
        let known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(code), known);
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_data_alone() {
        for key in [&[7; 16][..], &[7; 32]] {
            let sealed = seal(key, b"for ada", b"plain").unwrap();
            assert_eq!(sealed.len(), 12 + 5 + 16);
            assert_ne!(seal(key, b"for ada", b"plain").unwrap(), sealed);
            assert_eq!(open(key, b"for ada", &sealed).unwrap(), b"plain");
            assert_eq!(open(key, b"for bob", &sealed), Err(Status::NotFound));
            let other = vec![8; key.len()];
            assert_eq!(open(&other, b"for ada", &sealed), Err(Status::NotFound));
            for idx in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[idx] ^= 1;
                assert_eq!(open(key, b"for ada", &changed), Err(Status::NotFound));
                assert_eq!(open(key, b"for ada", &sealed[..idx]), Err(Status::NotFound));
            }
        }
        assert_eq!(seal(&[0; 24], b"", b""), Err(Status::BadArgument));
        assert_eq!(open(b"", b"", b""), Err(Status::BadArgument));
    }
}
