//! Hashes of passwords. They take long, and memory: whoever calls these bounds how many are made at a time.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use castling_abi::{PasswordHash, Status};

/// Longest password.
pub const LONGEST_PASSWORD_BYTES: usize = 1024;

/// Longest hash, as text.
pub const LONGEST_HASH_BYTES: usize = 256;

/// Hashes a password with a random salt: the text says all that [`verify_password`] needs. `Limit` for a longer password than the
/// algorithm takes ([`LONGEST_PASSWORD_BYTES`]; 72 by bcrypt).
pub fn hash_password(algorithm: PasswordHash, password: &[u8]) -> Result<String, Status> {
    if password.len() > LONGEST_PASSWORD_BYTES {
        return Err(Status::Limit);
    }
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| Status::HostFailed)?;
    match algorithm {
        PasswordHash::Argon2id => {
            let cost = Cost {
                memory_kib: 19 * 1024,
                passes: 2,
                lanes: 1,
            };
            let hash = argon2id(password, &salt, cost, HASH_BYTES)?;
            Ok(format!(
                "$argon2id$v=19$m={},t={},p={}${}${}",
                cost.memory_kib,
                cost.passes,
                cost.lanes,
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(hash)
            ))
        }
        PasswordHash::Bcrypt if password.len() > LONGEST_BCRYPT_BYTES => Err(Status::Limit),
        PasswordHash::Bcrypt => bcrypt::hash_with_salt(password, BCRYPT_COST, salt)
            .map(|parts| parts.format_for_version(bcrypt::Version::TwoB))
            .map_err(|_| Status::BadArgument),
        PasswordHash::Pbkdf2Sha256 => {
            let mut hash = [0; HASH_BYTES];
            pbkdf2_sha256(PBKDF2_ROUNDS, &salt, password, &mut hash)?;
            Ok(format!(
                "$pbkdf2-sha256$i={PBKDF2_ROUNDS}${}${}",
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(hash)
            ))
        }
    }
}

/// Whether the hash is the password's: Argon2id (`$argon2id$`), bcrypt (`$2a$`, `$2b$`, `$2x$`, `$2y$`) or PBKDF2 (`$pbkdf2-sha256$i=`), the
/// first and the last as PHC strings. A bad argument for what is none of these, `Limit` for one that costs more than is allowed.
pub fn verify_password(hash: &str, password: &[u8]) -> Result<bool, Status> {
    if password.len() > LONGEST_PASSWORD_BYTES || hash.len() > LONGEST_HASH_BYTES {
        return Err(Status::Limit);
    }
    let mut parts = hash.split('$');
    let mut next = || parts.next().ok_or(Status::BadArgument);
    if !next()?.is_empty() {
        return Err(Status::BadArgument);
    }
    match next()? {
        "argon2id" => {
            if next()? != "v=19" {
                return Err(Status::BadArgument);
            }
            let cost = Cost::parse(next()?)?;
            let (salt, known) = (decode(next()?)?, decode(next()?)?);
            let found = argon2id(password, &salt, cost, known.len())?;
            Ok(equal(&found, &known))
        }
        "pbkdf2-sha256" => {
            let rounds = number(next()?, "i=")?;
            let (salt, known) = (decode(next()?)?, decode(next()?)?);
            let mut found = vec![0; known.len()];
            pbkdf2_sha256(rounds, &salt, password, &mut found)?;
            Ok(equal(&found, &known))
        }
        "2a" | "2b" | "2x" | "2y" => {
            let cost: u32 = next()?.parse().map_err(|_| Status::BadArgument)?;
            if cost > MOST_BCRYPT_COST {
                return Err(Status::Limit);
            }
            // The hash of a longer one is that of its beginning.
            let password = &password[..password.len().min(LONGEST_BCRYPT_BYTES)];
            bcrypt::verify(password, hash).map_err(|_| Status::BadArgument)
        }
        _ => Err(Status::BadArgument),
    }
}

/// Cost of Argon2 (RFC 9106 §3.1).
#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// Reads `m=19456,t=2,p=1`.
    fn parse(text: &str) -> Result<Self, Status> {
        let mut parts = text.split(',');
        let mut next = |name| number(parts.next().ok_or(Status::BadArgument)?, name);
        let cost = Self {
            memory_kib: next("m=")?,
            passes: next("t=")?,
            lanes: next("p=")?,
        };
        let work_kib = u64::from(cost.memory_kib) * u64::from(cost.passes);
        match cost.memory_kib > MOST_MEMORY_KIB || work_kib > MOST_WORK_KIB || cost.lanes > 16 {
            true => Err(Status::Limit),
            false => Ok(cost),
        }
    }
}

