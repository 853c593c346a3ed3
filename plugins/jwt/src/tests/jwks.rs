//! Published keys: fetched once, kept for all, and fetched again when there is a reason.

use std::cell::RefCell;
use std::rc::Rc;

use castling_sdk::testing::{ZoneFault, set_zone_fault};

use super::*;

const OTHER_D: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
const THIRD_D: &str = "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk";
const SECOND: Duration = Duration::from_secs(1);

/// An identity provider, and how often it was asked.
#[derive(Clone)]
struct Provider(Rc<RefCell<(u32, Result<String, u16>)>>);

impl Provider {
    /// Publishes these keys, by their ids.
    fn with(keys: &[(&str, &str)]) -> Self {
        Self(Rc::new(RefCell::new((0, Ok(set(keys))))))
    }

    fn publish(&self, keys: &[(&str, &str)]) {
        self.0.borrow_mut().1 = Ok(set(keys));
    }

    fn publish_text(&self, text: &str) {
        self.0.borrow_mut().1 = Ok(text.to_owned());
    }

    fn fail(&self) {
        self.0.borrow_mut().1 = Err(503);
    }

    fn asked(&self) -> u32 {
        self.0.borrow().0
    }

    /// A request with a token, of a worker that can reach it.
    fn outcome(&self, plugin: &mut Jwt, token: &str) -> String {
        outcome(plugin, &mut self.exchange(token))
    }

    fn failure(&self, plugin: &mut Jwt, token: &str) -> String {
        let mut exchange = self.exchange(token);
        plugin.access(exchange.request()).unwrap_err().to_string()
    }

    fn exchange(&self, token: &str) -> Exchange {
        let provider = self.clone();
        bearer(token).call("idp", move |request| {
            assert_eq!(request.target(), "/keys");
            assert_eq!(request.header_value("host").unwrap(), "idp.example");
            let (asked, answer) = &mut *provider.0.borrow_mut();
            *asked += 1;
            match answer {
                Ok(text) => Response::status(200).body(text.as_str()),
                Err(status) => Response::status(*status),
            }
        })
    }
}

fn set(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(id, d)| es256_jwk(d, id)).collect();
    format!(r#"{{"keys": [{}]}}"#, keys.join(","))
}

/// Each call is another instance's; they share the zone.
fn instance() -> Jwt {
    plugin(CONFIG)
}

const CONFIG: &str = r#"{"jwks": {"upstream": "idp", "path": "/keys", "host": "idp.example", "zone": "keys"}, "required": []}"#;

/// The gate's key in the zone, where a fetch leaves no other trace.
fn gate() -> Vec<u8> {
    let provider = Provider::with(&[]);
    provider.fail();
    provider.failure(&mut instance(), &token("a", ES256_D));
    let zone = zones::kv("keys");
    let gate = zone.list("jwks gate ", 2).unwrap().remove(0);
    assert!(zone.delete(&gate).unwrap());
    gate
}

