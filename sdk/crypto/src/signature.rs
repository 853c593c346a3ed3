//! Signatures that are verified.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use castling_abi::{Signature, Status};

/// Whether the signature of the message is the key's. A public key is the DER of a SubjectPublicKeyInfo (RFC 5280 §4.1), or the bare key: an
/// uncompressed point (SEC 1 §2.3.3), the 32 bytes of Ed25519 (RFC 8032), an RSAPublicKey (RFC 8017 §A.1.1). What is none is a bad
/// argument.
pub fn verify(
    algorithm: Signature,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Status> {
    let algorithm: &'static dyn VerificationAlgorithm = match algorithm {
        Signature::EcdsaP256Sha256Fixed => &ECDSA_P256_SHA256_FIXED,
        Signature::EcdsaP256Sha256Asn1 => &ECDSA_P256_SHA256_ASN1,
        Signature::EcdsaP384Sha384Fixed => &ECDSA_P384_SHA384_FIXED,
        Signature::EcdsaP384Sha384Asn1 => &ECDSA_P384_SHA384_ASN1,
        Signature::Ed25519 => &ED25519,
        Signature::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        Signature::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
    };
    let key = ParsedPublicKey::new(algorithm, key).map_err(|_| Status::BadArgument)?;
    Ok(key.verify_sig(message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    };

    use super::*;

    #[test]
    fn signatures_are_told_from_others() {
        let p256 = |signing: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
            let key = pair.public_key().as_ref().to_vec();
            (key, signature.as_ref().to_vec())
        };
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let signed = ed25519.sign(b"message").as_ref().to_vec();
        for (algorithm, (key, signature)) in [
            (
                Signature::EcdsaP256Sha256Fixed,
                p256(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ),
            (
                Signature::EcdsaP256Sha256Asn1,
                p256(&ECDSA_P256_SHA256_ASN1_SIGNING),
            ),
            (
                Signature::Ed25519,
                (ed25519.public_key().as_ref().to_vec(), signed),
            ),
        ] {
            let is_good =
                |message: &[u8], signature: &[u8]| verify(algorithm, &key, message, signature);
            assert_eq!(is_good(b"message", &signature), Ok(true), "{algorithm:?}");
            assert_eq!(is_good(b"massage", &signature), Ok(false));
            assert_eq!(is_good(b"message", &signature[1..]), Ok(false));
            assert_eq!(is_good(b"message", b""), Ok(false));
            let cut = verify(algorithm, &key[1..], b"message", &signature);
            assert_eq!(cut, Err(Status::BadArgument));
        }
    }
}
