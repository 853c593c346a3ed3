//! Many clients and large bodies through the shipped plugins, compared byte for byte.

use std::net::SocketAddr;
use std::time::Duration;

use castling_tests::body::{AnyBody, Stuff};
use castling_tests::client::{Connection, describe};
use castling_tests::process::Process;
use castling_tests::{Proxy, block_on, origin, within};
use http::Request;
use tokio::task::JoinSet;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn two_hundred_clients_and_64_mib_both_ways_come_through_unchanged() {
    let config = r#"
        [workers]
        count = 2

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = ["s3cret"] }

        [plugins.mark]
        wasm = "{plugins}/headers.wasm"
        config = { response = { set = { x-mark = "$path" } } }

        [plugins.british]
        wasm = "{plugins}/substitute.wasm"
        config = { replace = [{ from = "color", to = "colour" }] }

        [plugins.ewma]
        wasm = "{plugins}/ewma.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{a}", "{b}"]
        balance = { plugin = "ewma" }

        [[routes]]
        path = "/filtered"
        plugins = ["auth", "mark", "british"]
        upstream = "app"

        [[routes]]
        path = "/plain"
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("a", origin::echoing())
        .origin("b", origin::echoing())
        .start();
    let workers = proxy.workers();
    let address = proxy.address();

    block_on(within(Duration::from_secs(120), "200 clients", async {
        let mut clients = JoinSet::new();
        for number in 0..200 {
            clients.spawn(async move { (number, client(address, number).await) });
        }
        while let Some(ended) = clients.join_next().await {
            let (number, outcome) = ended.expect("a client does not panic");
            assert_eq!(outcome, Ok(()), "client {number}");
        }
    }));

    assert_eq!(proxy.workers(), workers, "no worker was replaced");
    let peak_kib = workers
        .iter()
        .map(|worker| Process::peak_resident_kib(*worker))
        .max()
        .unwrap_or_default();
    // 512 MiB of bodies went each way at once.
    assert!(peak_kib < 200 * KIB, "a worker had {peak_kib} KiB resident");
    assert!(proxy.origin("a").requests() > 50 && proxy.origin("b").requests() > 50);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

/// Requests of one client on its connection.
async fn client(address: SocketAddr, number: u64) -> Result<(), String> {
    let (len, requests) = match number {
        0..8 => (64 * MIB, 1),
        8..40 => (MIB + number, 2),
        _ => (number * 97 % (64 * KIB), 5),
    };
    let mut connection = Connection::open(address)
        .await
        .map_err(|error| error.to_string())?;
    for request in 0..requests {
        let exchange = Exchange::of(number + request, len);
        let response = connection
            .send(exchange.request())
            .await
            .map_err(|error| describe(&error))?;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()));
        }
        if exchange.filtered
            && response
                .headers()
                .get("x-mark")
                .is_none_or(|mark| mark != "/filtered/x")
        {
            return Err("the mark of the headers plugin is missing".to_owned());
        }
        exchange
            .received
            .expect(0)
            .whole(response.into_body(), exchange.received_len)
            .await?;
    }
    Ok(())
}

/// A request with a body and the bytes that must come back.
struct Exchange {
    filtered: bool,
    sized: bool,
    content_type: &'static str,
    sent: Stuff,
    sent_len: u64,
    received: Stuff,
    received_len: u64,
}

impl Exchange {
    /// Round robin through all combinations of route, framing and kind of body.
    fn of(turn: u64, len: u64) -> Self {
        let [filtered, sized, is_text] = [1, 2, 4].map(|bit| turn & bit == 0);
        if !is_text {
            let noise = Stuff::noise();
            let content_type = "application/octet-stream";
            return Self {
                filtered,
                sized,
                content_type,
                sent: noise.clone(),
                sent_len: len,
                received: noise,
                received_len: len,
            };
        }
        // The word to replace lies across every boundary sooner or later.
        let line = "the color of line after line, colors and col or colo\n";
        let replaced = line.replace("color", "colour");
        let lines = len / line.len() as u64;
        let received = if filtered { &replaced } else { line };
        Self {
            filtered,
            sized,
            content_type: "text/plain",
            sent: Stuff::repeating(line.repeat(500).as_bytes()),
            sent_len: lines * line.len() as u64,
            received: Stuff::repeating(received.repeat(500).as_bytes()),
            received_len: lines * received.len() as u64,
        }
    }

    fn request(&self) -> Request<AnyBody> {
        let body = match self.sized {
            true => self.sent.sized(0, self.sent_len),
            false => self.sent.chunked(0, self.sent_len),
        };
        let target = if self.filtered {
            "/filtered/x"
        } else {
            "/plain/x"
        };
        let request = Request::post(target)
            .header("x-token", "s3cret")
            .header("content-type", self.content_type);
        request.body(body).expect("a valid request")
    }
}
