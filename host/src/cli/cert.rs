//! `castling cert self-signed`

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::Outcome;

/// Names of a certificate that names none: those of this machine to itself.
pub(super) const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Files that are made.
const CHAIN: &str = "cert.pem";
const KEY: &str = "key.pem";

/// How long it is good.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Clocks of clients may be that slow.
const SLACK: Duration = Duration::from_secs(60 * 60);

/// Makes a key and a certificate for these names, into this folder. What is there stays.
pub(super) fn self_signed(names: &[String], folder: &Path) -> Outcome {
    let made = made(names).map_err(|error| vec![format!("no certificate can be made: {error}")])?;
    let (chain, key) = (folder.join(CHAIN), folder.join(KEY));
    let about = |path: &Path, error: io::Error| vec![format!("{}: {error}", path.display())];
    fs::create_dir_all(folder).map_err(|error| about(folder, error))?;
    write_new(&key, 0o600, &made.key).map_err(|error| about(&key, error))?;
    write_new(&chain, 0o644, &made.chain).map_err(|error| about(&chain, error))?;
    println!(
        "certificate = {:?}, key = {:?}: P-256, for {}, good for a year.\n\
         No client trusts it by itself: it is for development.",
        chain.display().to_string(),
        key.display().to_string(),
        names.join(", ")
    );
    Ok(())
}

/// Certificate and key, in PEM.
struct Made {
    chain: String,
    key: String,
}

fn made(names: &[String]) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - SLACK).into(), (now + LIFETIME).into());
    params.distinguished_name = DistinguishedName::new();
    let name = "castling, self-signed";
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?;
    Ok(Made {
        chain: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Writes a file that must not be there, readable as `mode` says from its first byte on.
fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())
}
