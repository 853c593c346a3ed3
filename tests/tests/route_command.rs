//! `castling route`: which route a request would take, and why, without sending it.

use castling_tests::command::{Outcome, castling};
use castling_tests::{Proxy, origin};
use tempfile::TempDir;

const SITE: &str = r#"
    [plugins.auth]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = ["s3cret"] }

    [listeners.web]
    bind = "{listen}"
    trusted_proxies = ["10.0.0.0/8"]

    [listeners.inner]
    bind = "{listen_inner}"
    case = "insensitive"

    [upstreams.app]
    peers = ["{app}", "127.0.0.1:1"]

    [upstreams.canary]
    peers = ["127.0.0.1:2"]

    [[routes]]
    name = "beta"
    path = { regex = '^/user/' }
    headers = { x-beta = "on" }
    upstream = "canary"

    [[routes]]
    name = "user"
    listeners = ["web"]
    hosts = ["*.example.com"]
    path = { regex = '^/user/(?<id>[0-9]+)$' }
    methods = ["GET"]
    plugins = ["auth"]
    upstream = { app = 1, canary = 1 }
    split_by = "$id"

    [[routes]]
    name = "staff"
    path = "/staff"
    clients = ["192.0.2.0/24"]
    upstream = "app"

    [[routes]]
    name = "root"
    hosts = ["a.example.com", "*.example.com"]
    upstream = "app"

    [[routes]]
    name = "never"
    hosts = ["b.example.com"]
    priority = -1
    upstream = "app"
"#;

struct Site {
    /// Removed at the end.
    _folder: TempDir,
    config: std::path::PathBuf,
    /// The config as it was written.
    text: String,
}

impl Site {
    fn new() -> Self {
        let (folder, config) = Proxy::with_config(SITE)
            .origin("app", origin::text("nobody asks"))
            .written();
        Self {
            text: std::fs::read_to_string(&config).unwrap(),
            config,
            _folder: folder,
        }
    }

    fn route(&self, url: &str, rest: &[&str]) -> Outcome {
        castling("route", &self.config, &[&[url][..], rest].concat())
    }

    /// The answers as JSON.
    fn ask(&self, url: &str, rest: &[&str]) -> serde_json::Value {
        let said = self.route(url, &[rest, &["--json"]].concat());
        serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
    }

    /// `FILE:LINE:COLUMN` of a route.
    fn place(&self, name: &str) -> String {
        let at = self.text.find(&format!("name = \"{name}\"")).unwrap();
        let line = self.text[..at].lines().count();
        format!("{}:{line}:1", self.config.display())
    }
}

#[test]
fn it_tells_the_route_and_what_comes_of_it() {
    let site = Site::new();
    let url = "https://x.example.com/%75ser/42?q=1";
    let said = site
        .route(url, &["--listener", "web"])
        .expect_success()
        .stdout;
    let place = |name| site.place(name);
    for fact in [
        format!("GET {url}\n"),
        "listener web on 127.0.0.1:".to_owned(),
        "  route user -> upstreams by weight: app 1, canary 1\n".to_owned(),
        format!("    {}\n", place("user")),
        "    for *.example.com, path ~ ^/user/(?<id>[0-9]+)$, method GET\n".to_owned(),
        "    $1 = 42\n    $id = 42\n    access: auth\n".to_owned(),
        ", 127.0.0.1:1\n".to_owned(),
        "    asked for /%75ser/42?q=1\n".to_owned(),
        format!(
            "  would take it, too, but is asked later:\n    root ({}): a regular expression comes before prefixes\n",
            place("root")
        ),
    ] {
        assert!(said.contains(&fact), "no {fact:?} in {said}");
    }
    assert_eq!(said.matches("which takes this one").count(), 1, "{said}");
    assert!(!said.contains("beta") && !said.contains("staff"), "{said}");
}