fn token(id: &str, d: &str) -> String {
    sign_es256_with(d, &format!(r#"{{"alg":"ES256","kid":"{id}"}}"#), "{}")
}

#[test]
fn keys_are_fetched_once_for_all_instances() {
    let provider = Provider::with(&[("a", ES256_D), ("b", OTHER_D)]);
    for _ in 0..3 {
        let mut instance = instance();
        for token in [
            token("a", ES256_D),
            token("b", OTHER_D),
            sign_es256_with(OTHER_D, r#"{"alg":"ES256"}"#, "{}"),
        ] {
            assert_eq!(provider.outcome(&mut instance, &token), "passed");
        }
        let wrong = token("a", OTHER_D);
        assert_eq!(
            provider.outcome(&mut instance, &wrong),
            refused("the token's signature is wrong")
        );
    }
    assert_eq!(provider.asked(), 1);
}

#[test]
fn old_keys_are_fetched_anew() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let (mut one, mut other) = (instance(), instance());
    let old = token("a", ES256_D);
    assert_eq!(provider.outcome(&mut one, &old), "passed");
    assert_eq!(provider.outcome(&mut other, &old), "passed");
    provider.publish(&[("b", OTHER_D)]);
    testing::advance_clock(599 * SECOND);
    assert_eq!(provider.outcome(&mut one, &old), "passed");
    assert_eq!(provider.asked(), 1);
    // Tokens that the old key has verified are not remembered beyond it.
    testing::advance_clock(SECOND);
    assert_eq!(provider.outcome(&mut one, &old), refused(UNKNOWN));
    assert_eq!(provider.outcome(&mut other, &old), refused(UNKNOWN));
    assert_eq!(provider.asked(), 2);
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let (mut one, mut other) = (instance(), instance());
    for instance in [&mut one, &mut other] {
        assert_eq!(provider.outcome(instance, &token("a", ES256_D)), "passed");
    }
    provider.publish(&[("a", ES256_D), ("b", OTHER_D)]);
    // Not so soon after the last fetch.
    assert_eq!(
        provider.outcome(&mut one, &token("b", OTHER_D)),
        refused(UNKNOWN)
    );
    assert_eq!(provider.asked(), 1);
    testing::advance_clock(30 * SECOND);
    assert_eq!(provider.outcome(&mut one, &token("b", OTHER_D)), "passed");
    // Others have it without a fetch.
    assert_eq!(provider.outcome(&mut other, &token("b", OTHER_D)), "passed");
    assert_eq!(provider.asked(), 2);
}

#[test]
fn tokens_that_name_no_known_key_make_one_fetch_in_a_cooldown() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let mut instances = [instance(), instance()];
    for round in 1..=3 {
        for i in 0..50 {
            let id = format!("random {round} {i}");
            for instance in &mut instances {
                assert_eq!(
                    provider.outcome(instance, &token(&id, THIRD_D)),
                    refused(UNKNOWN)
                );
            }
        }
        assert_eq!(provider.asked(), round);
        testing::advance_clock(30 * SECOND);
    }
    // Neither do those that could not be of a published key, nor those whose claims are no good.
    let mut strict = plugin(
        r#"{"jwks": {"upstream": "idp", "path": "/keys", "host": "idp.example", "zone": "keys"}}"#,
    );
    let secret = sign_hs256(r#"{"alg":"HS256","kid":"x"}"#, "{}", &[7; 32]);
    assert_eq!(
        provider.outcome(&mut instances[0], &secret),
        refused(UNKNOWN)
    );
    provider.outcome(&mut strict, &token("x", THIRD_D));
    assert_eq!(provider.asked(), 3);
}

#[test]
fn old_keys_are_used_while_there_are_no_newer_ones() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let (mut one, good) = (instance(), token("a", ES256_D));
    assert_eq!(provider.outcome(&mut one, &good), "passed");
    provider.fail();
    testing::advance_clock(600 * SECOND);
    for _ in 0..3 {
        assert_eq!(provider.outcome(&mut one, &good), "passed");
        assert_eq!(provider.outcome(&mut instance(), &good), "passed");
    }
    assert_eq!(provider.asked(), 2, "not asked again at once");
    let log = testing::take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].1.contains("upstream idp answered 503"), "{log:?}");
    assert!(log[0].1.contains("keys that are 600 s old"), "{log:?}");
    testing::advance_clock(30 * SECOND);
    provider.outcome(&mut one, &good);
    assert_eq!(provider.asked(), 3, "after the cooldown");
    // The provider is back.
    provider.publish(&[("b", OTHER_D)]);
    testing::advance_clock(30 * SECOND);
    assert_eq!(provider.outcome(&mut one, &token("b", OTHER_D)), "passed");
}

