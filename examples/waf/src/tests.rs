use castling_sdk::testing::{self, Exchange};

use super::*;

fn waf(mode: &str) -> Waf {
    let config = r#"{"threshold": 5, "mode": "MODE", "body": "1KiB", "rules": [
        {"name": "union", "in": ["query", "body"], "matches": "(?i)union\\s+select", "score": 5},
        {"name": "dots", "in": ["path", "query", "cookies"], "matches": "\\.\\./", "score": 3},
        {"name": "script", "in": ["headers", "cookies", "body"], "matches": "(?i)<script", "score": 3}]}"#;
    Waf::configure(testing::config(&config.replace("MODE", mode)).unwrap()).unwrap()
}

/// Status of the refusal, score and rules.
fn judged(mode: &str, mut exchange: Exchange) -> (Option<u16>, String, String) {
    let verdict = waf(mode).access(exchange.request()).unwrap();
    let var = |request: &Request, name| {
        let value = request.var(name);
        value.map_or_else(String::new, |it| it.to_string_lossy().into_owned())
    };
    let [score, rules] = ["waf_score", "waf_rules"].map(|name| var(exchange.request(), name));
    match verdict {
        Verdict::Continue => (None, score, rules),
        Verdict::Answer(response) => (Some(response.status_code()), score, rules),
        other => panic!("{other:?}"),
    }
}

#[test]
fn scores_of_a_requests_rules_add_up() {
    let post = |body: &str| Exchange::new("POST", "/").body(body);
    for (mut exchange, status, score, rules) in [
        (Exchange::get("/?q=union+of+selects"), None, "", ""),
        (
            Exchange::get("/?q=1+UNION%0aSELECT+2"),
            Some(403),
            "5",
            "union",
        ),
        (
            Exchange::get("/?q=1%2520union%2520select"),
            Some(403),
            "5",
            "union",
        ),
        (Exchange::get("/%2e%2e%2f"), None, "3", "dots"),
        (Exchange::get("/?a=../../&b=../"), None, "3", "dots"),
        (
            Exchange::get("/../").header("x-a", "<SCRIPT>"),
            Some(403),
            "6",
            "dots,script",
        ),
        (
            Exchange::get("/").header("cookie", "a=%3Cscript; b=..%2F"),
            Some(403),
            "6",
            "dots,script",
        ),
        (
            Exchange::get("/").header("x-a", "union select"),
            None,
            "",
            "",
        ),
        (post("a=union%20select"), Some(403), "5", "union"),
        (
            post(&format!("{}union select", " ".repeat(1024))),
            None,
            "",
            "",
        ),
    ] {
        let target = exchange.request().target();
        assert_eq!(
            judged("block", exchange),
            (status, score.to_owned(), rules.to_owned()),
            "{target}"
        );
    }
}

#[test]
fn a_report_refuses_nobody() {
    let attack = || Exchange::get("/?q=union+select");
    assert_eq!(
        judged("report", attack()),
        (None, "5".to_owned(), "union".to_owned())
    );
    let logged: Vec<_> = testing::take_log()
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(
        logged,
        ["looks like an attack client=192.0.2.1 score=5 rules=union blocked=false"]
    );
}

#[test]
fn what_is_no_expression_is_a_config_error() {
    let config = r#"{"threshold": 5, "mode": "block", "rules": [{"name": "a", "in": [], "matches": "(", "score": 5}]}"#;
    let error = Waf::configure(testing::config(config).unwrap())
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("config.rules: "), "{error}");
}
