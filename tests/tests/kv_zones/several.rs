//! Several keys at once, numbers, the time that is left, and zones that evict.

use castling_tests::until;

use super::{CONFIG, ask, keeper, refusal};

#[test]
fn a_value_tells_what_time_it_has_left() {
    let proxy = keeper();
    let hour = [("x-value", "1"), ("x-ttl-ms", "3600000")];
    ask(&proxy, "/put/a", &hour);
    ask(&proxy, "/put/b", &[("x-value", "2")]);
    let told = ask(&proxy, "/ttl/a", &[]);
    let (value, left_ms) = told.split_once(' ').unwrap();
    let left_ms: u64 = left_ms.parse().unwrap();
    assert!(value == "1" && (1..=3_600_000).contains(&left_ms), "{told}");
    assert_eq!(ask(&proxy, "/ttl/b", &[]), "2 for ever");
    assert_eq!(ask(&proxy, "/ttl/c", &[]), "nothing");
    assert_eq!(
        refusal(&proxy, "/ttl/", &[]),
        "zone \"kept\": get: bad argument: expected keys of 1 to 510 bytes"
    );
}

#[test]
fn several_keys_are_read_stored_and_deleted_at_once() {
    let proxy = keeper();
    assert_eq!(ask(&proxy, "/put_all/a,b,c", &[("x-value", "1")]), "stored");
    assert_eq!(ask(&proxy, "/put_all/b,b", &[("x-value", "2")]), "stored");
    assert_eq!(ask(&proxy, "/get_all/c,b,none,a,a", &[]), "1,2,nothing,1,1");
    assert_eq!(ask(&proxy, "/delete_all/a,a,none,c", &[]), "2");
    assert_eq!(ask(&proxy, "/get_all/a,b,c", &[]), "nothing,2,nothing");
    let short = [("x-value", "3"), ("x-ttl-ms", "1")];
    ask(&proxy, "/put_all/b,d", &short);
    until("both have expired", || {
        ask(&proxy, "/get_all/b,d", &[]) == "nothing,nothing"
    });
    let many: Vec<String> = (0..101).map(|key| key.to_string()).collect();
    let (most, many) = (many[..100].join(","), many.join(","));
    let value = [("x-value", "4")];
    for verb in ["put_all", "get_all", "delete_all"] {
        assert_eq!(
            refusal(&proxy, &format!("/{verb}/{many}"), &value),
            format!("zone \"kept\": {verb}: limit reached")
        );
        assert_eq!(
            refusal(&proxy, &format!("/{verb}/a,,b"), &value),
            format!("zone \"kept\": {verb}: bad argument: expected keys of 1 to 510 bytes")
        );
    }
    assert_eq!(ask(&proxy, "/list/", &[]), "", "all or nothing");
    ask(&proxy, &format!("/put_all/{most}"), &value);
    assert_eq!(ask(&proxy, &format!("/delete_all/{most}"), &[]), "100");
    // Values together have 1/16 of the zone.
    let half = [("x-size", "32768")];
    assert_eq!(ask(&proxy, "/put_all/a,b", &half), "stored");
    assert_eq!(
        refusal(&proxy, "/put_all/a,b", &[("x-size", "32769")]),
        "zone \"kept\": put_all: limit reached"
    );
    ask(&proxy, "/fill/x", &[("x-size", "10000")]);
    assert_eq!(
        refusal(&proxy, "/put_all/a,c,d", &[("x-size", "20000")]),
        "zone \"kept\": put_all: full"
    );
    assert_eq!(ask(&proxy, "/get_all/c,d", &[]), "nothing,nothing");
    assert_eq!(ask(&proxy, "/delete_all/a,b,x00001", &[]), "3");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn what_several_workers_do_with_several_keys_is_seen_whole() {
    let proxy = keeper();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let proxy = &proxy;
            scope.spawn(move || {
                for round in 0..50 {
                    let value = format!("{client}-{round}");
                    let headers = [("x-count", "20"), ("x-value", value.as_str())];
                    assert_eq!(ask(proxy, "/batch/k", &headers), "whole");
                }
            });
        }
    });
}

#[test]
fn of_many_who_increment_at_once_none_is_lost() {
    let proxy = keeper();
    let add = |by| ask(&proxy, "/increment/n", &[("x-by", by)]);
    assert_eq!(add("3"), "3");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    ask(&proxy, "/increment/n", &[("x-ttl-ms", "1")]);
                }
            });
        }
    });
    assert_eq!(add("0"), "403", "the time of the first counts");
    assert_eq!(add("-404"), "-1");
    assert_eq!(
        refusal(&proxy, "/increment/n", &[("x-by", "-9223372036854775808")]),
        "zone \"kept\": increment: limit reached"
    );
    ask(&proxy, "/put/text", &[("x-value", "seventy")]);
    assert_eq!(
        refusal(&proxy, "/increment/text", &[]),
        "zone \"kept\": increment: bad argument: expected a key of 1 to 510 bytes, and a number of 8 bytes where it has a value"
    );
    ask(&proxy, "/increment/short", &[("x-ttl-ms", "1")]);
    until("the number has expired", || {
        ask(&proxy, "/increment/short", &[("x-by", "7")]) == "7"
    });
}

#[test]
fn a_zone_that_evicts_takes_what_is_new_and_keeps_what_never_expires() {
    let mut proxy = keeper();
    ask(&proxy, "/put/stays", &[("x-value", "1")]);
    let hour = [("x-size", "10000"), ("x-ttl-ms", "3600000")];
    let filled = ask(&proxy, "/fill/x", &hour);
    let count: u32 = filled.split_once(' ').unwrap().0.parse().unwrap();
    // The setting is nothing of the zone's: what is there stays.
    let evicting = CONFIG.replace("size = \"1MiB\"", "size = \"1MiB\"\nwhen_full = \"evict\"");
    proxy.reload_with(&evicting).expect_success();
    assert_eq!(
        ask(&proxy, "/list/", &[]).split(' ').count() as u32,
        count + 1
    );

    for new in 0..count {
        assert_eq!(ask(&proxy, &format!("/put/new{new:05}"), &hour), "stored");
    }
    assert_eq!(ask(&proxy, "/get/x00000", &[]), "nothing");
    let kept = ask(&proxy, "/list/new", &[]).split(' ').count() as u32;
    assert!(kept > count * 3 / 4, "{kept} of {count}");
    assert_eq!(ask(&proxy, "/get/stays", &[]), "1");
    let evicted = proxy.status()["zones"][0]["evicted"].as_u64().unwrap();
    assert!(
        evicted >= u64::from(count) && evicted < u64::from(2 * count),
        "{evicted}"
    );

    // Entries that never expire take their place, and then there is nothing that could go.
    let filled = ask(&proxy, "/fill/y", &[("x-size", "10000")]);
    assert!(filled.ends_with("put of 10000 bytes: full"), "{filled}");
    assert_eq!(ask(&proxy, "/list/new", &[]), "");
    assert_eq!(ask(&proxy, "/get/stays", &[]), "1");
    assert_eq!(proxy.error_lines(), [""; 0]);
}
