//! Keys, each bound to the one algorithm it is for: a token's header may choose among the keys, never what a key is
//! used for (RFC 8725 §3.1).

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::sha2::Sha256;
use rsa::traits::PublicKeyParts;
use serde_json::Value;

use castling_sdk::prelude::*;

/// RFC 7518 §3.1. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
}

impl Algorithm {
    /// The name's case matters.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// A key that signatures are verified with.
pub(crate) struct Key {
    /// `kid`; any token's that names none.
    pub(crate) id: Option<String>,
    material: Material,
}

enum Material {
    Hs256(Hmac<Sha256>),
    Rs256(rsa::pkcs1v15::VerifyingKey<Sha256>),
    Es256(p256::ecdsa::VerifyingKey),
}

impl Key {
    /// Bytes that both sides know.
    pub(crate) fn from_secret(id: Option<String>, secret: &[u8]) -> Result<Self> {
        // RFC 7518 §3.2.
        if secret.len() < 32 {
            bail!("{} bytes: HS256 needs 32 or more", secret.len());
        }
        let hmac = Hmac::new_from_slice(secret).map_err(Error::msg)?;
        Ok(Self {
            id,
            material: Material::Hs256(hmac),
        })
    }

    /// A public key: PKCS #1 or SubjectPublicKeyInfo (RFC 7468 §13).
    pub(crate) fn from_pem(id: Option<String>, pem: &str) -> Result<Self> {
        let pem = pem.trim();
        let rsa = if pem.starts_with("-----BEGIN RSA PUBLIC KEY-----") {
            RsaPublicKey::from_pkcs1_pem(pem).ok()
        } else if pem.starts_with("-----BEGIN PUBLIC KEY-----") {
            RsaPublicKey::from_public_key_pem(pem).ok()
        } else {
            bail!("expected a public key, in lines that begin with `-----BEGIN PUBLIC KEY-----`");
        };
        let material = match rsa {
            Some(key) => rs256(key)?,
            None => match p256::ecdsa::VerifyingKey::from_public_key_pem(pem) {
                Ok(key) => Material::Es256(key),
                Err(_) => bail!("neither an RSA key of up to 4096 bits nor one of the curve P-256"),
            },
        };
        Ok(Self { id, material })
    }

    /// RFC 7517 §4, RFC 7518 §6. Fails where it is not for verifying one of our algorithms.
    pub(crate) fn from_jwk(jwk: &Value) -> Result<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let usage = text("use").unwrap_or("sig");
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        let verifies = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
        if usage != "sig" || !verifies {
            bail!("it is not for verifying signatures");
        }
        let bytes =
            |name: &str| match text(name).map(|text| BASE64URL_NOPAD.decode(text.as_bytes())) {
                Some(Ok(bytes)) => Ok(bytes),
                Some(Err(_)) => Err(Error::msg(format_args!("{name}: not base64url"))),
                None => Err(Error::msg(format_args!("it has no `{name}`"))),
            };
        let id = text("kid").map(str::to_owned);
        let (key, algorithm) = match text("kty") {
            Some("oct") => (Self::from_secret(id, &bytes("k")?)?, "HS256"),
            Some("RSA") => {
                let number = |name| Ok::<_, Error>(rsa::BigUint::from_bytes_be(&bytes(name)?));
                let key = RsaPublicKey::new(number("n")?, number("e")?).map_err(Error::msg)?;
                let material = rs256(key)?;
                (Self { id, material }, "RS256")
            }
            Some("EC") if text("crv") == Some("P-256") => {
                let material = es256(&bytes("x")?, &bytes("y")?)?;
                (Self { id, material }, "ES256")
            }
            _ => bail!("expected `kty` \"oct\", \"RSA\", or \"EC\" with `crv` \"P-256\""),
        };
        match text("alg") {
            Some(other) if other != algorithm => bail!("its `alg` is not {algorithm}"),
            _ => Ok(key),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Hs256(_) => Algorithm::Hs256,
            Material::Rs256(_) => Algorithm::Rs256,
            Material::Es256(_) => Algorithm::Es256,
        }
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hs256(hmac) => hmac
                .clone()
                .chain_update(message)
                .verify_slice(signature)
                .is_ok(),
            Material::Rs256(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            // RFC 7518 §3.4: 64 bytes, not ASN.1.
            Material::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

fn rs256(key: RsaPublicKey) -> Result<Material> {
    // RFC 7518 §3.3.
    let bits = key.n().bits();
    if bits < 2048 {
        bail!("an RSA key of {bits} bits: RS256 needs 2048 or more");
    }
    Ok(Material::Rs256(rsa::pkcs1v15::VerifyingKey::new(key)))
}

fn es256(x: &[u8], y: &[u8]) -> Result<Material> {
    // RFC 7518 §6.2.1.2: as long as the curve's field.
    let (Ok(x), Ok(y)) = (<[u8; 32]>::try_from(x), <[u8; 32]>::try_from(y)) else {
        bail!(
            "x and y have {} and {} bytes: expected 32",
            x.len(),
            y.len()
        );
    };
    let point = p256::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    match p256::ecdsa::VerifyingKey::from_encoded_point(&point) {
        Ok(key) => Ok(Material::Es256(key)),
        Err(_) => bail!("x and y are no point of the curve P-256"),
    }
}