#[test]
fn but_not_for_ever() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let (mut one, good) = (instance(), token("a", ES256_D));
    assert_eq!(provider.outcome(&mut one, &good), "passed");
    provider.fail();
    testing::advance_clock((600 + 86_400) * SECOND);
    let error = provider.failure(&mut one, &good);
    assert_eq!(
        error,
        "upstream idp answered 503 for its keys: expected 200"
    );
    let error = provider.failure(&mut instance(), &good);
    assert_eq!(
        error,
        "upstream idp answered 503 for its keys: expected 200 (not asked again within 30 s)"
    );
    assert_eq!(provider.asked(), 2);
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_old_keys() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let (mut one, mut other) = (instance(), instance());
    let (old, new) = (token("a", ES256_D), token("b", OTHER_D));
    assert_eq!(provider.outcome(&mut one, &old), "passed");
    assert_eq!(provider.outcome(&mut other, &old), "passed");
    provider.publish(&[("b", OTHER_D)]);
    // By a minute, as when it is corrected: they count as new.
    testing::advance_clock(30 * SECOND);
    testing::set_wall_clock(Duration::from_secs(NOW - 60));
    assert_eq!(provider.outcome(&mut one, &old), "passed");
    assert_eq!(provider.asked(), 1);
    // Keys that are fetched then are the newer ones, for others too.
    assert_eq!(provider.outcome(&mut one, &new), "passed");
    assert_eq!(provider.asked(), 2);
    assert_eq!(provider.outcome(&mut other, &new), "passed");
    assert_eq!(provider.outcome(&mut other, &old), refused(UNKNOWN));
    assert_eq!(provider.asked(), 2);

    // By more: whoever has them fetches new ones, and who starts now does not take them over.
    provider.publish(&[("a", ES256_D)]);
    testing::advance_clock(30 * SECOND);
    testing::set_wall_clock(Duration::from_secs(NOW - 100_000));
    assert_eq!(provider.outcome(&mut one, &new), refused(UNKNOWN));
    for instance in [&mut one, &mut other, &mut instance()] {
        assert_eq!(provider.outcome(instance, &old), "passed");
        assert_eq!(provider.outcome(instance, &new), refused(UNKNOWN));
    }
    assert_eq!(provider.asked(), 3);
}

#[test]
fn keys_that_only_one_instance_has_are_not_given_up_for_older_ones() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let mut one = instance();
    let (old, new) = (token("a", ES256_D), token("b", OTHER_D));
    assert_eq!(provider.outcome(&mut one, &old), "passed");
    testing::advance_clock(30 * SECOND);
    let mut exchange = bearer(&new).call("idp", |_| {
        set_zone_fault("keys", Some(ZoneFault::Full));
        Response::status(200).body(set(&[("b", OTHER_D), ("c", THIRD_D)]))
    });
    assert_eq!(outcome(&mut one, &mut exchange), "passed");
    let unknown = token("x", THIRD_D);
    assert_eq!(provider.outcome(&mut one, &unknown), refused(UNKNOWN));
    assert_eq!(provider.outcome(&mut one, &new), "passed");
    assert_eq!(provider.asked(), 1);
}

