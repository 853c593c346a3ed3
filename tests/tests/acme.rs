//! Certificates that the gateway orders itself, from pebble.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use castling_tests::origin;
use castling_tests::pebble::{self, Pebble, PebbleSetup, free_address};
use castling_tests::tls::TlsClient;
use castling_tests::{Proxy, Setup, tls_origin, until};

#[path = "acme/renewal.rs"]
mod renewal;

const CONFIG: &str = r#"
    [acme]
    agree_to_terms = true
    directory = "DIRECTORY"
    ca = "api.pem"
    contact = "hostmaster@one.test"
    MORE

    [listeners.web]
    bind = "HTTP"

    [listeners.secure]
    bind = "TLS"
    [listeners.secure.tls]
    acme = NAMES

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    listeners = ["web"]
    redirect = "https"

    [[routes]]
    listeners = ["secure"]
    upstream = "app"
"#;

/// Addresses of a gateway and the authority that it asks, which know one another.
struct Site {
    http: SocketAddr,
    tls: SocketAddr,
    api: SocketAddr,
}

impl Site {
    /// `None`, and a loud line, where there is no authority.
    fn new() -> Option<Self> {
        if !pebble::is_installed() {
            eprintln!("SKIPPED, needs Debian's package pebble: {}", file!());
            return None;
        }
        Some(Self {
            http: free_address(),
            tls: free_address(),
            api: free_address(),
        })
    }

    fn pebble(&self) -> PebbleSetup {
        pebble::asking(self.http, self.tls)
    }

    fn config(&self, more: &str, names: &str) -> String {
        CONFIG
            .replace("DIRECTORY", &format!("https://{}/dir", self.api))
            .replace("HTTP", &self.http.to_string())
            .replace("TLS", &self.tls.to_string())
            .replace("NAMES", names)
            .replace("MORE", more)
    }

    fn gateway(&self, pebble: &Pebble, more: &str, names: &str) -> Setup {
        Proxy::with_config(&self.config(more, names))
            .origin("app", origin::text("served"))
            .file("api.pem", pebble.authority.pem())
    }

    /// Asks over TLS, by a name, and returns the serial number of the certificate that was shown.
    fn ask(&self, client: &TlsClient, name: &str) -> Result<Vec<u8>, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut tls = client.connect(self.tls, name).map_err(told)?;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        tls.ask(request, "\r\n\r\nserved").map_err(told)?;
        let shown = tls.connection().peer_certificates();
        Ok(shown.expect("a certificate")[0].to_vec())
    }

    /// Waits until a certificate of the authority is served.
    #[track_caller]
    fn until_served(&self, client: &TlsClient, name: &str) -> Vec<u8> {
        let mut shown = Vec::new();
        until("a certificate", || match self.ask(client, name) {
            Ok(certificate) => {
                shown = certificate;
                true
            }
            Err(_) => false,
        });
        shown
    }
}

fn generation(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let generations = status["generations"].as_array().unwrap();
    generations.last().unwrap()["id"].as_u64().unwrap()
}

/// Files of the store with this extension.
fn stored(proxy: &Proxy, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(proxy.path("acme")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let of_kind = files.filter(|path| path.extension().is_some_and(|it| it == extension));
    let certificates = of_kind.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !name.starts_with("account-")
    });
    certificates.collect()
}

/// Record of the one certificate that is ordered.
fn record(proxy: &Proxy) -> serde_json::Value {
    let [record] = &stored(proxy, "json")[..] else {
        panic!("one record");
    };
    serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap()
}

/// Has a certificate ordered by this challenge, and served by the workers that are running.
fn is_ordered_by(challenge: &str, more: &str, pebble: impl FnOnce(PebbleSetup) -> PebbleSetup) {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = pebble(site.pebble()).start_at(site.api);
    let more = format!("challenges = [\"{challenge}\"]\n{more}");
    let names = "[\"one.test\", \"www.one.test\"]";
    let proxy = site.gateway(&pebble, &more, names).start();
    let workers = proxy.workers();
    let client = pebble.client();
    site.until_served(&client, "one.test");
    site.until_served(&client, "www.one.test");
    assert_eq!(generation(&proxy), 1, "no reload");
    assert_eq!(proxy.workers(), workers);
    proxy.until_log_has("acme: certificate issued");
    let status = proxy.status();
    let acme = &status["acme"][0];
    assert_eq!(
        acme["names"],
        serde_json::json!(["one.test", "www.one.test"])
    );
    assert_eq!(
        (&acme["state"], &acme["failures"]),
        (&"held".into(), &0.into())
    );
    assert!(acme["last_error"].is_null());
    assert!(acme["next_order"].as_str() < acme["not_after"].as_str());
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    assert!(
        metrics.contains("castling_acme_orders_total{result=\"issued\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains(
        "castling_tls_certificate_not_after_seconds{listener=\"secure\",name=\"one.test\"} "
    ));
    for file in fs::read_dir(proxy.path("acme")).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().mode() & 0o777,
            0o600,
            "{:?}",
            file.path()
        );
    }
    assert_eq!(
        fs::metadata(proxy.path("acme")).unwrap().mode() & 0o777,
        0o700
    );
    // Answers are gone with the order.
    let reply = castling_tests::RawClient::connect(site.http)
        .send("GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: one.test\r\n\r\n")
        .read_reply();
    assert_eq!(reply.status, 308);
    let challenge = client_of_authority(&pebble).connect(site.tls, "one.test");
    let refused = challenge.map(drop).unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

