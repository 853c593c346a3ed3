//! Ids of cryptography, and of facts of files.

/// Most bytes, key and additional data included, that one call digests, authenticates, seals, opens or verifies: it is done before the gateway serves
/// anything else. A call with more traps.
pub const LARGEST_CRYPTO_BYTES: usize = 16 << 20;

ids! {
    /// SHA-2 (FIPS 180-4).
    Digest: u32 {
        /// 32 bytes.
        Sha256 = 0, "sha256";
        /// 48 bytes.
        Sha384 = 1, "sha384";
        /// 64 bytes.
        Sha512 = 2, "sha512";
    }
}

ids! {
    /// Signatures that [`crate::imports::SIGNATURE_VERIFY`] verifies.
    Signature: u32 {
        /// ECDSA on P-256 with SHA-256, `r` and `s` of 32 bytes each (`ES256` of RFC 7518).
        EcdsaP256Sha256Fixed = 0, "ecdsa p-256 sha-256";
        /// ASN.1 of the same (RFC 3279 §2.2.3).
        EcdsaP256Sha256Asn1 = 1, "ecdsa p-256 sha-256 asn.1";
        /// ECDSA on P-384 with SHA-384, `r` and `s` of 48 bytes each (`ES384`).
        EcdsaP384Sha384Fixed = 2, "ecdsa p-384 sha-384";
        /// ASN.1 of the same.
        EcdsaP384Sha384Asn1 = 3, "ecdsa p-384 sha-384 asn.1";
        /// Ed25519 (RFC 8032).
        Ed25519 = 4, "ed25519";
        /// RSASSA-PKCS1-v1_5 with SHA-256 (`RS256`), keys of 2048 to 8192 bits.
        RsaPkcs1Sha256 = 5, "rsa pkcs#1 sha-256";
        /// RSASSA-PSS with SHA-256 (`PS256`), keys of 2048 to 8192 bits.
        RsaPssSha256 = 6, "rsa pss sha-256";
    }
}

ids! {
    /// Hashes of passwords that [`crate::imports::PASSWORD_HASH`] makes.
    PasswordHash: u32 {
        /// Argon2id (RFC 9106) with 19 MiB and two passes.
        Argon2id = 0, "argon2id";
        /// bcrypt of cost 12; passwords of up to 72 bytes.
        Bcrypt = 1, "bcrypt";
        /// PBKDF2-HMAC-SHA256 (RFC 8018) with 600,000 rounds.
        Pbkdf2Sha256 = 2, "pbkdf2-sha256";
    }
}

ids! {
    /// Facts of a granted file, which [`crate::imports::FILE_FACT`] tells.
    FileFact: u32 {
        /// Length in bytes.
        Length = 0, "length";
        /// A number that other contents have another of.
        Version = 1, "version";
    }
}
