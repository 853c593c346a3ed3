//! Clients of other hands, each with a gateway of its own. `cargo xtask show protocols` runs the same with one.

use std::io::Write;

use castling_tests::clients::{self, Client, Site, Stopped};

/// Runs a client. One that is not installed is skipped, which is said whatever becomes of the test's output.
#[track_caller]
fn works(client: Client) {
    match client.run(&mut Site::start()) {
        Ok(done) => println!(
            "{} {}: {}\n{}",
            client.name,
            done.version,
            done.did,
            done.notes.join("\n")
        ),
        Err(Stopped::Missing(why)) => {
            let line = format!("SKIPPED {}: {why}\n", client.name);
            // Standard error itself, which is not captured.
            let _said = std::io::stderr().write_all(line.as_bytes());
        }
        Err(Stopped::Failed(why)) => panic!("{}: {why}", client.name),
    }
}

#[test]
fn curl() {
    works(clients::CURL);
}

#[test]
fn openssl() {
    works(clients::OPENSSL);
}

#[test]
fn pycurl() {
    works(clients::PYCURL);
}

#[test]
fn websockets() {
    works(clients::WEBSOCKETS);
}

#[test]
fn grpcio() {
    works(clients::GRPCIO);
}

#[test]
fn grpc_js() {
    works(clients::GRPC_JS);
}

#[test]
fn h2load() {
    works(clients::H2LOAD);
}

#[test]
fn nghttp() {
    works(clients::NGHTTP);
}

#[test]
fn go_like() {
    works(clients::GO_LIKE);
}

#[test]
fn rfc9113() {
    works(clients::RFC_9113);
}

#[test]
fn rfc9113_of_a_peer() {
    works(clients::RFC_9113_PEER);
}

#[test]
fn haproxy() {
    works(clients::HAPROXY);
}

#[test]
fn chromium() {
    works(clients::CHROMIUM);
}

#[test]
fn sslscan() {
    works(clients::SSLSCAN);
}

#[test]
fn testssl() {
    works(clients::TESTSSL);
}

#[test]
fn pebble() {
    works(clients::PEBBLE);
}

#[test]
fn demo() {
    works(clients::DEMO);
}