fn client_of_authority(pebble: &Pebble) -> TlsClient {
    pebble.client().offering(&["acme-tls/1"])
}

#[test]
fn a_certificate_is_ordered_by_http_01() {
    is_ordered_by("http-01", "", |pebble| pebble);
}

#[test]
fn a_certificate_is_ordered_by_tls_alpn_01() {
    is_ordered_by("tls-alpn-01", "", |pebble| pebble);
}

#[test]
fn nonces_that_are_refused_are_got_anew() {
    is_ordered_by("http-01", "key_type = \"p384\"", |pebble| {
        // The library tries three times: of more, some order would fail now and then.
        pebble.with("PEBBLE_WFE_NONCEREJECT", "5")
    });
}

#[test]
fn names_that_are_known_as_ours_need_no_challenge() {
    is_ordered_by("tls-alpn-01", "key_type = \"rsa2048\"", |pebble| {
        pebble.with("PEBBLE_VA_ALWAYS_VALID", "1")
    });
}

#[test]
fn an_account_is_bound_to_one_elsewhere() {
    let (kid, key) = pebble::EXTERNAL_ACCOUNT;
    let more = format!("external_account = {{ kid = \"{kid}\", hmac_key = \"{key}\" }}");
    is_ordered_by("http-01", &more, PebbleSetup::with_external_account);
}

/// Files of a site whose certificate has come.
fn ordered(site: &Site, pebble: &Pebble, more: &str) -> (Proxy, TlsClient, Vec<u8>) {
    let proxy = site.gateway(pebble, more, "[\"one.test\"]").start();
    let client = pebble.client();
    let certificate = site.until_served(&client, "one.test");
    (proxy, client, certificate)
}

#[test]
fn it_is_kept_over_restarts_reloads_and_upgrades() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let (mut proxy, client, certificate) = ordered(&site, &pebble, "");
    let is_kept = || assert_eq!(site.ask(&client, "one.test").as_ref(), Ok(&certificate));
    proxy.command("stop", &[]).expect_success();
    proxy.until_ended();
    proxy.start_again();
    is_kept();
    proxy.reload().expect_success();
    is_kept();
    proxy.upgrade(&[]).expect_success();
    is_kept();
    // The new master orders what the config wants from now on.
    let names = "[[\"one.test\"], [\"two.test\"]]";
    let config = site.config("", names);
    proxy.reload_with(&config).expect_success();
    site.until_served(&client, "two.test");
    is_kept();
    assert_eq!(
        pebble.said("Issued certificate serial"),
        2,
        "{}",
        pebble.log()
    );
    assert_eq!(stored(&proxy, "pem").len(), 2);
    // Workers that replace others have it, too.
    proxy.workers()[0].signal(rustix::process::Signal::KILL);
    proxy.until_log_has("worker died: replaced");
    proxy.until_workers(2);
    for _ in 0..20 {
        is_kept();
    }
}

/// Has the authority take its time over what it looks at.
fn slowly(pebble: PebbleSetup) -> PebbleSetup {
    pebble
        .with("PEBBLE_VA_NOSLEEP", "0")
        .with("PEBBLE_VA_SLEEPTIME", "5")
}

/// A gateway in the middle of an order.
fn in_an_order(site: &Site, pebble: &Pebble) -> Proxy {
    let proxy = site.gateway(pebble, "", "[\"one.test\"]").start();
    until("an order", || {
        proxy.status()["acme"][0]["state"] == "ordering"
    });
    proxy
}

#[test]
fn an_order_goes_on_over_reloads_and_with_workers_that_start() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = slowly(site.pebble()).start_at(site.api);
    let proxy = in_an_order(&site, &pebble);
    proxy.reload().expect_success();
    for worker in proxy.workers() {
        worker.signal(rustix::process::Signal::KILL);
    }
    site.until_served(&pebble.client(), "one.test");
    assert_eq!(pebble.said("POST /order-plz"), 1, "{}", pebble.log());
    assert_eq!(proxy.status()["acme"][0]["failures"], 0);
}