#[test]
fn it_tells_why_others_are_passed_over() {
    let site = Site::new();
    let web = ["--listener", "web"];
    let answers = site.ask(
        "http://x.example.com/user/42",
        &[&web[..], &["--method", "POST"]].concat(),
    );
    let answer = &answers[0];
    assert_eq!(answer["route"]["name"], "root");
    let passed = &answer["passed_over"];
    assert_eq!(passed[0]["name"], "user");
    assert_eq!(passed[0]["why"], "not so: method GET");
    assert_eq!(passed[0]["place"], site.place("user"));
    assert_eq!(passed.as_array().unwrap().len(), 1);

    // Where none takes it, all that is left is told.
    let said = site.route("http://other.org/staff", &web).expect_refusal();
    for fact in [
        "no route: no route matches: 404 Not Found",
        "): not so: client in 192.0.2.0/24",
        "): not so: path ~ ^/user/",
        "): not so: host a.example.com",
    ] {
        assert!(said.stdout.contains(fact), "no {fact:?} in {}", said.stdout);
    }
    assert!(said.stderr.contains("no route takes it"), "{}", said.stderr);

    // A request that is refused before it is routed.
    let said = site.route("http://a.example.com/..", &web).expect_refusal();
    assert!(
        said.stdout.contains("it leaves the root"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("400 Bad Request"), "{}", said.stdout);
}

#[test]
fn headers_and_client_are_those_of_the_request() {
    let site = Site::new();
    let web = ["--listener", "web"];
    let route = |url: &str, rest: &[&str]| {
        let answers = site.ask(url, &[&web[..], rest].concat());
        let answer = &answers[0];
        let name = answer["route"]["name"].as_str().unwrap_or("-").to_owned();
        (name, answer["client"].as_str().unwrap().to_owned())
    };
    let named = |route: (String, String)| route.0;
    assert_eq!(named(route("/user/1", &[])), "-");
    let beta = ["--header", "X-Beta: on"];
    assert_eq!(named(route("/user/1", &beta)), "beta");
    let host = ["--header", "host: A.Example.com:80"];
    assert_eq!(named(route("/", &host)), "root");
    assert_eq!(named(route("/staff", &["--client", "192.0.2.9"])), "staff");
    // A trusted proxy is believed, and nobody else.
    let forwarded = ["--header", "x-forwarded-for: 192.0.2.9", "--client"];
    let by_proxy = route("/staff", &[&forwarded[..], &["10.0.0.1"]].concat());
    assert_eq!(by_proxy, ("staff".to_owned(), "192.0.2.9".to_owned()));
    let by_other = route("/staff", &[&forwarded[..], &["11.0.0.1"]].concat());
    assert_eq!(by_other, ("-".to_owned(), "11.0.0.1".to_owned()));
}

#[test]
fn listeners_are_those_that_the_url_fits() {
    let site = Site::new();
    let listeners = |url: &str| -> Vec<String> {
        let answers = site.ask(url, &[]);
        let answers = answers.as_array().unwrap().iter();
        answers
            .map(|answer| answer["listener"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listeners("http://a.example.com/"), ["inner", "web"]);
    let port = site
        .text
        .split("[listeners.inner]\nbind = \"127.0.0.1:")
        .nth(1);
    let port = port.and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(
        listeners(&format!("http://a.example.com:{port}/")),
        ["inner"]
    );
    // Each listener reads paths as it does.
    let answers = site.ask("http://x/USER/1", &["--header", "x-beta: on"]);
    assert_eq!(answers[0]["route"]["name"], "beta");
    assert_eq!(answers[1]["route"], serde_json::Value::Null);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let site = Site::new();
    for (url, rest, error) in [
        ("ftp://a/", &[][..], "expected http:// or https://"),
        (
            "http://a/",
            &["--listener", "none"],
            "there is no listener \"none\"; expected inner, web",
        ),
        (
            "http://a/",
            &["--header", "x"],
            "header \"x\": expected NAME: VALUE",
        ),
        (
            "http://a/",
            &["--header", "x: a\r\nb: c"],
            "expected one line",
        ),
        ("http://a/", &["--method", "G T"], "listener inner: "),
        ("http://a_$/", &[], "listener inner: "),
    ] {
        let said = site.route(url, rest).expect_refusal();
        assert!(
            said.stderr.contains(error),
            "no {error:?} in {}",
            said.stderr
        );
    }
}

#[test]
fn check_tells_the_order_and_warns_of_what_is_never_asked() {
    let site = Site::new();
    let said = castling("check", &site.config, &[]).expect_success().stdout;
    let of_web = said.split("listener web").nth(1).unwrap();
    let at = |text: &str| {
        of_web
            .find(text)
            .unwrap_or_else(|| panic!("no {text:?} in {of_web}"))
    };
    let order = ["root", "user", "beta", "staff", "never"];
    let places = order.map(|name| at(&format!("  route {name} -> ")));
    assert!(places.is_sorted(), "{of_web}");
    at("    for a.example.com *.example.com, path /\n");
    at("    ahead of root: a regular expression comes before prefixes\n");
    at("    for b.example.com, path /, priority -1\n");
    let warning = format!(
        "warning: {}: route never gets no request of listener web: route root ({}) is asked before it and takes all that it would",
        site.place("never"),
        site.place("root")
    );
    assert!(said.contains(&warning), "no {warning:?} in {said}");
    assert_eq!(said.matches("gets no request").count(), 2, "{said}");
}
