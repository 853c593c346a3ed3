//! Certificates of the peers, made once in the benchmark's folder. Nobody trusts them, and no client of the benchmark asks.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};

use super::front::Key;

/// Name that clients ask for.
pub(super) const NAME: &str = "bench.example";

/// Files of the certificate, of its key, and of both, by the names that configs have for them.
pub(super) fn of(key: Key, work: &Path) -> Result<[(&'static str, PathBuf); 3], String> {
    let folder = work.join("tls");
    let stem = match key {
        Key::P256 => "p256",
        Key::Rsa2048 => "rsa2048",
    };
    let file = |ending: &str| folder.join(format!("{stem}.{ending}"));
    let files = [
        ("certificate", file("crt")),
        ("key", file("key")),
        ("pem", file("pem")),
    ];
    if files.iter().all(|(_, file)| file.exists()) {
        return Ok(files);
    }
    let (certificate, key) = made(key).map_err(|e| format!("no certificate can be made: {e}"))?;
    let both = format!("{certificate}{key}");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for ((_, file), text) in files.iter().zip([certificate, key, both]) {
        fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(files)
}

fn made(key: Key) -> Result<(String, String), rcgen::Error> {
    let key = match key {
        Key::P256 => KeyPair::generate()?,
        Key::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    };
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |key| {
            of(key, folder.path())
                .unwrap()
                .map(|(_, file)| fs::read_to_string(file).unwrap())
        };
        let first = read(Key::P256);
        assert!(first[0].starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(first[2], format!("{}{}", first[0], first[1]));
        assert_eq!(read(Key::P256), first);
    }
}
