//! Does with `x-data`, by the gateway's cryptography, what `x-do` says, `x-times` times.

use castling_sdk::crypto::{self, Digest, PasswordHash, Signature};
use castling_sdk::prelude::*;

#[derive(Default)]
struct Hasher;

#[plugin]
impl Hasher {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let times = text(request, "x-times").parse().unwrap_or(1);
        let mut done = String::new();
        for _ in 0..times {
            done = match done_once(request) {
                Ok(done) => done,
                Err(error) if error.is_limit() => return Ok(Response::status(413).body(error.to_string()).into()),
                Err(error) if error.is_full() => return Ok(Response::status(503).body(error.to_string()).into()),
                Err(error) => return Ok(Response::status(400).body(error.to_string()).into()),
            };
        }
        Ok(Response::status(200).body(done).into())
    }

    /// Hooks that cannot wait get no hash.
    fn log(&self, request: &Request, _outcome: &Outcome) {
        if text(request, "x-do") == "verify" {
            let answer = crypto::verify_password(&text(request, "x-hash"), b"x");
            log::info!("verify in log: {}", answer.unwrap_err());
        }
    }
}

fn done_once(request: &Request) -> Result<String> {
    let (data, hash) = (text(request, "x-data"), text(request, "x-hash"));
    Ok(match text(request, "x-do").as_str() {
        "digest" => hex(&crypto::digest(Digest::Sha256, &data)),
        "too much" => hex(&crypto::digest(Digest::Sha256, vec![0; (16 << 20) + 1])),
        "hmac" => hex(&crypto::hmac(Digest::Sha512, "key", &data)),
        "seal" => {
            let sealed = crypto::seal(&[7; 32], b"aad", data.as_bytes())?;
            let other = crypto::open(&[8; 32], b"aad", &sealed)?;
            let plain = crypto::open(&[7; 32], b"aad", &sealed)?;
            format!("{} {other:?} {:?}", sealed.len(), plain.map(String::from_utf8))
        }
        "signature" => {
            let [key, signature] = ["x-key", "x-signature"].map(|name| unhex(&text(request, name)));
            crypto::verify(Signature::Ed25519, &key, &data, &signature)?.to_string()
        }
        "argon2id" => crypto::hash_password(PasswordHash::Argon2id, &data)?,
        "bcrypt" => crypto::hash_password(PasswordHash::Bcrypt, &data)?,
        "pbkdf2" => crypto::hash_password(PasswordHash::Pbkdf2Sha256, &data)?,
        "verify" => crypto::verify_password(&hash, &data)?.to_string(),
        _ => "nothing".to_owned(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |idx: usize| u8::from_str_radix(text.get(idx..idx + 2)?, 16).ok();
    (0..text.len()).step_by(2).filter_map(byte).collect()
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