#[test]
fn an_order_is_begun_anew_by_a_master_that_takes_over() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = slowly(site.pebble()).start_at(site.api);
    let mut proxy = in_an_order(&site, &pebble);
    proxy.upgrade(&[]).expect_success();
    site.until_served(&pebble.client(), "one.test");
    until("the record", || {
        let acme = &proxy.status()["acme"][0];
        (&acme["state"], &acme["failures"]) == (&"held".into(), &0.into())
    });
}

#[test]
fn an_order_ends_with_its_names() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = slowly(site.pebble()).start_at(site.api);
    let mut proxy = in_an_order(&site, &pebble);
    let pem = pebble.authority.certify(&["one.test"]);
    fs::write(proxy.path("site.pem"), pem.chain).unwrap();
    fs::write(proxy.path("site.key"), pem.key).unwrap();
    let own = "certificates = [{ certificate = \"site.pem\", key = \"site.key\" }]";
    let config = site.config("", "[]").replace("acme = []", own);
    proxy.reload_with(&config).expect_success();
    until("the helper's end", || {
        proxy.master().children_with("acme").is_empty()
    });
    assert_eq!(proxy.status()["acme"], serde_json::json!([]));
    let client = TlsClient::new(&pebble.authority);
    site.ask(&client, "one.test").unwrap();
}

#[test]
fn another_users_workers_and_helpers_have_no_part_in_the_store() {
    let Some(site) = Site::new() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
        return;
    }
    let pebble = slowly(site.pebble()).start_at(site.api);
    let more = "[workers]\ncount = 2\nuser = \"nobody\"";
    let setup = site.gateway(&pebble, more, "[\"one.test\"]");
    let proxy = setup.open_to_others().start();
    let mut helper = None;
    until("the helper", || {
        helper = proxy.master().children_with("acme").first().copied();
        helper.is_some()
    });
    let helper = helper.unwrap();
    assert_eq!(helper.status("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(helper.status("CapEff:"), "0000000000000000");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", helper.0)).unwrap();
    for descriptor in descriptors.flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        assert!(!target.starts_with(proxy.path("acme")), "{target:?}");
    }
    site.until_served(&pebble.client(), "one.test");
    let store = fs::metadata(proxy.path("acme")).unwrap();
    assert_eq!((store.uid(), store.mode() & 0o777), (0, 0o700));
    let certificates = proxy.status()["certificates"].clone();
    assert_eq!(certificates[0]["listener"], "secure");
    assert_eq!(certificates[0]["days_left"], 89);
}

#[test]
fn a_reload_that_is_refused_changes_no_certificate() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let (mut proxy, client, first) = ordered(&site, &pebble, "");
    // Another URL of the authority makes another one of it, to the gateway.
    let here = site.config("", "[\"one.test\"]");
    let there = here.replace("https://127.0.0.1", "https://localhost");
    proxy.reload_with(&there).expect_success();
    let mut second = Vec::new();
    until("the other's certificate", || {
        second = site.ask(&client, "one.test").unwrap();
        second != first
    });
    proxy.reload_with(&here).expect_success();
    assert_eq!(site.ask(&client, "one.test").as_ref(), Ok(&first));
    fs::write(proxy.path("bad.wasm"), "no module").unwrap();
    let refused = format!("{there}\nplugins = [\"bad\"]\n[plugins.bad]\nwasm = \"bad.wasm\"\n");
    let told = proxy.reload_with(&refused);
    assert!(told.expect_refusal().stderr.contains("bad.wasm"));
    for _ in 0..10 {
        assert_eq!(site.ask(&client, "one.test").as_ref(), Ok(&first));
    }
    proxy.reload_with(&there).expect_success();
    assert_eq!(site.ask(&client, "one.test").as_ref(), Ok(&second));
    assert_eq!(pebble.said("Issued certificate serial"), 2);
}

#[test]
fn an_authority_that_is_not_there_keeps_nobody_from_being_served() {
    let Some(site) = Site::new() else {
        return;
    };
    let absent = pebble::asking(site.http, site.tls).start();
    let more = "[workers]\ncount = 2\nseccomp = true";
    let mut proxy = site.gateway(&absent, more, "[\"one.test\"]").start();
    proxy.until_log_has("acme: no certificate: 127.0.0.1: ");
    let plain = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n");
        castling_tests::RawClient::connect(site.http)
            .send(request)
            .read_reply()
            .status
    };
    assert_eq!(plain("/"), 308);
    let client = absent.client();
    let refused = client.connect(site.tls, "one.test").map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("UnrecognisedName"),
        "{refused}"
    );
    let shown = |proxy: &Proxy| {
        let acme = proxy.status()["acme"][0].clone();
        assert_eq!(
            (&acme["state"], &acme["failures"]),
            (&"none".into(), &1.into())
        );
        assert!(
            acme["last_error"].as_str().unwrap().contains("refused"),
            "{acme}"
        );
        acme["next_order"].as_str().unwrap().to_owned()
    };
    let next_order = shown(&proxy);
    proxy.command("stop", &[]).expect_success();
    proxy.until_ended();
    proxy.start_again();
    assert_eq!(shown(&proxy), next_order, "the wait goes on");
    assert_eq!(plain("/"), 308);
    // The authority is back, and the operator does not wait.
    drop(absent);
    let pebble = site.pebble().start_at(site.api);
    fs::write(proxy.path("api.pem"), pebble.authority.pem()).unwrap();
    for file in stored(&proxy, "json") {
        fs::remove_file(file).unwrap();
    }
    proxy.reload().expect_success();
    site.until_served(&pebble.client(), "one.test");
}

