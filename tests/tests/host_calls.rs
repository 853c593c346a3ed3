//! Calls of plugins to hosts that are granted by name.

use std::net::{IpAddr, Ipv4Addr};

use castling_tests::name_server::{NameServer, Says};
use castling_tests::tls::Authority;
use castling_tests::tls_origin;
use castling_tests::{Proxy, body, origin};
use http::Response;
use rustls::ALL_VERSIONS;

const CONFIG: &str = r#"
    [plugins.caller]
    wasm = "{guests}/caller.wasm"

    [plugins.caller.grants.hosts]
    names = ["*.good.test:PORT", "only.test:PORT"]
    resolve = { servers = ["SERVER"], timeout = "1s" }
    tls = { ca = "ca.pem" }
    MORE

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["caller"]
"#;

const THIS_HOST: &str = "networks = ['127.0.0.0/8']";

fn gateway(server: &NameServer, port: u16, more: &str, authority: &Authority) -> Proxy {
    let config = CONFIG
        .replace("PORT", &port.to_string())
        .replace("SERVER", &server.address.to_string())
        .replace("MORE", more);
    Proxy::with_config(&config)
        .file("ca.pem", authority.pem())
        .start()
}

fn called(proxy: &Proxy, to: &str) -> (u16, String) {
    let reply = proxy.get_with("/", &[("x-to", to)]);
    (reply.status.as_u16(), reply.text())
}

#[test]
fn a_host_is_called_by_a_name_that_is_granted_and_by_no_other() {
    let (server, authority) = (NameServer::start(), Authority::new("a"));
    let origin = origin::answering(|seen| {
        let facts = ["host", "x-by", "connection", "content-length"].map(|name| seen.header(name));
        Response::new(body::full(format!("{facts:?}")))
    });
    let port = origin.address().port();
    for name in [
        "a.good.test",
        "b.a.good.test",
        "only.test",
        "good.test",
        "bad.test",
    ] {
        server.set_addresses(name, &[Ipv4Addr::LOCALHOST], 60);
    }
    let proxy = gateway(&server, port, THIS_HOST, &authority);
    for name in ["a.good.test", "b.a.good.test", "only.test"] {
        let (status, said) = called(&proxy, &format!("http://{name}:{port}"));
        let seen = format!("[Some(\"{name}:{port}\"), Some(\"caller\"), Some(\"close\"), None]");
        assert_eq!((status, said), (200, seen));
    }
    assert_eq!(called(&proxy, &format!("http://A.Good.test:{port}")).0, 200);
    for to in [
        format!("http://good.test:{port}"),
        format!("http://a.only.test:{port}"),
        format!("http://bad.test:{port}"),
        format!("http://127.0.0.1:{port}"),
        "http://a.good.test".to_owned(),
        "https://a.good.test".to_owned(),
        "only.test".to_owned(),
    ] {
        let (status, said) = called(&proxy, &to);
        assert_eq!(status, 502);
        assert!(said.ends_with("not granted"), "{to}: {said}");
    }
    for to in [
        "http://",
        "https://a.good.test/x",
        "http://u@only.test",
        "gopher://only.test",
    ] {
        let (status, said) = called(&proxy, to);
        assert_eq!(status, 502);
        assert!(said.contains("bad argument"), "{to}: {said}");
    }
    let (status, said) = called(&proxy, &format!("http://none.good.test:{port}"));
    assert_eq!(status, 502);
    assert!(said.contains("none.good.test: "), "{said}");
}

#[test]
fn a_name_that_stands_for_an_address_that_is_not_public_leads_nowhere() {
    let (server, authority) = (NameServer::start(), Authority::new("a"));
    let origin = origin::text("secret");
    let port = origin.address().port();
    let proxy = gateway(&server, port, "", &authority);
    let addresses = |texts: &[&str]| {
        let texts = texts.iter().map(|text| text.parse::<IpAddr>().unwrap());
        Says::Addresses(texts.collect(), 0)
    };
    for texts in [
        &["127.0.0.1"][..],
        &["169.254.169.254"],
        &["10.0.0.1"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["fd00::1"],
        // A public one does not take the other along.
        &["8.8.8.8", "127.0.0.1"],
        &["127.0.0.1", "8.8.8.8"],
    ] {
        server.set("x.good.test", addresses(texts));
        let (status, said) = called(&proxy, &format!("http://x.good.test:{port}"));
        assert_eq!(status, 502);
        assert!(said.contains(", which is not public"), "{texts:?}: {said}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn https_is_for_who_has_the_names_certificate() {
    let (server, authority) = (NameServer::start(), Authority::new("a"));
    let pem = authority.certify(&["a.good.test"]);
    let tls = tls_origin::server(&pem, ALL_VERSIONS);
    let (origin, handshakes) = tls_origin::echoing(tls);
    let port = origin.address().port();
    for name in ["a.good.test", "b.good.test"] {
        server.set_addresses(name, &[Ipv4Addr::LOCALHOST], 60);
    }
    let proxy = gateway(&server, port, THIS_HOST, &authority);
    let url = format!("https://a.good.test:{port}");
    let mut client = proxy.raw();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nX-To: {url}\r\nX-Method: POST\r\nContent-Length: 6\r\n\r\nsealed"
    ));
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "sealed"));
    assert_eq!(handshakes.all()[0].name.as_deref(), Some("a.good.test"));
    let (status, said) = called(&proxy, &format!("https://b.good.test:{port}"));
    assert_eq!(status, 502);
    assert!(said.contains("certificate"), "{said}");
}
