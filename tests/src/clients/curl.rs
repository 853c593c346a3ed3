//! curl: versions of HTTP and TLS, client certificates.

use std::path::Path;

use super::{Done, Outcome, Site, Stopped, expect, tool};

pub(super) fn run(site: &mut Site) -> Outcome {
    let curl = tool::program("curl")?;
    let url = |listener| site.url(listener, "/");
    let [tls, clients] = ["listen_tls", "listen_clients"].map(url);
    let plain = format!("http://{}/", site.address("listen"));
    let [ada, eve] = ["ada.pem", "eve.pem"].map(|name| site.file(name));
    let p256 = "X25519 resumed=no";
    let tls13 = format!("TLSv1.3 {p256}");
    let tls12 = format!("TLSv1.2 {p256}");
    let cases: [(&[&str], &str, &str); 13] = [
        (&["--http1.1"], &plain, "1.1 200 | hello"),
        (&["--http1.0"], &plain, "1.1 200 | hello"),
        (&["--http2-prior-knowledge"], &plain, "2 200 | hello"),
        // An HTTP/1.1 request that offers h2c is answered as HTTP/1.1.
        (&["--http2"], &plain, "1.1 200 | hello"),
        (&["--http2"], &tls, &format!("2 200 {tls13}| hello")),
        (&["--http1.1"], &tls, &format!("1.1 200 {tls13}| hello")),
        (&["--tlsv1.3"], &tls, &format!("2 200 {tls13}| hello")),
        (
            &["--tlsv1.2", "--tls-max", "1.2"],
            &tls,
            &format!("2 200 {tls12}| hello"),
        ),
        // 35: the handshake failed; 56: the alert came after the client's part of it, as TLS 1.3 has it.
        (
            &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"],
            &tls,
            "exit 35",
        ),
        (
            &["--cert", &ada],
            &clients,
            &format!("2 200 {tls13}|CN=ada hello"),
        ),
        (
            &["--cert", &ada, "--tls-max", "1.2"],
            &clients,
            &format!("2 200 {tls12}|CN=ada hello"),
        ),
        (&[], &clients, "exit 56"),
        (&["--cert", &eve], &clients, "exit 56"),
    ];
    for (options, url, expected) in cases {
        let got = get(&curl, site, options, url)?;
        expect(got == expected, || {
            format!("curl {options:?} {url}: expected {expected}, got {got}")
        })?;
    }
    reuses(&curl, site, &tls)?;
    Ok(Done::new(
        tool::version(&curl, "--version"),
        "HTTP/1.0, 1.1, 2 by ALPN and prior knowledge, TLS 1.2, 1.3 and not 1.1, client certificate with, \
            without, revoked, uploads of 3 MB on one connection",
    ))
}

/// Result of a run of curl: `VERSION STATUS x-tls|x-tls-client BODY`, or `exit CODE`.
fn get(curl: &Path, site: &Site, options: &[&str], url: &str) -> Result<String, Stopped> {
    let written = "\n%{http_version} %{response_code} %header{x-tls}|%header{x-tls-client}";
    let ca = site.file("ca.pem");
    let fixed = [
        "--silent",
        "--max-time",
        "30",
        "--cacert",
        &ca,
        "--connect-to",
        TO_GATEWAY,
        "--write-out",
        written,
    ];
    let outcome = tool::run(curl, &[&fixed, options, &[url]].concat());
    match outcome.code {
        Some(0) => {
            let (body, facts) = outcome.stdout.split_once('\n').unwrap_or_default();
            Ok(format!("{facts} {body}"))
        }
        code => Ok(format!("exit {}", code.unwrap_or(-1))),
    }
}

/// Sends a body twice on one connection and compares what comes back.
fn reuses(curl: &Path, site: &Site, url: &str) -> Result<(), Stopped> {
    let sent = site.file("sent");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&sent, &bytes).expect("a writable folder");
    let [first, second] = ["first", "second"].map(|name| site.file(name));
    let data = format!("@{sent}");
    let url = format!("{url}echoed");
    let arguments = [
        "--silent",
        "--cacert",
        &site.file("ca.pem"),
        "--connect-to",
        TO_GATEWAY,
        "--data-binary",
        &data,
        "--write-out",
        "%{num_connects}",
        "--output",
        &first,
        &url,
        "--output",
        &second,
        &url,
    ];
    let outcome = tool::run(curl, &arguments);
    let same = [first, second].map(|file| std::fs::read(file).is_ok_and(|got| got == bytes));
    expect(same == [true, true] && outcome.stdout == "10", || {
        format!("curl --data-binary: bodies the same: {same:?}, {outcome:?}")
    })
}

/// The gateway for any port of its name.
const TO_GATEWAY: &str = "site.test::127.0.0.1:";
