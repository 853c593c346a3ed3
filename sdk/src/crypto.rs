//! Cryptography that the gateway does, by AWS-LC: what would be slow in Wasm, or is better not written by hand. Feature `crypto`.
//!
//! Digests, codes, sealing and signatures are made at once, of 16 MiB at most: a call with more traps. [`hash_password`] and [`verify_password`] take tens of milliseconds, on a
//! thread beside the gateway's event loop: the hook waits meanwhile, as for a call out, and counts as one against `limits.calls`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::crypto::{self, Digest};
//! use castling_sdk::testing::Exchange;
//!
//! /// Users with the hashes of their passwords, as `htpasswd -B` writes them.
//! #[derive(Deserialize)]
//! struct Users { users: std::collections::BTreeMap<String, String> }
//!
//! #[plugin]
//! impl Users {
//!     fn configure(config: Users) -> Self {
//!         config
//!     }
//!
//!     fn access(&self, request: &mut Request) -> Result<Verdict> {
//!         let [user, password] = ["x-user", "x-password"].map(|name| request.header(name));
//!         let hash = user.as_ref().and_then(|user| self.users.get(user.as_str()?));
//!         Ok(match (hash, password) {
//!             (Some(hash), Some(password)) if crypto::verify_password(hash, password.as_bytes())? => {
//!                 Verdict::Continue
//!             }
//!             _ => Response::status(401).into(),
//!         })
//!     }
//! }
//!
//! let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
//! let plugin = Users { users: [("ada".to_owned(), hash.to_owned())].into() };
//! let mut exchange = Exchange::get("/").header("x-user", "ada").header("x-password", "myPassword");
//! assert_eq!(plugin.access(exchange.request()).unwrap(), Verdict::Continue);
//!
//! let code = crypto::hmac(Digest::Sha256, b"key", b"data");
//! assert!(crypto::equal(&code, &crypto::hmac(Digest::Sha256, b"key", b"data")));
//! ```

pub use castling_abi::{Digest, PasswordHash, Signature};

use castling_abi::Status;

use crate::buffer::{length, read_bytes, status};
use crate::error::{self, Result};
use crate::host;

/// SHA-2 of the data (FIPS 180-4).
pub fn digest(algorithm: Digest, data: impl AsRef<[u8]>) -> Vec<u8> {
    let digest = read_bytes(64, |out| host::digest(algorithm, data.as_ref(), out));
    digest.expect(ALWAYS_MADE)
}

/// HMAC of the data (RFC 2104), by a key of any length. Compare it by [`equal`].
pub fn hmac(algorithm: Digest, key: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Vec<u8> {
    let (key, data) = (key.as_ref(), data.as_ref());
    let code = read_bytes(64, |out| host::hmac(algorithm, key, data, out));
    code.expect(ALWAYS_MADE)
}

const ALWAYS_MADE: &str = "the gateway knows every algorithm of its own SDK";

/// Whether both are the same, found out in a time that does not depend on where they differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    let differ = |differ, (one, other): (&u8, &u8)| std::hint::black_box(differ | (one ^ other));
    one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
}

/// Encrypts by AES-GCM with a random nonce, which comes first, and authenticates it with `aad`, which [`open`] must be given, too. The key
/// has 16 or 32 bytes, and seals 2³² texts at most.
///
/// ```
/// # use castling_sdk::crypto;
/// let sealed = crypto::seal(&[7; 32], b"session", b"ada")?;
/// assert_eq!(crypto::open(&[7; 32], b"session", &sealed)?.unwrap(), b"ada");
/// assert_eq!(crypto::open(&[7; 32], b"another", &sealed)?, None);
/// assert!(crypto::seal(&[7; 5], b"", b"").is_err());
/// # Ok::<(), castling_sdk::Error>(())
/// ```
pub fn seal(key: &[u8], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let room = plain.len() + SEAL_BYTES;
    read_bytes(room, |out| host::seal(key, aad, plain, out))
        .map_err(|status| bad_key("seal", status))
}

/// Decrypts what [`seal`] has made; `None`: it was made with another key or other `aad`, or is not as it was.
pub fn open(key: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>> {
    match read_bytes(sealed.len(), |out| host::unseal(key, aad, sealed, out)) {
        Ok(plain) => Ok(Some(plain)),
        Err(Status::NotFound) => Ok(None),
        Err(status) => Err(bad_key("open", status)),
    }
}

/// Nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

fn bad_key(call: &str, status: Status) -> error::Error {
    error::bad_argument(
        format_args!("crypto::{call}"),
        status,
        "a key of 16 or 32 bytes",
    )
}

/// Whether the signature of the message is the key's. The key is the DER of a SubjectPublicKeyInfo (what is in a PEM file `PUBLIC KEY`), or the
/// bare key: an uncompressed point, the 32 bytes of Ed25519, an RSAPublicKey. Fails where it is none of the algorithm's.
pub fn verify(
    algorithm: Signature,
    key: &[u8],
    message: impl AsRef<[u8]>,
    signature: &[u8],
) -> Result<bool> {
    match host::signature_verify(algorithm, key, message.as_ref(), signature) {
        answer @ 0.. => Ok(answer == 1),
        refused => {
            let call = format_args!("crypto::verify({})", algorithm.name());
            Err(error::bad_argument(call, status(refused), "a public key"))
        }
    }
}

/// Hashes a password with a random salt: a text that says all that [`verify_password`] needs. The password has 1024 bytes at most, by
/// bcrypt 72. Argon2id takes 19 MiB and two passes, bcrypt has cost 12, PBKDF2 600,000 rounds.
pub fn hash_password(algorithm: PasswordHash, password: impl AsRef<[u8]>) -> Result<String> {
    let mut hash = vec![0; LONGEST_HASH_BYTES];
    let len = length(host::password_hash(algorithm, password.as_ref(), &mut hash));
    let refused = |status| error::refusal(format_args!("crypto::hash_password"), status);
    hash.truncate(len.map_err(refused)?);
    Ok(String::from_utf8(hash)?)
}

/// Whether the hash is the password's: Argon2id (`$argon2id$`), bcrypt (`$2b$`, `$2y$`) or PBKDF2 (`$pbkdf2-sha256$`), the first and the last as
/// PHC strings. Fails where it is no hash, or one that takes longer than the gateway allows (64 MiB, cost 14, two million rounds), and
/// where too many wait.
pub fn verify_password(hash: &str, password: impl AsRef<[u8]>) -> Result<bool> {
    match host::password_verify(hash.as_bytes(), password.as_ref()) {
        answer @ 0.. => Ok(answer == 1),
        refused => {
            let call = format_args!("crypto::verify_password");
            let expected = "a hash of Argon2id, bcrypt or PBKDF2";
            Err(error::bad_argument(call, status(refused), expected))
        }
    }
}

const LONGEST_HASH_BYTES: usize = 256;
