//! `openssl s_client`: handshakes, sessions over reloads and an upgrade, ALPN, the certificate that a client can check, the end.

use std::path::PathBuf;

use super::{Done, Outcome, Site, Stopped, expect, site, tool};

/// Reloads over which a session must be resumed, before the upgrade.
const RELOADS: usize = 5;

pub(super) fn run(site: &mut Site) -> Outcome {
    let client = Client {
        program: tool::program("openssl")?,
    };
    for (option, version) in VERSIONS {
        client.whole(site, option, version)?;
        client.protocols(site, option)?;
        client.certificates(site, option)?;
    }
    client.sessions(site)?;
    Ok(Done::new(
        tool::version(&client.program, "version"),
        format!(
            "TLS 1.2 and 1.3: full handshakes, close_notify, ALPN, ECDSA and RSA by signature algorithms, sessions \
            resumed over {RELOADS} reloads and an upgrade"
        ),
    ))
}

const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];

struct Client {
    program: PathBuf,
}

impl Client {
    /// Output of a connection that sends a GET and reads up to its end.
    fn get(&self, site: &Site, options: &[&str]) -> String {
        let address = site.address("listen_tls").to_string();
        let ca = site.file("ca.pem");
        let fixed = ["s_client", "-connect", &address, "-servername", site::NAME];
        let checks = ["-CAfile", &ca, "-verify_return_error", "-ign_eof"];
        let request = "GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n";
        let arguments = [&fixed[..], &checks, options].concat();
        let outcome = tool::run_with_input(&self.program, &arguments, request);
        outcome.stdout + &outcome.stderr
    }

    /// Fails unless the output has all of these.
    fn expect(&self, site: &Site, options: &[&str], texts: &[&str]) -> Result<(), Stopped> {
        let got = self.get(site, options);
        let missing = texts.iter().find(|text| !got.contains(**text));
        expect(missing.is_none(), || {
            format!("openssl s_client {options:?}: no {missing:?} in {got}")
        })
    }

    /// A handshake, an answer, and an end that is said: OpenSSL 3 tells of one that is not.
    fn whole(&self, site: &Site, option: &str, version: &str) -> Result<(), Stopped> {
        let told = format!("x-tls: {version} X25519 resumed=no");
        let texts = ["Verify return code: 0 (ok)", &told, "hello", "closed\n"];
        self.expect(site, &[option], &texts)?;
        let got = self.get(site, &[option]);
        expect(!got.contains("unexpected eof"), || {
            format!("openssl s_client {option}: no close_notify: {got}")
        })
    }

    fn protocols(&self, site: &Site, option: &str) -> Result<(), Stopped> {
        for (offered, agreed) in [
            ("h2", "ALPN protocol: h2"),
            ("http/1.1,h2", "ALPN protocol: "),
            ("http/1.1", "ALPN protocol: http/1.1"),
            // RFC 7301 §3.2: a client that offers nothing that is spoken is told so.
            ("spdy/1", "alert no application protocol"),
        ] {
            self.expect(site, &[option, "-alpn", offered], &[agreed])?;
        }
        Ok(())
    }

    /// The certificate is of the kind whose signatures the client can check.
    fn certificates(&self, site: &Site, option: &str) -> Result<(), Stopped> {
        for (algorithms, signature, key) in [
            ("ECDSA+SHA256", "Peer signature type: ECDSA", "256 bit"),
            ("RSA-PSS+SHA256", "Peer signature type: RSA-PSS", "2048 bit"),
            (
                "ECDSA+SHA256:RSA-PSS+SHA256",
                "Peer signature type: ECDSA",
                "256 bit",
            ),
        ] {
            let key = format!("Server public key is {key}");
            // OpenSSL's own check of the chain's signature takes ECDSA.
            let options = [option, "-sigalgs", algorithms];
            self.expect(site, &options, &[signature, &key])?;
        }
        Ok(())
    }

    fn sessions(&self, site: &mut Site) -> Result<(), Stopped> {
        let file = |option: &str| site.proxy.path(&option[1..]).display().to_string();
        let files = VERSIONS.map(|(option, _)| file(option));
        for ((option, version), session) in VERSIONS.iter().zip(&files) {
            let new = format!("New, {version}");
            self.expect(site, &[option, "-sess_out", session], &[&new])?;
        }
        for turn in 0..=RELOADS {
            match turn {
                RELOADS => site.proxy.upgrade(&[]).expect_success(),
                _ => site.proxy.reload().expect_success(),
            };
            for ((option, version), session) in VERSIONS.iter().zip(&files) {
                let reused = format!("Reused, {version}");
                let options = [option, "-sess_in", session, "-sess_out", session];
                self.expect(site, &options, &[&reused, "resumed=yes", "hello"])?;
            }
        }
        Ok(())
    }
}
