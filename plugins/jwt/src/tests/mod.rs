//! Signs tokens with the keys of RFC 7515, appendix A, and shows them to the plugin.

mod claims;
mod config;
mod jwks;
mod signatures;
mod source;

use castling_sdk::testing::{self, Exchange};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::{SignatureEncoding, Signer};
use rsa::BigUint;
use rsa::sha2::Sha256;

use super::*;

/// The wall clock of a test's thread.
const NOW: u64 = 1_700_000_000;

fn plugin(json: &str) -> Jwt {
    Jwt::configure(testing::config(json).unwrap()).unwrap()
}

/// A plugin with the ES256 key and these other keys of its config.
fn es256_plugin(more: &str) -> Jwt {
    plugin(&format!(r#"{{"keys": [{{"jwk": {ES256_JWK}}}], {more}}}"#))
}

fn es256_token(claims: &str) -> String {
    sign_es256(r#"{"alg":"ES256"}"#, claims)
}

fn bearer(token: &str) -> Exchange {
    Exchange::get("/").header("authorization", format!("Bearer {token}"))
}

/// Outcome of a request: `"passed"`, or the status and what `WWW-Authenticate` says after `Bearer`.
fn outcome(plugin: &mut Jwt, exchange: &mut Exchange) -> String {
    match plugin.access(exchange.request()).unwrap() {
        Verdict::Continue => String::from("passed"),
        Verdict::Answer(response) => {
            let challenge = response.header_value("www-authenticate").unwrap();
            let challenge = challenge.as_str().unwrap();
            let said = challenge.strip_prefix("Bearer").unwrap();
            format!("{}{said}", response.status_code())
        }
        Verdict::Reroute | Verdict::Streamed(_) => panic!("not answered"),
    }
}

fn outcome_of(plugin: &mut Jwt, token: &str) -> String {
    outcome(plugin, &mut bearer(token))
}

fn refused(reason: &str) -> String {
    format!("401 error=\"invalid_token\", error_description=\"{reason}\"")
}

const UNKNOWN: &str = "no key is known for the token";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", base64(header), base64(claims))
}

fn sign_hs256(header: &str, claims: &str, secret: &[u8]) -> String {
    let input = unsigned(header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    let sum = mac.chain_update(&input).finalize().into_bytes();
    format!("{input}.{}", base64(sum))
}

fn sign_rs256(header: &str, claims: &str) -> String {
    let number = |text: &str| BigUint::from_bytes_be(&decode(text));
    let primes = vec![number(RSA_P), number(RSA_Q)];
    let key = rsa::RsaPrivateKey::from_components(
        number(RSA_N),
        BigUint::from(65_537_u32),
        number(RSA_D),
        primes,
    );
    let signing = rsa::pkcs1v15::SigningKey::<Sha256>::new(key.unwrap());
    let input = unsigned(header, claims);
    let signature = signing.sign(input.as_bytes()).to_bytes();
    format!("{input}.{}", base64(signature))
}

fn sign_es256(header: &str, claims: &str) -> String {
    sign_es256_with(ES256_D, header, claims)
}

fn sign_es256_with(d: &str, header: &str, claims: &str) -> String {
    let signing = p256::ecdsa::SigningKey::from_slice(&decode(d)).unwrap();
    let input = unsigned(header, claims);
    let signature: p256::ecdsa::Signature = signing.sign(input.as_bytes());
    format!("{input}.{}", base64(signature.to_bytes()))
}

/// The public half of an ES256 key.
fn es256_jwk(d: &str, id: &str) -> String {
    let signing = p256::ecdsa::SigningKey::from_slice(&decode(d)).unwrap();
    let point = signing.verifying_key().to_encoded_point(false);
    let (x, y) = (base64(point.x().unwrap()), base64(point.y().unwrap()));
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{id}","x":"{x}","y":"{y}"}}"#)
}

fn decode(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
}

/// RFC 7515 §A.1.
const HS256_JWK: &str = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;

/// RFC 7515 §A.3.
const ES256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const ES256_D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

/// RFC 7515 §A.2.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_D: &str = "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ";
const RSA_P: &str = "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc";
const RSA_Q: &str = "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc";

fn rs256_jwk() -> String {
    format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB"}}"#)
}
