//! pebble: certificates that the gateway orders itself (ACME), by both challenges.

use super::{Done, Outcome, Site, Stopped, expect, tool};
use crate::pebble::{self, free_address};
use crate::{Proxy, origin, until};

/// Orders a certificate of an authority of its own, with a gateway of its own.
pub(super) fn run(_site: &mut Site) -> Outcome {
    tool::program("pebble")?;
    tool::program("pebble-challtestsrv")?;
    for challenge in ["http-01", "tls-alpn-01"] {
        order(challenge)?;
    }
    Ok(Done::new(
        version(),
        "an account, and a certificate each by http-01 and tls-alpn-01, served without a reload",
    ))
}

/// Version of the package: the program tells none.
fn version() -> String {
    let dpkg = tool::program("dpkg-query").ok();
    let said = dpkg.map(|dpkg| tool::run(&dpkg, &["-W", "-f=${Version}", "pebble"]).stdout);
    said.unwrap_or_else(|| "?".to_owned())
}

fn order(challenge: &str) -> Result<(), Stopped> {
    let [http, tls, api] = std::array::from_fn(|_| free_address());
    let authority = pebble::asking(http, tls).start_at(api);
    let config = CONFIG
        .replace("DIRECTORY", &authority.directory())
        .replace("CHALLENGE", challenge)
        .replace("HTTP", &http.to_string())
        .replace("TLS", &tls.to_string());
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("served"))
        .file("api.pem", authority.authority.pem())
        .start();
    let client = authority.client();
    let request = "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n";
    let mut got = String::new();
    until("a certificate is served", || {
        let asked = client
            .connect(tls, "one.test")
            .and_then(|mut tls| tls.ask(request, "served"));
        got = asked.unwrap_or_else(|error| error.to_string());
        got.ends_with("served")
    });
    let errors = proxy.error_lines();
    expect(errors.is_empty(), || format!("{challenge}: {errors:?}"))
}

const CONFIG: &str = r#"
    [acme]
    agree_to_terms = true
    directory = "DIRECTORY"
    ca = "api.pem"
    challenges = ["CHALLENGE"]

    [listeners.web]
    bind = "HTTP"

    [listeners.secure]
    bind = "TLS"
    [listeners.secure.tls]
    acme = ["one.test"]

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;
