//! The public suite of tests for HTTP caches: the npm package `http-cache-tests`, whose origin and client are Node programs
//! (<https://github.com/http-tests/cache-tests>).

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Proxy, clients_dir, until, workspace_root};

/// The suite's origin and a gateway before it.
pub struct CacheSuite {
    package: PathBuf,
    folder: TempDir,
    origin: Child,
    proxy: Proxy,
}

/// Verdict on one test.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub id: String,
    /// `required`, `optimal` or `check`, as the release has it.
    pub kind: String,
    pub passed: bool,
    pub why: String,
}

const CONFIG: &str = r#"
    [zones.pages]
    kind = "cache"
    size = "64MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["127.0.0.1:ORIGIN"]
    # The suite counts requests, and does not want one sent again.
    tries = 1

    [[routes]]
    upstream = "app"
    cache = { zone = "pages", heuristic = 0.1, stale_if_error = "1m", store_cookies = true, obey_client = true }
"#;

impl CacheSuite {
    /// Starts both. `None`: the package is not installed, or there is no Node.
    pub fn start() -> Option<Self> {
        let package = clients_dir().join("tools/node/node_modules/http-cache-tests");
        if !package.join("cli.mjs").exists() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let origin = Command::new("node")
            .arg("server/server.mjs")
            .current_dir(&package)
            .env("npm_config_protocol", "http")
            .env("npm_config_port", port.to_string())
            .env("npm_config_pidfile", folder.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        until("the suite's origin listens", || {
            TcpStream::connect(address).is_ok()
        });
        let config = CONFIG.replace("ORIGIN", &port.to_string());
        Some(Self {
            package,
            folder,
            origin,
            proxy: Proxy::with_config(&config).start(),
        })
    }

    /// Runs all tests.
    pub fn run(&self) -> Vec<Verdict> {
        let results = self.results("");
        let mut judge = Command::new("node")
            .arg(workspace_root().join("tests/tools/cache_suite.mjs"))
            .arg(&self.package)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node, which runs the origin, too");
        let mut stdin = judge.stdin.take().expect("a pipe");
        stdin.write_all(&results).expect("the judge reads");
        drop(stdin);
        let judged = judge.wait_with_output().expect("the judge ends");
        let verdicts: Vec<Value> = serde_json::from_slice(&judged.stdout).expect("verdicts");
        let text = |verdict: &Value, key: &str| verdict[key].as_str().expect(key).to_owned();
        let verdicts = verdicts.iter().map(|verdict| Verdict {
            id: text(verdict, "id"),
            kind: text(verdict, "kind"),
            passed: verdict["passed"] == true,
            why: text(verdict, "why"),
        });
        verdicts.collect()
    }

    /// Runs one test again; whether it passes now.
    pub fn passes(&self, id: &str) -> bool {
        let output = String::from_utf8_lossy(&self.results(id)).into_owned();
        // The talk comes first, and then the verdict.
        output.contains("\u{2705}")
    }

    /// Output of the suite's client. `id`: the one test to run; empty: all.
    fn results(&self, id: &str) -> Vec<u8> {
        let ran = Command::new("node")
            .args(["--no-warnings", "cli.mjs"])
            .current_dir(&self.package)
            .env(
                "npm_config_base",
                format!("http://{}", self.proxy.address()),
            )
            .env("npm_config_id", id)
            .env("npm_package_config_id", "")
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        ran.expect("node, which runs the origin, too").stdout
    }
}

impl Drop for CacheSuite {
    fn drop(&mut self) {
        let _ended = self.origin.kill();
        let _status = self.origin.wait();
    }
}

/// A port that was free a moment ago: the suite's origin cannot be told to choose one.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}

/// Tests that are required by the release and that later versions of the suite only ask (`check`): what a 304 does to fields, and
/// what `Location` and `Content-Location` invalidate.
pub fn is_asked_later(id: &str) -> bool {
    let of_304 = id.starts_with("304-etag-update-response-");
    let named = id.ends_with("-location") || id.ends_with("-cl");
    of_304 || id.starts_with("invalidate-") && named
}

/// Tests that do not pass, each with the reason.
pub const KNOWN: [(&str, &str); 15] = [
    (
        "age-parse-prefix",
        "`Age: 0,7200` is two ages: stale, as `0, 0` is by another test",
    ),
    (
        "stale-close-must-revalidate",
        "the right answer, 502, has no field of the origin's, for which the suite looks",
    ),
    ("stale-close-proxy-revalidate", "the same"),
    ("stale-close-no-cache", "the same"),
    ("stale-close-s-maxage=2", "the same"),
    (
        "headers-store-Transfer-Encoding",
        "an unknown transfer coding is refused (RFC 9112 section 6.1)",
    ),
    ("method-POST", "responses to POST are not stored"),
    (
        "vary-normalise-lang-order",
        "origins may take the first of languages without weights for the best",
    ),
    (
        "vary-normalise-lang-select",
        "languages are compared, not negotiated",
    ),
    (
        "conditional-lm-fresh-no-lm",
        "without `Last-Modified` there is nothing to compare with",
    ),
    (
        "partial-store-partial-reuse-partial",
        "parts are not stored; a part that is asked for first has the whole fetched",
    ),
    ("partial-store-partial-reuse-partial-byterange", "the same"),
    ("partial-store-partial-reuse-partial-absent", "the same"),
    ("partial-store-partial-reuse-partial-suffix", "the same"),
    ("partial-store-partial-complete", "the same"),
];
