//! TLS as operators see it: warnings, certificates in `status`, metrics, a key log, and the way from http to https.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use castling_tests::tls::{Authority, Pem, TlsClient};
use castling_tests::{DEADLINE, Proxy, Setup, origin, until};
use rcgen::{CertificateParams, DnType, KeyPair, RsaKeySize};
use rustix::process::geteuid;
use rustls::version;

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"
    [listeners.web.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]
    TLS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

fn certified(authority: &Authority, years: (i32, i32)) -> Pem {
    let mut params = CertificateParams::new(vec!["site.test".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "site");
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    authority.sign(params)
}

fn gateway(pem: &Pem, tls: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("TLS", tls))
        .origin("app", origin::text("served"))
        .file("site.pem", &pem.chain)
        .file("site.key", &pem.key)
}

fn ask(client: &TlsClient, address: SocketAddr) -> std::io::Result<String> {
    let mut tls = client.connect(address, "site.test")?;
    tls.ask(
        "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n",
        "\r\n\r\nserved",
    )
}

/// Answer to bytes without TLS.
fn plain(address: SocketAddr, sent: &str) -> String {
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain.write_all(sent.as_bytes()).unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_certificate_that_ends_is_told_by_check_log_status_and_metrics() {
    let authority = Authority::new("a");
    for (years, warning, days_are) in [
        ((2020, 2021), "HAS EXPIRED at 2021-01-01T00:00:00Z", -1),
        (
            (2400, 2401),
            "IS NOT YET VALID, but from 2400-01-01T00:00:00Z on",
            1,
        ),
    ] {
        let pem = certified(&authority, years);
        let checked = gateway(&pem, "").check().outcome.expect_success().stdout;
        let line = format!("listener web: the certificate for site.test {warning}");
        assert!(checked.contains(&line), "{checked}");
        let proxy = gateway(&pem, "").start();
        proxy.until_log_has(&line);
        let status = proxy.status();
        let certificate = &status["certificates"][0];
        assert_eq!(certificate["listener"], "web");
        assert_eq!(certificate["names"][0], "site.test");
        assert_eq!(
            certificate["not_after"],
            format!("{}-01-01T00:00:00Z", years.1)
        );
        assert_eq!(
            certificate["days_left"].as_i64().unwrap().signum(),
            days_are
        );
        let text = proxy.command("status", &[]).expect_success().stdout;
        assert!(text.contains("days left"), "{text}");
    }
    let pem = certified(&authority, (2020, 2050));
    let checked = gateway(&pem, "").check().outcome.expect_success().stdout;
    assert!(!checked.contains("warning"), "{checked}");
    let proxy = gateway(&pem, "").start();
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let line = "castling_tls_certificate_not_after_seconds{listener=\"web\",name=\"site.test\"} 2524608000";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn check_warns_of_what_nobody_speaks_or_all_read() {
    let authority = Authority::new("a");
    let pem = certified(&authority, (2020, 2050));
    for (line, warning) in [
        (
            "suites = [\"TLS_AES_128_GCM_SHA256\"]",
            "suites: none of them is of TLS 1.2",
        ),
        (
            "handshake_timeout = \"5min\"",
            "handshake_timeout: a client that sends nothing keeps",
        ),
        ("key_log = \"keys.log\"", "KEY LOG IS ON: "),
        (
            "client_certificates = { ca = \"old.pem\" }",
            "client_certificates: authority 1 HAS EXPIRED",
        ),
        (
            "client_certificates = { ca = \"old.pem\", crl = \"old.crl\" }",
            "client_certificates: revocation list 1 IS OUT OF DATE",
        ),
    ] {
        let old = {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
            authority.sign(params)
        };
        let own = old
            .chain
            .split_inclusive("-----END CERTIFICATE-----")
            .next()
            .unwrap();
        let checked = gateway(&pem, line)
            .file("old.pem", own)
            .file("old.crl", authority.revoke(&[1], (2000, 2001)))
            .check();
        let checked = checked.outcome.expect_success().stdout;
        let line = checked.lines().find(|line| line.contains(warning));
        let line = line.unwrap_or_else(|| panic!("{warning}: {checked}"));
        assert!(line.starts_with("warning: "), "{line}");
        assert!(line.contains("castling.toml:"), "{line}");
    }
}

#[test]
fn what_ends_of_tls_to_peers_is_told_too() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["127.0.0.1:1"]
        [upstreams.app.tls]
        certificate = "own.pem"
        key = "own.key"
        ca = "ca.pem"
        crl = "old.crl"
        suites = ["TLS_AES_128_GCM_SHA256"]
        [[routes]]
        upstream = "app"
    "#;
    let authority = Authority::new("a");
    let own = certified(&authority, (2020, 2021));
    let checked = Proxy::with_config(config)
        .file("own.pem", own.chain)
        .file("own.key", own.key)
        .file("ca.pem", authority.pem())
        .file("old.crl", authority.revoke(&[1], (2000, 2001)))
        .check();
    let checked = checked.outcome.expect_success().stdout;
    for warning in [
        "castling.toml:7:7: upstream app: tls: the certificate HAS EXPIRED at 2021-01-01T00:00:00Z",
        "castling.toml:5:1: upstream app: tls: revocation list 1 IS OUT OF DATE",
        "castling.toml:5:1: upstream app: tls: suites: none of them is of TLS 1.2",
    ] {
        let lines = checked.lines().filter(|line| line.contains(warning));
        assert_eq!(lines.count(), 1, "{warning}: {checked}");
    }
}

#[test]
fn an_rsa_key_that_costs_much_is_told() {
    let authority = Authority::new("a");
    for (size, is_told) in [(RsaKeySize::_2048, false), (RsaKeySize::_3072, true)] {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        let mut params = CertificateParams::new(vec!["site.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2050, 1, 1);
        let pem = authority.sign_with(params, &key);
        let checked = gateway(&pem, "").check().outcome.expect_success().stdout;
        let warning = "the certificate for site.test has an RSA key of 3072 bits";
        assert_eq!(checked.contains(warning), is_told, "{checked}");
    }
}

#[test]
fn handshakes_are_counted_by_how_they_end() {
    let authority = Authority::new("a");
    let pem = certified(&authority, (2020, 2050));
    let settings = "unknown_name = \"refuse\"\nhandshake_timeout = \"300ms\"\nclient_certificates = { ca = \"ca.pem\" }";
    let proxy = gateway(&pem, settings)
        .file("ca.pem", authority.pem())
        .start();
    let good = authority.certify_client("ada", 7, (2020, 2050));
    let client = TlsClient::with_versions(&authority, &[&version::TLS13]).with_certificate(&good);
    let address = proxy.address();
    ask(&client, address).expect("full");
    ask(&client, address).expect("resumed");
    ask(&TlsClient::new(&authority), address).expect_err("no certificate");
    let stranger = TlsClient::new(&Authority::new("b")).with_certificate(&good);
    ask(&stranger, address).expect_err("not trusted");
    client
        .connect(address, "other.test")
        .map(drop)
        .expect_err("no such name");
    plain(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    plain(address, "\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f");
    assert_eq!(plain(address, "\x16"), "", "the time is over");
    drop(TcpStream::connect(address).unwrap());
    for result in [
        "full",
        "resumed",
        "client_certificate",
        "refused_by_client",
        "unknown_name",
        "plain_http",
        "malformed",
        "timeout",
        "client_left",
    ] {
        let line =
            format!("castling_tls_handshakes_total{{listener=\"web\",result=\"{result}\"}} 1\n");
        until(&format!("{result} is counted"), || {
            proxy
                .command("metrics", &[])
                .expect_success()
                .stdout
                .contains(&line)
        });
    }
}

#[test]
fn secrets_are_written_where_the_config_says_so_and_for_nobody_else() {
    let authority = Authority::new("a");
    let pem = certified(&authority, (2020, 2050));
    let proxy = gateway(&pem, "key_log = \"keys.log\"").start();
    proxy.until_log_has("KEY LOG IS ON");
    ask(
        &TlsClient::with_versions(&authority, &[&version::TLS13]),
        proxy.address(),
    )
    .unwrap();
    ask(
        &TlsClient::with_versions(&authority, &[&version::TLS12]),
        proxy.address(),
    )
    .unwrap();
    let path = proxy.path("keys.log");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    let keys = std::fs::read_to_string(&path).unwrap();
    for label in [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET ",
        "SERVER_TRAFFIC_SECRET_0 ",
        "CLIENT_RANDOM ",
    ] {
        assert!(
            keys.lines().any(|line| line.starts_with(label)),
            "{label}: {keys}"
        );
    }
    assert!(
        keys.lines().all(|line| line.split(' ').count() == 3),
        "{keys}"
    );
    // The environment does nothing, `check` makes no file, and one that others may read is refused.
    let proxy = gateway(&pem, "")
        .environment("SSLKEYLOGFILE", "{dir}/other.log")
        .start();
    ask(&TlsClient::new(&authority), proxy.address()).unwrap();
    assert!(!proxy.path("other.log").exists());
    let checked = gateway(&pem, "key_log = \"keys.log\"").check();
    checked.outcome.expect_success();
    let setup = gateway(&pem, "key_log = \"keys.log\"").file("keys.log", "");
    let readable = setup.folder().join("keys.log");
    std::fs::set_permissions(&readable, PermissionsExt::from_mode(0o644)).unwrap();
    setup.run().expect_error(
        ": key_log: {dir}/keys.log: others may read it or write to it: expected mode 0600",
    );
}

#[test]
fn a_key_log_belongs_to_the_workers_user_alone() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
        return;
    }
    let authority = Authority::new("a");
    let pem = certified(&authority, (2020, 2050));
    let user = "[workers]\ncount = 2\nuser = \"nobody\"\n";
    let config = CONFIG.replace("TLS", "key_log = \"keys.log\"") + user;
    let start = || {
        let setup = Proxy::with_config(&config)
            .origin("app", origin::text("served"))
            .file("site.pem", &pem.chain)
            .file("site.key", &pem.key);
        setup.open_to_others()
    };
    let proxy = start().start();
    ask(&TlsClient::new(&authority), proxy.address()).unwrap();
    let found = proxy.path("keys.log").metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (NOBODY, 0o600));
    assert!(found.len() > 0);
    // No link is followed, wherever it leads.
    let setup = start();
    std::fs::write(setup.folder().join("precious"), "").unwrap();
    symlink("precious", setup.folder().join("keys.log")).unwrap();
    setup.run().expect_error(": key_log: {dir}/keys.log: ");
}

const NOBODY: u32 = 65534;

const REDIRECT: &str = r#"
    [listeners.plain]
    bind = "{listen}"
    [listeners.secure]
    bind = "{listen_secure}"
    [listeners.secure.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    redirect = REDIRECT
    [[routes]]
    upstream = "app"
    [[routes]]
    path = "/.well-known"
    upstream = "app"
"#;

fn redirecting(redirect: &str) -> Setup {
    let pem = certified(&Authority::new("a"), (2020, 2050));
    Proxy::with_config(&REDIRECT.replace("REDIRECT", redirect))
        .origin("app", origin::text("served"))
        .file("site.pem", &pem.chain)
        .file("site.key", &pem.key)
}

/// Status line and Location of the answer.
fn redirected(proxy: &Proxy, request: &str) -> (String, String) {
    let answer = plain(
        proxy.address(),
        &format!("{request}Connection: close\r\n\r\n"),
    );
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    (status, location.unwrap_or_default().to_owned())
}

#[test]
fn clients_without_tls_are_sent_to_https() {
    let proxy = redirecting("\"https\"").start();
    let port = proxy.address_of("listen_secure").port();
    let get = |target: &str| {
        redirected(
            &proxy,
            &format!("GET {target} HTTP/1.1\r\nHost: site.test:80\r\n"),
        )
    };
    let to = |path: &str| ("308".to_owned(), format!("https://site.test:{port}{path}"));
    assert_eq!(get("/"), to("/"));
    assert_eq!(get("/a/b?c=d&e=https://f/"), to("/a/b?c=d&e=https://f/"));
    assert_eq!(get("//evil.test/"), to("/evil.test/"));
    let post = redirected(
        &proxy,
        "POST /form HTTP/1.1\r\nHost: site.test\r\nContent-Length: 0\r\n",
    );
    assert_eq!(post, to("/form"));
    assert_eq!(redirected(&proxy, "GET / HTTP/1.0\r\n").0, "400");
    assert_eq!(get("/.well-known/x").0, "200");
    // A redirect does not lead to itself.
    let authority = Authority::new("b");
    let pem = certified(&authority, (2020, 2050));
    std::fs::write(proxy.path("site.pem"), pem.chain).unwrap();
    std::fs::write(proxy.path("site.key"), pem.key).unwrap();
    proxy.reload().expect_success();
    let client = TlsClient::new(&authority);
    until("https is served", || {
        ask(&client, proxy.address_of("listen_secure")).is_ok()
    });
}

#[test]
fn a_request_that_a_trusted_proxy_had_by_https_is_not_sent_there_again() {
    let config = REDIRECT.replace("REDIRECT", "\"https\"");
    let trusting = "[listeners.plain]\n    trusted_proxies = [\"127.0.0.0/8\"]";
    let pem = certified(&Authority::new("a"), (2020, 2050));
    let proxy = Proxy::with_config(&config.replace("[listeners.plain]", trusting))
        .origin("app", origin::text("served"))
        .file("site.pem", &pem.chain)
        .file("site.key", &pem.key)
        .start();
    for (scheme, status) in [("https", "200"), ("http", "308")] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: {scheme}\r\n");
        assert_eq!(redirected(&proxy, &request).0, status, "{scheme}");
    }
}

#[test]
fn a_redirects_status_and_port_can_be_said() {
    let proxy = redirecting("{ to = \"https\", status = 301, port = 443 }").start();
    let found = redirected(&proxy, "GET /a HTTP/1.1\r\nHost: site.test:8080\r\n");
    assert_eq!(found, ("301".to_owned(), "https://site.test/a".to_owned()));
    for (redirect, error) in [
        ("\"http\"", "redirect \"http\": expected \"https\""),
        (
            "{ to = \"https\", status = 303 }",
            "status 303: expected 301, 302, 307 or 308",
        ),
        ("{ status = 301 }", "missing key \"to\": expected \"https\""),
        (
            "\"https\"\nupstream = \"app\"",
            "redirect and an upstream: expected one of them",
        ),
        (
            "\"https\"\nmetrics = true",
            "redirect and metrics: expected one of them",
        ),
        (
            "\"https\"\nlisteners = [\"secure\"]",
            "redirect: listener secure has TLS, and would lead to itself; expected listeners without",
        ),
    ] {
        redirecting(redirect).check().expect_error(error);
    }
}
