//! Scanners of TLS: testssl.sh and sslscan.

use std::path::Path;

use serde_json::Value;

use super::{Done, Outcome, Site, Stopped, expect, site, tool};

/// Findings that are not counted, by the begin of their ids, and why.
const NOT_COUNTED: [(&str, &str); 7] = [
    (
        "cipher_order",
        "the client's order decides, since all suites are strong",
    ),
    ("cert_chain_of_trust", "the authority is a test's"),
    (
        "cert_notRevoked",
        "the authority has neither lists nor OCSP",
    ),
    (
        "cert_revocation",
        "the authority has neither lists nor OCSP",
    ),
    ("cert_caIssuers", "the authority has neither lists nor OCSP"),
    ("OCSP_stapling", "the authority has neither lists nor OCSP"),
    ("DNS_CAArecord", "the name is not in the DNS"),
];

/// Checks that testssl.sh may fail to make.
const MAX_UNDONE: usize = 4;

/// Severities that are no finding above low.
const FINE: [&str; 4] = ["OK", "INFO", "LOW", "DEBUG"];

pub(super) fn run(site: &mut Site) -> Outcome {
    let testssl = tool::program("testssl")?;
    let json = site.file("testssl.json");
    let url = site.url("listen_tls", "/");
    let arguments = [
        "--quiet",
        "--warnings",
        "batch",
        "--color",
        "0",
        "--ip",
        "127.0.0.1",
        "--nodns",
        "none",
        "--jsonfile",
        &json,
        "--protocols",
        "--std",
        "--server-preference",
        "--fs",
        "--server-defaults",
        "--vulnerable",
        &url,
    ];
    let outcome = tool::run(&testssl, &arguments);
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    expect(findings.len() > 50, || {
        format!("testssl.sh: {}{}", outcome.stdout, outcome.stderr)
    })?;
    let (mut left_out, mut undone) = (Vec::new(), Vec::new());
    for finding in &findings {
        let [id, severity, told] =
            ["id", "severity", "finding"].map(|key| finding[key].as_str().unwrap_or_default());
        let reason = NOT_COUNTED.iter().find(|(begin, _)| id.starts_with(begin));
        match (reason, severity) {
            (_, severity) if FINE.contains(&severity) => {}
            (Some((_, why)), _) => left_out.push(format!("not counted: {id}: {why}")),
            // A check of its own that failed, on a machine that does other things.
            (None, "WARN") => undone.push(format!("not checked: {id}: {told}")),
            (None, _) => {
                return Err(Stopped::Failed(format!(
                    "testssl.sh: {severity}: {id}: {told}"
                )));
            }
        }
    }
    expect(undone.len() < MAX_UNDONE, || {
        format!("testssl.sh: {undone:?}")
    })?;
    let mut done = Done::new(
        tool::version(&testssl, "--version"),
        format!(
            "protocols, ciphers, forward secrecy, certificates, vulnerabilities: {} findings, none above LOW but \
            {} that are not counted",
            findings.len(),
            left_out.len()
        ),
    );
    done.notes = undone.into_iter().chain(left_out).collect();
    Ok(done)
}

/// sslscan: versions, and how strong what is accepted is.
pub(super) fn sslscan(site: &mut Site) -> Outcome {
    let sslscan = tool::program("sslscan")?;
    let address = site.address("listen_tls").to_string();
    let name = format!("--sni-name={}", site::NAME);
    let outcome = tool::run(&sslscan, &["--no-colour", &name, &address]);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        is_said(&lines, version, "disabled")?;
    }
    for version in ["TLSv1.2", "TLSv1.3"] {
        is_said(&lines, version, "enabled")?;
    }
    let suites = lines
        .iter()
        .filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"));
    let weak: Vec<_> = suites
        .clone()
        .filter(|line| !line.contains("GCM") && !line.contains("CHACHA20"))
        .collect();
    expect(weak.is_empty() && suites.clone().count() > 5, || {
        format!("sslscan: {weak:?} of {}", outcome.stdout)
    })?;
    Ok(Done::new(
        version(&sslscan),
        format!("TLS 1.2 and 1.3 alone, {} suites, all AEAD", suites.count()),
    ))
}

fn is_said(lines: &[&str], begin: &str, end: &str) -> Result<(), Stopped> {
    let mut own = lines.iter().filter(|line| line.starts_with(begin));
    expect(own.any(|line| line.trim_end().ends_with(end)), || {
        format!("sslscan: {begin} is not {end}: {lines:#?}")
    })
}

fn version(sslscan: &Path) -> String {
    tool::version(sslscan, "--version")
}