fn argon2id(password: &[u8], salt: &[u8], cost: Cost, len: usize) -> Result<Vec<u8>, Status> {
    if !(16..=64).contains(&len) {
        return Err(Status::BadArgument);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(len));
    let params = params.map_err(|_| Status::BadArgument)?;
    let mut hash = vec![0; len];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut hash)
        .map_err(|_| Status::BadArgument)?;
    Ok(hash)
}

fn pbkdf2_sha256(rounds: u32, salt: &[u8], password: &[u8], hash: &mut [u8]) -> Result<(), Status> {
    let rounds_left = NonZeroU32::new(rounds).ok_or(Status::BadArgument)?;
    match (rounds > MOST_PBKDF2_ROUNDS, hash.len()) {
        (true, _) => Err(Status::Limit),
        // A block of SHA-256: each more would take all rounds again.
        (false, 16..=HASH_BYTES) => {
            pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA256,
                rounds_left,
                salt,
                password,
                hash,
            );
            Ok(())
        }
        (false, _) => Err(Status::BadArgument),
    }
}

fn number(text: &str, name: &str) -> Result<u32, Status> {
    let digits = text.strip_prefix(name).ok_or(Status::BadArgument)?;
    digits.parse().map_err(|_| Status::BadArgument)
}

fn decode(text: &str) -> Result<Vec<u8>, Status> {
    STANDARD_NO_PAD
        .decode(text)
        .map_err(|_| Status::BadArgument)
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Memory of one hash: a worker makes one at a time.
const MOST_MEMORY_KIB: u32 = 64 * 1024;

/// Memory times passes: what a hash costs, some 0.3 s.
const MOST_WORK_KIB: u64 = 256 * 1024;

/// Rounds by OWASP's cheat sheet on storing passwords (2023), and rounds that take half a second.
const PBKDF2_ROUNDS: u32 = 600_000;
const MOST_PBKDF2_ROUNDS: u32 = 2_000_000;

/// Two to that many rounds; some 0.2 s, and twice as long for one more.
const BCRYPT_COST: u32 = 12;
const MOST_BCRYPT_COST: u32 = 14;
const LONGEST_BCRYPT_BYTES: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_its_passwords_alone() {
        for algorithm in PasswordHash::ALL {
            let hash = hash_password(*algorithm, b"correct horse").unwrap();
            assert!(hash.len() <= LONGEST_HASH_BYTES, "{hash}");
            assert_eq!(verify_password(&hash, b"correct horse"), Ok(true), "{hash}");
            assert_eq!(
                verify_password(&hash, b"correct house"),
                Ok(false),
                "{hash}"
            );
            assert_eq!(verify_password(&hash, b""), Ok(false), "{hash}");
        }
        let long = hash_password(PasswordHash::Bcrypt, &[b'x'; 73]);
        assert_eq!(long, Err(Status::Limit));
    }

    #[test]
    fn hashes_of_other_programs_are_verified() {
        // `htpasswd -nbBC 5 ada secret`, `argon2 somesalt -id -t 2 -m 16 -p 4` on "password", passlib's pbkdf2 in PHC form.
        let bcrypt = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        assert_eq!(verify_password(bcrypt, b"myPassword"), Ok(true));
        let argon2 = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!(verify_password(argon2, b"password"), Ok(true));
        assert_eq!(verify_password(argon2, b"passwort"), Ok(false));
    }

    #[test]
    fn what_costs_too_much_or_is_no_hash_is_refused_at_once() {
        let tail = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for hash in [
            format!("$argon2id$v=19$m=65537,t=1,p=1{tail}"),
            format!("$argon2id$v=19$m=4294967295,t=1,p=1{tail}"),
            format!("$argon2id$v=19$m=65536,t=5,p=1{tail}"),
            format!("$argon2id$v=19$m=64,t=4294967295,p=1{tail}"),
            format!("$pbkdf2-sha256$i=2000001{tail}"),
            "$2b$15$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC".to_owned(),
            "$".repeat(300),
        ] {
            assert_eq!(verify_password(&hash, b"x"), Err(Status::Limit), "{hash}");
        }
        let long = format!("$pbkdf2-sha256$i=1$c2FsdHNhbHQ${}", "A".repeat(200));
        for hash in [
            "",
            "$",
            "x",
            "$1$abc$def",
            "$2b$05$short",
            "$2b$-1$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
            "$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=64,t=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$",
            "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$pbkdf2-sha256$i=0$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
            &long,
        ] {
            assert_eq!(
                verify_password(hash, b"x"),
                Err(Status::BadArgument),
                "{hash}"
            );
        }
    }
}