#[test]
fn keys_that_cannot_be_used_are_none() {
    let rs256 = rs256_jwk();
    let weak = format!(r#"{{"kty":"RSA","kid":"w","n":"{}","e":"AQAB"}}"#, RSA_P);
    let mut instance = instance();
    let provider = Provider::with(&[]);
    for text in [
        "",
        "no JSON",
        "[]",
        "{}",
        r#"{"keys": {}}"#,
        r#"{"keys": []}"#,
        HS256_JWK,
        &format!(r#"{{"keys": [{HS256_JWK}]}}"#),
    ] {
        provider.publish_text(text);
        let error = provider.failure(&mut instance, &token("a", ES256_D));
        assert!(error.starts_with("keys of upstream idp: "), "{error}");
        testing::advance_clock(30 * SECOND);
    }
    // Keys that are not understood are passed over; a secret is never taken from there.
    provider.publish_text(&format!(
        r#"{{"keys": [null, 1, {{}}, {{"kty":"OKP","crv":"Ed25519","kid":"a"}}, {weak}, {HS256_JWK}, {rs256}]}}"#
    ));
    let good = sign_rs256(r#"{"alg":"RS256"}"#, "{}");
    assert_eq!(provider.outcome(&mut instance, &good), "passed");
    let secret = decode(&HS256_JWK[18..104]);
    let forged = sign_hs256(r#"{"alg":"HS256"}"#, "{}", &secret);
    assert_eq!(provider.outcome(&mut instance, &forged), refused(UNKNOWN));
}

#[test]
fn keys_of_the_config_need_no_provider() {
    let provider = Provider::with(&[]);
    provider.fail();
    let mut both = plugin(&format!(
        r#"{{"keys": [{{"jwk": {ES256_JWK}}}], "required": [],
            "jwks": {{"upstream": "idp", "path": "/keys", "host": "idp.example", "zone": "keys"}}}}"#
    ));
    for _ in 0..2 {
        assert_eq!(provider.outcome(&mut both, &es256_token("{}")), "passed");
    }
    provider.failure(&mut both, &token("b", OTHER_D));
}

#[test]
fn a_zone_that_cannot_be_used_is_an_error() {
    set_zone_fault("keys", Some(ZoneFault::NotGranted));
    let json = r#"{"jwks": {"upstream": "idp", "path": "/keys", "zone": "keys"}}"#;
    let error = Jwt::configure(testing::config(json).unwrap()).err();
    let error = error.unwrap().to_string();
    assert_eq!(
        error,
        "config.jwks.zone: not granted; expected a kv zone of the config that `grants` names"
    );
    set_zone_fault("keys", None);
    let provider = Provider::with(&[("a", ES256_D)]);
    let mut one = instance();
    set_zone_fault("keys", Some(ZoneFault::NotGranted));
    let error = provider.failure(&mut one, &token("a", ES256_D));
    assert_eq!(error, "zone \"keys\": get: not granted");
    set_zone_fault("keys", Some(ZoneFault::Full));
    let error = provider.failure(&mut one, &token("a", ES256_D));
    assert_eq!(error, "zone \"keys\": put of 8 bytes: full");
    assert_eq!(provider.asked(), 0);
    set_zone_fault("keys", None);
    assert_eq!(provider.outcome(&mut one, &token("a", ES256_D)), "passed");
}

#[test]
fn who_has_no_keys_waits_for_those_that_another_one_is_fetching() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let zone = zones::kv("keys");
    let gate = gate();
    zone.put(&gate, "fetching", Some(3 * SECOND)).unwrap();
    let mut one = instance();
    for _ in 0..2 {
        let before = clock::monotonic();
        let error = provider.failure(&mut one, &token("a", ES256_D));
        assert_eq!(error, "upstream idp is still being asked for its keys");
        assert_eq!(clock::monotonic() - before, SECOND);
    }
    assert_eq!(provider.asked(), 0, "while another one may be asking");
    testing::advance_clock(SECOND);
    assert_eq!(provider.outcome(&mut one, &token("a", ES256_D)), "passed");
    // A token with an unknown key is refused at once: there are keys.
    zone.put(&gate, "fetching", Some(6 * SECOND)).unwrap();
    let before = clock::monotonic();
    assert_eq!(
        provider.outcome(&mut one, &token("x", ES256_D)),
        refused(UNKNOWN)
    );
    assert_eq!(clock::monotonic(), before);
    assert_eq!(provider.asked(), 1);
}

#[test]
fn a_fetch_that_is_given_up_counts_for_the_cooldown() {
    for (times, shut) in [
        (r#""timeout": "5s", "cooldown": "30s""#, 30 * SECOND),
        (r#""timeout": "5s", "cooldown": "2s""#, 6 * SECOND),
    ] {
        let json = CONFIG.replace("\"zone\"", &format!("{times}, \"zone\""));
        let provider = Provider::with(&[("a", ES256_D)]);
        let (mut one, good) = (plugin(&json), token("a", ES256_D));
        assert_eq!(provider.outcome(&mut one, &good), "passed");
        // The call ends as if its client left: nobody tells the gate how it ended.
        testing::advance_clock(30 * SECOND);
        let given_up = bearer(&token("x", THIRD_D)).call("idp", |_| {
            set_zone_fault("keys", Some(ZoneFault::Full));
            Response::status(503)
        });
        let mut given_up = given_up;
        assert_eq!(outcome(&mut one, &mut given_up), refused(UNKNOWN));
        set_zone_fault("keys", None);
        testing::advance_clock(shut - Duration::from_millis(1));
        for id in ["y", "z"] {
            let unknown = token(id, THIRD_D);
            assert_eq!(provider.outcome(&mut one, &unknown), refused(UNKNOWN));
        }
        assert_eq!(provider.asked(), 1, "{times}");
        testing::advance_clock(Duration::from_millis(1));
        provider.outcome(&mut one, &token("y", THIRD_D));
        assert_eq!(provider.asked(), 2, "{times}");
        testing::advance_clock(30 * SECOND);
        let zone = zones::kv("keys");
        for key in zone.list("", 9).unwrap() {
            zone.delete(key).unwrap();
        }
    }
}

#[test]
fn keys_that_the_zone_does_not_take_are_fetched_once_in_a_cooldown_all_the_same() {
    let provider = Provider::with(&[("a", ES256_D)]);
    let good = token("a", ES256_D);
    let mut one = instance();
    let asked = provider.clone();
    let mut first = bearer(&good).call("idp", move |_| {
        set_zone_fault("keys", Some(ZoneFault::Full));
        asked.0.borrow_mut().0 += 1;
        Response::status(200).body(set(&[("a", ES256_D)]))
    });
    assert_eq!(outcome(&mut one, &mut first), "passed");
    set_zone_fault("keys", None);
    assert_eq!(provider.outcome(&mut one, &good), "passed", "it has them");
    let mut other = instance();
    for _ in 0..3 {
        let error = provider.failure(&mut other, &good);
        assert_eq!(
            error,
            "the zone does not have the keys of upstream idp (not asked again within 30 s)"
        );
    }
    assert_eq!(provider.asked(), 1);
    testing::advance_clock(30 * SECOND);
    assert_eq!(provider.outcome(&mut other, &good), "passed");
    assert_eq!(provider.asked(), 2);
}

#[test]
fn what_asks_for_other_keys_shares_none() {
    let long = "h".repeat(1_000);
    let mut sources = 0;
    for (upstream, path, host) in [
        ("idp", "/keys", Some("a.example")),
        ("idp", "/keys", Some("b.example")),
        ("idp", "/keys", Some("c.example")),
        ("idp", "/keys", None),
        ("idp", "/keysa", Some("example")),
        ("idp", "/keysa.example", None),
        ("idp.keys", "/", None),
        ("idp.keys", "/keys", None),
        ("idp", "/keys", Some(&long)),
    ] {
        let json = serde_json::json!({
            "jwks": {"upstream": upstream, "path": path, "host": host, "zone": "keys"},
            "required": [],
        });
        let json = json.to_string();
        // Each tenant has a key of the same name.
        let d = if sources % 2 == 0 { ES256_D } else { OTHER_D };
        let other_d = if sources % 2 == 0 { OTHER_D } else { ES256_D };
        let asked = Rc::new(RefCell::new(0));
        let asks = |token: &str| {
            let asked = asked.clone();
            bearer(token).call(upstream, move |_| {
                *asked.borrow_mut() += 1;
                Response::status(200).body(set(&[("a", d)]))
            })
        };
        for _ in 0..2 {
            let mut plugin = plugin(&json);
            let mut good = asks(&token("a", d));
            assert_eq!(outcome(&mut plugin, &mut good), "passed", "{json}");
            let mut bad = asks(&token("a", other_d));
            let wrong = refused("the token's signature is wrong");
            assert_eq!(outcome(&mut plugin, &mut bad), wrong, "{json}");
        }
        assert_eq!(*asked.borrow(), 1, "{json}");
        sources += 1;
    }
    let zone = zones::kv("keys");
    assert_eq!(zone.list("jwks document ", 99).unwrap().len(), sources);
    assert_eq!(zone.list("jwks gate ", 99).unwrap().len(), sources);
}
