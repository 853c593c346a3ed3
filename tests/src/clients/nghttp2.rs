//! nghttp2's clients: many streams at once, and trailers both ways.

use std::fs;

use super::{Done, Outcome, Site, expect, tool};

/// h2load with 100 streams on each of its connections.
pub(super) fn load(site: &mut Site) -> Outcome {
    const REQUESTS: &str = "5000";
    let h2load = tool::program("h2load")?;
    let plain = format!("http://{}", site.address("listen"));
    let tls = format!("https://{}", site.address("listen_tls"));
    for (url, connections) in [(&plain, "4"), (&tls, "4"), (&tls, "1")] {
        let url = format!("{url}/");
        let counts = ["-n", REQUESTS, "-c", connections, "-m", "100", &url];
        let outcome = tool::run(&h2load, &counts);
        let all = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        let statuses = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
        let succeeded = [&all, &statuses].map(|line| outcome.stdout.contains(line.as_str()));
        expect(succeeded == [true; 2], || {
            format!("h2load {counts:?}: {}{}", outcome.stdout, outcome.stderr)
        })?;
    }
    Ok(Done::new(
        tool::version(&h2load, "--version"),
        format!(
            "3 times {REQUESTS} requests, 100 streams a connection, with TLS and without: all succeeded"
        ),
    ))
}

/// nghttp sends trailers to an origin by HTTP/1, and gets those of a gRPC server by HTTP/2.
pub(super) fn trailers(site: &mut Site) -> Outcome {
    let nghttp = tool::program("nghttp")?;
    let body = site.file("body");
    // A gRPC message: not compressed, 2 bytes.
    fs::write(&body, b"\0\0\0\0\x02hi").expect("a writable folder");
    for origin in [
        format!("http://{}", site.address("listen")),
        format!("https://{}", site.address("listen_tls")),
    ] {
        let url = format!("{origin}/trailers");
        let fields = ["--no-content-length", "--trailer", "x-sum: 1", "-d", &body];
        let got = said(
            &nghttp,
            &[&fields[..], &["--no-verify-peer", &url]].concat(),
        );
        expect(got.contains("x-sum: 1\n"), || {
            format!("nghttp --trailer {url}: {got}")
        })?;
        if !site.has_servers() {
            continue;
        }
        let url = format!("{origin}/castling.Test/Unary");
        let grpc = ["-v", "-H", "content-type: application/grpc"];
        let fields = ["-H", "te: trailers", "-d", &body, "--no-verify-peer", &url];
        let got = said(&nghttp, &[&grpc[..], &fields].concat());
        let came = ["x-greeting: hi", "x-bytes: 2", "grpc-status: 0"];
        let came = came.map(|field| got.contains(field));
        expect(came == [true; 3], || format!("nghttp {url}: {got}"))?;
    }
    Ok(Done::new(
        tool::version(&nghttp, "--version"),
        "trailers of a request to an HTTP/1 origin, trailers of a gRPC server, with TLS and without",
    ))
}

fn said(nghttp: &std::path::Path, arguments: &[&str]) -> String {
    let outcome = tool::run(nghttp, arguments);
    outcome.stdout + &outcome.stderr
}
