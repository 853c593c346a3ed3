use std::cell::Cell;
use std::rc::Rc;

use castling_sdk::testing::{self, Exchange, FailedCall, ZoneFault};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn cache() -> Cache {
    let config =
        r#"{"pages": "pages", "upstream": "app", "ttl": "10s", "wait": "5s", "refresh": "2s"}"#;
    testing::config(config).unwrap()
}

/// Origin that counts what it is asked.
#[derive(Clone, Default)]
struct Origin(Rc<Cell<u32>>);

impl Origin {
    fn answers(&self, exchange: Exchange, headers: &[(&'static str, &'static str)]) -> Exchange {
        let (count, headers) = (Rc::clone(&self.0), headers.to_vec());
        exchange.call("app", move |_| {
            count.set(count.get() + 1);
            let page = Response::status(200).body(count.get().to_string());
            headers
                .iter()
                .fold(page, |page, (name, value)| page.header(name, value))
        })
    }
}

/// `X-Cache`, body and `Age`; none: the request passes.
fn answer(exchange: &mut Exchange) -> Option<(String, String, String)> {
    match cache().content(exchange.request()).unwrap() {
        Verdict::Continue => None,
        Verdict::Answer(response) => {
            let text = |name| {
                let value = response.header_value(name);
                value.map_or_else(String::new, |it| it.to_string_lossy().into_owned())
            };
            let body = String::from_utf8_lossy(response.body_bytes()).into_owned();
            Some((text("x-cache"), body, text("age")))
        }
        other => panic!("{other:?}"),
    }
}

fn is(how: &str, body: &str, age: &str) -> Option<(String, String, String)> {
    Some((how.to_owned(), body.to_owned(), age.to_owned()))
}

#[test]
fn a_page_is_fetched_once_in_its_time() {
    let origin = Origin::default();
    let get = || origin.answers(Exchange::get("/a?b"), &[]);
    assert_eq!(answer(&mut get()), is("MISS", "1", ""));
    testing::advance_clock(7 * SECOND);
    assert_eq!(answer(&mut get()), is("HIT", "1", "7"));
    assert_eq!(
        answer(&mut origin.answers(Exchange::get("/a"), &[])),
        is("MISS", "2", "")
    );
    assert_eq!(answer(&mut get().host("b.example")), is("MISS", "3", ""));
    testing::advance_clock(3 * SECOND);
    assert_eq!(answer(&mut get()), is("MISS", "4", ""));
}

#[test]
fn one_request_refreshes_a_page_that_is_about_to_end() {
    let origin = Origin::default();
    let get = || origin.answers(Exchange::get("/"), &[]);
    answer(&mut get());
    testing::advance_clock(9 * SECOND);
    assert_eq!(answer(&mut get()), is("HIT", "1", "9"));
    assert_eq!(origin.0.get(), 2);
    assert_eq!(answer(&mut get()), is("HIT", "2", "0"));
    testing::advance_clock(9 * SECOND);
    // One that fails leaves the old page, and is not tried again at once.
    let mut broken = Exchange::get("/").failing_call_of("app", FailedCall::Refused, "no");
    assert_eq!(answer(&mut broken), is("HIT", "2", "9"));
    assert_eq!(answer(&mut get()), is("HIT", "2", "9"));
    assert_eq!(origin.0.get(), 2);
}

#[test]
fn the_origin_says_what_is_kept_and_for_how_long() {
    for (headers, ttl) in [
        (&[("cache-control", "max-age=3")][..], 3),
        (&[("cache-control", "Max-Age=\"3\", S-MaxAge=4")], 4),
        (
            &[
                ("cache-control", "public"),
                ("cache-control", "s-maxage=5,max-age=3"),
            ],
            5,
        ),
        (&[("vary", "Accept-Encoding")], 10),
        (&[("cache-control", "max-age=x")], 10),
        (&[("cache-control", "max-age=0")], 0),
        (&[("cache-control", "private")], 0),
        (&[("cache-control", "max-age=3, no-store")], 0),
        (&[("cache-control", "no-cache=\"a\"")], 0),
        (&[("vary", "accept-encoding, cookie")], 0),
        (&[("set-cookie", "a=b")], 0),
    ] {
        let origin = Origin::default();
        let get = || origin.answers(Exchange::get("/"), headers);
        assert_eq!(answer(&mut get()), is("MISS", "1", ""), "{headers:?}");
        if ttl == 0 {
            assert_eq!(answer(&mut get()), None, "{headers:?}");
            testing::advance_clock(PASS);
        } else {
            testing::advance_clock(ttl * SECOND - SECOND / 1000);
            assert_eq!(
                answer(&mut Exchange::get("/").failing_call("app", "no"))
                    .unwrap()
                    .0,
                "HIT",
                "{headers:?}"
            );
            testing::advance_clock(SECOND / 1000);
        }
        assert_eq!(answer(&mut get()), is("MISS", "2", ""), "{headers:?}");
        zones::kv("pages").delete("example.com/").unwrap();
        zones::kv("pages").delete("refresh example.com/").unwrap();
    }
}

#[test]
fn whoever_fetches_has_others_wait_and_is_replaced_where_it_fails() {
    let origin = Origin::default();
    let mut first = Exchange::get("/");
    first.request();
    let pages = zones::kv("pages");
    let flight = pages.single_flight("example.com/", SECOND).unwrap();
    assert!(matches!(flight, Flight::Fetch(_)));
    // In this time nobody has it: the origin is asked directly.
    assert_eq!(answer(&mut origin.answers(Exchange::get("/"), &[])), None);
    drop(first);
    let mut failing = Exchange::get("/").failing_call_of("app", FailedCall::Timeout, "slow");
    assert_eq!(
        cache().content(failing.request()).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop(failing);
    let mut broken = Exchange::get("/").call("app", |_| Response::status(500));
    assert_eq!(answer(&mut broken), is("MISS", "", ""));
    assert_eq!(
        answer(&mut origin.answers(Exchange::get("/"), &[])),
        is("MISS", "1", "")
    );
}

#[test]
fn what_is_the_clients_own_passes() {
    for mut exchange in [
        Exchange::new("POST", "/"),
        Exchange::get("/").header("authorization", "a"),
        Exchange::get("/").header("cookie", "a=b"),
        Exchange::get("/").header("range", "bytes=0-1"),
        Exchange::get(&format!("/{}", "a".repeat(500))),
    ] {
        assert_eq!(answer(&mut exchange), None);
    }
}

#[test]
fn a_zone_without_room_costs_no_answer() {
    testing::set_zone_fault("pages", Some(ZoneFault::Full));
    assert_eq!(
        answer(&mut Origin::default().answers(Exchange::get("/"), &[])),
        is("MISS", "1", "")
    );
    assert!(
        testing::take_log()[0]
            .1
            .starts_with("example.com/ is not kept: ")
    );
}
