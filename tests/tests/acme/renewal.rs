//! Times of renewals.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use castling_tests::origin::{self, Origin};
use castling_tests::pebble::Pebble;
use castling_tests::tls::Authority;
use castling_tests::{Proxy, tls_origin, until};

use super::{Site, generation, ordered, record, stored};

#[test]
fn it_is_renewed_while_connections_go_on() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().lasting(9).start_at(site.api);
    let (proxy, client, first) = ordered(&site, &pebble, "challenges = [\"tls-alpn-01\"]");
    let mut tls = client.connect(site.tls, "one.test").unwrap();
    let request = "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n";
    tls.ask(request, "served").unwrap();
    until("another certificate", || {
        site.ask(&client, "one.test")
            .is_ok_and(|shown| shown != first)
    });
    tls.ask(request, "served").unwrap();
    assert_eq!(generation(&proxy), 1);
}

#[test]
fn a_certificate_that_is_to_be_renewed_when_it_comes_is_a_failure() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().lasting(1).start_at(site.api);
    let proxy = site.gateway(&pebble, "", "[\"one.test\"]").start();
    proxy.until_log_has(": the authority's certificate is ");
    let acme = proxy.status()["acme"][0].clone();
    assert_eq!(acme["failures"], 1, "{acme}");
    assert!(acme["last_error"].is_string(), "{acme}");
    assert_eq!(pebble.said("Issued certificate serial"), 1);
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let failed = "castling_acme_orders_total{result=\"failed\"} 1";
    assert!(metrics.contains(failed), "{metrics}");
}

/// The time so many seconds from now, RFC 3339.
fn time(from_now: i64) -> String {
    let at = format!("{from_now} seconds");
    let said = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &at])
        .output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    said.trim().to_owned()
}

/// A directory with pebble's URLs and one for renewals, which says each of these windows (seconds from now) once, the last for ever.
fn directory_with_windows(
    authority: &Authority,
    pebble: &Pebble,
    windows: &'static [(i64, i64)],
) -> (Origin, Arc<AtomicUsize>) {
    let said = pebble.get(pebble.api(), "/dir");
    let json = &said[said.find("\r\n\r\n").unwrap()..];
    let json = &json[json.find('{').unwrap()..=json.rfind('}').unwrap()];
    let directory: serde_json::Value = serde_json::from_str(json).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let config = tls_origin::server(&authority.certify(&["127.0.0.1"]), rustls::ALL_VERSIONS);
    let (origin, _) = tls_origin::scripted(config, move |connection, _| {
        let head = connection.read_head()?;
        let host = head.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("no host")?;
        let mut directory = directory.clone();
        directory["renewalInfo"] = format!("https://{host}/renewal").into();
        let body = match head.starts_with("GET /dir ") {
            true => directory.to_string(),
            false => {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let (start, end) = windows[number.min(windows.len() - 1)];
                let window = serde_json::json!({ "start": time(start), "end": time(end) });
                serde_json::json!({ "suggestedWindow": window }).to_string()
            }
        };
        connection.answer(
            "Retry-After: 21600\r\nConnection: close\r\n",
            body.as_bytes(),
        )?;
        connection.close()
    });
    (origin, asked)
}

#[test]
fn the_authority_says_when_to_renew() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let authority = Authority::new("the directory");
    // The first certificate is to be renewed at once, the second in some days.
    let windows = &[(-7200, -3600), (400_000, 500_000)];
    let (directory, asked) = directory_with_windows(&authority, &pebble, windows);
    let own = format!("https://{}/dir", directory.address());
    let config = site
        .config("", "[\"one.test\"]")
        .replace(&pebble.directory(), &own);
    let roots = authority.pem() + &pebble.authority.pem();
    let mut proxy = Proxy::with_config(&config)
        .origin("app", origin::text("served"))
        .file("api.pem", roots)
        .start();
    let client = pebble.client();
    site.until_served(&client, "one.test");
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap().as_secs() as i64
    };
    let until_window_from = |proxy: &Proxy, wanted: std::ops::Range<i64>| {
        let mut known = serde_json::Value::Null;
        until("the window", || {
            known = record(proxy);
            let start = known["window"]["start"].as_i64();
            start.is_some_and(|at| wanted.contains(&(at - now())))
        });
        known
    };
    let mut known = until_window_from(&proxy, -9000..-7000);
    // Renewals wait for an hour, however much the authority hurries.
    let wait = known["not_before"].as_i64().unwrap() - now();
    assert!((3000..=3600).contains(&wait), "{known}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(pebble.said("Issued certificate serial"), 1);
    known["not_before"] = 0.into();
    // Nobody else writes to the store meanwhile.
    proxy.command("stop", &[]).expect_success();
    proxy.until_ended();
    fs::write(&stored(&proxy, "json")[0], known.to_string()).unwrap();
    proxy.start_again();
    until_window_from(&proxy, 300_000..450_000);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(pebble.said("Issued certificate serial"), 2);
    let status = &proxy.status()["acme"][0];
    assert!(status["next_order"].as_str() < status["not_after"].as_str());
    assert_eq!(proxy.error_lines(), [""; 0]);
}