#[test]
fn an_authority_that_talks_rubbish_is_told_of_with_url_and_status() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start();
    let server = pebble.authority.certify(&["127.0.0.1"]);
    let server = tls_origin::server(&server, rustls::ALL_VERSIONS);
    let (rubbish, _) = tls_origin::scripted(server, |connection, _| {
        connection.read_head()?;
        let fields = "Retry-After: 18446744073709551615\r\nConnection: close\r\n";
        connection.answer(fields, b"{\"newNonce\": \"file:///etc/passwd\"}")?;
        connection.close()
    });
    let directory = format!("https://{}/dir", rubbish.address());
    let here = site.config("", "[\"one.test\"]");
    let there = here.replace(&format!("https://{}/dir", site.api), &directory);
    let setup = Proxy::with_config(&there).origin("app", origin::text("served"));
    let proxy = setup.file("api.pem", pebble.authority.pem()).start();
    proxy.until_log_has(&format!(
        "acme: no certificate: GET {directory}: 200 OK: the directory's newNonce is no https URL: "
    ));
    assert_eq!(proxy.status()["acme"][0]["failures"], 1);
}

#[test]
fn an_authority_that_has_lost_its_accounts_gets_a_new_one() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let (mut proxy, _, _) = ordered(&site, &pebble, "");
    drop(pebble);
    let pebble = site.pebble().start_at(site.api);
    fs::write(proxy.path("api.pem"), pebble.authority.pem()).unwrap();
    let names = "[[\"one.test\"], [\"two.test\"]]";
    proxy.reload_with(&site.config("", names)).expect_success();
    site.until_served(&pebble.client(), "two.test");
}

#[test]
fn after_a_failure_the_next_challenge_is_tried() {
    let Some(site) = Site::new() else {
        return;
    };
    // No listener is where the authority looks for an answer over HTTP.
    let pebble = pebble::asking(free_address(), site.tls).start_at(site.api);
    let more = "challenges = [\"http-01\", \"tls-alpn-01\"]";
    let proxy = site.gateway(&pebble, more, "[\"one.test\"]").start();
    let said = proxy.until_log_has("acme: no certificate: ");
    assert!(said.contains("connection refused"), "{said}");
    let mut known = record(&proxy);
    known["not_before"] = 0.into();
    fs::write(&stored(&proxy, "json")[0], known.to_string()).unwrap();
    proxy.reload().expect_success();
    site.until_served(&pebble.client(), "one.test");
}

#[test]
fn a_store_that_cannot_be_used_is_told_with_its_place() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let more = "store = \"kept\"";
    let gateway = || site.gateway(&pebble, more, "[\"one.test\"]");
    let place = "castling.toml:6:9: acme: store {dir}/kept: ";
    gateway().file("kept", "").run().expect_error(place);
    let told = format!("{place}it is not a folder");
    gateway().file("kept", "").check().expect_error(&told);
    let open = gateway().file("kept/x", "");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(open.folder().join("kept"), mode).unwrap();
    let told = format!("{place}others may look into it: expected mode 0700");
    open.run().expect_error(&told);
}

#[test]
fn a_check_says_what_would_be_ordered_and_asks_nobody() {
    let Some(site) = Site::new() else {
        return;
    };
    let pebble = site.pebble().start_at(site.api);
    let checked = site.gateway(&pebble, "", "[\"one.test\"]").check();
    let said = checked.outcome.expect_success().stdout;
    let expected = format!("  certificate for one.test from {}\n", pebble.directory());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(pebble.said("GET /dir"), 0, "{}", pebble.log());
    let unused = "[acme]\nagree_to_terms = true\n[listeners.web]\nbind = \"127.0.0.1:9\"\n[upstreams.u]\npeers = [\"127.0.0.1:9\"]\n[[routes]]\nupstream = \"u\"\n";
    let said = Proxy::with_config(unused).check().outcome.expect_success();
    let warning = ":1:1: acme: nothing is ordered: no listener has tls.acme with names\n";
    assert!(said.stdout.contains(warning), "{}", said.stdout);
}
