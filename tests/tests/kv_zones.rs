//! Kv zones, used by a plugin that does what the request's path says (`tests/guests/keeper`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use castling_tests::{DEADLINE, Proxy, Reply, block_on, body, client, until, within};
use http::Request;
use rustix::process::Signal;

#[path = "kv_zones/several.rs"]
mod several;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [zones.numbers]
    kind = "counter"
    size = "64KiB"

    [plugins.keeper]
    wasm = "{guests}/keeper.wasm"
    config = { zone = "kept" }
    grants = { zones = ["kept", "numbers"] }

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["keeper"]
"#;

fn keeper() -> Proxy {
    Proxy::with_config(CONFIG).start()
}

/// Answer of the zone; each request has a connection of its own, so both workers get some.
#[track_caller]
fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> String {
    let reply = proxy.get_with(path, headers);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.text()
}

/// Why the zone refused.
#[track_caller]
fn refusal(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> String {
    let reply = proxy.get_with(path, headers);
    assert_eq!(reply.status, 409, "{path}: {}", reply.text());
    reply.text()
}

/// The zone's folders.
fn zones_in(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn used_bytes(proxy: &Proxy) -> u64 {
    proxy.status()["zones"][0]["used_bytes"].as_u64().unwrap()
}

#[test]
fn all_workers_see_the_same_values() {
    let proxy = keeper();
    assert_eq!(ask(&proxy, "/put/a", &[("x-value", "1")]), "stored");
    for _ in 0..10 {
        assert_eq!(ask(&proxy, "/get/a", &[]), "1");
    }
    assert_eq!(ask(&proxy, "/add/a", &[("x-value", "2")]), "false");
    assert_eq!(ask(&proxy, "/add/b", &[("x-value", "2")]), "true");
    let swap = |expected| {
        ask(
            &proxy,
            "/swap/b",
            &[("x-expected", expected), ("x-value", "3")],
        )
    };
    assert_eq!((swap("1"), swap("2")), ("false".into(), "true".into()));
    assert_eq!(ask(&proxy, "/swap/b", &[("x-value", "4")]), "false");
    assert_eq!(ask(&proxy, "/delete_if/b", &[("x-value", "2")]), "false");
    assert_eq!(ask(&proxy, "/delete_if/b", &[("x-value", "3")]), "true");
    assert_eq!(ask(&proxy, "/delete/b", &[]), "false");
    assert_eq!(ask(&proxy, "/get/b", &[]), "nothing");
    assert_eq!(proxy.error_lines(), [""; 0]);
    let told = proxy.command("status", &[]).expect_success().stdout;
    assert!(told.contains("\nkept     kv       1.0 MiB"), "{told}");
}

#[test]
fn a_list_has_the_keys_with_the_prefix_in_order() {
    let proxy = keeper();
    for key in ["p/2", "q", "p/1", "p/3", "o"] {
        ask(&proxy, &format!("/put/{key}"), &[]);
    }
    assert_eq!(ask(&proxy, "/list/p/", &[]), "p/1 p/2 p/3");
    assert_eq!(ask(&proxy, "/list/p/", &[("x-limit", "2")]), "p/1 p/2");
    assert_eq!(ask(&proxy, "/list/p/", &[("x-after", "p/2")]), "p/3");
    assert_eq!(ask(&proxy, "/list/", &[]), "o p/1 p/2 p/3 q");
    assert_eq!(ask(&proxy, "/list/x", &[]), "");
}

#[test]
fn what_has_expired_is_gone_and_makes_room() {
    let proxy = keeper();
    ask(
        &proxy,
        "/put/long",
        &[("x-value", "1"), ("x-ttl-ms", "3600000")],
    );
    ask(&proxy, "/put/short", &[("x-value", "1"), ("x-ttl-ms", "1")]);
    until("the entry has expired", || {
        ask(&proxy, "/get/short", &[]) == "nothing"
    });
    assert_eq!(ask(&proxy, "/get/long", &[]), "1");

    // Expired entries go though nothing writes any more: one worker sweeps.
    let filled = ask(
        &proxy,
        "/fill/x",
        &[("x-size", "1000"), ("x-ttl-ms", "2000")],
    );
    assert!(filled.ends_with("full"), "{filled}");
    let full = used_bytes(&proxy);
    assert!(full > 512 << 10, "{full}");
    until("expired entries are swept", || {
        used_bytes(&proxy) < full / 4
    });
    assert_eq!(ask(&proxy, "/list/", &[]), "long");
}

#[test]
fn a_full_zone_refuses_what_is_new_and_nothing_else() {
    let proxy = keeper();
    let workers = proxy.workers();
    let filled = ask(&proxy, "/fill/x", &[("x-size", "10000")]);
    let (count, error) = filled.split_once(' ').unwrap();
    assert_eq!(error, "zone \"kept\": put of 10000 bytes: full");
    assert!(count.parse::<u32>().unwrap() > 50, "{count}");

    let big = [("x-size", "10000")];
    assert_eq!(
        refusal(&proxy, "/put/new", &big),
        "zone \"kept\": put of 10000 bytes: full"
    );
    assert_eq!(
        ask(&proxy, "/put/x00001", &big),
        "stored",
        "as large as before"
    );
    assert_eq!(ask(&proxy, "/delete/x00002", &[]), "true");
    assert_eq!(ask(&proxy, "/delete/x00003", &[]), "true");
    assert_eq!(ask(&proxy, "/put/new", &big), "stored");
    assert_eq!(proxy.workers(), workers);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn what_is_out_of_bounds_is_an_error_that_says_so() {
    let proxy = keeper();
    let put = |path: &str, size: &str| refusal(&proxy, path, &[("x-size", size)]);
    // 1/16 of the zone.
    assert_eq!(ask(&proxy, "/put/k", &[("x-size", "65536")]), "stored");
    assert_eq!(
        put("/put/k", "65537"),
        "zone \"kept\": put of 65537 bytes: limit reached"
    );
    let long = "k".repeat(511);
    assert_eq!(ask(&proxy, &format!("/put/{}", &long[1..]), &[]), "stored");
    assert_eq!(
        put(&format!("/put/{long}"), "1"),
        "zone \"kept\": put of 1 bytes: bad argument: expected keys of 1 to 510 bytes"
    );
    assert_eq!(
        refusal(&proxy, "/get/", &[]),
        "zone \"kept\": get: bad argument: expected keys of 1 to 510 bytes"
    );
    assert_eq!(
        refusal(&proxy, &format!("/list/{long}"), &[]),
        "zone \"kept\": list: bad argument: expected keys of 1 to 510 bytes"
    );
}

#[test]
fn a_zone_that_is_not_granted_or_of_the_other_kind_is_an_error() {
    let other = "[zones.other]\nkind = \"kv\"\nsize = \"1MiB\"\n";
    let config = |zone| {
        let used = format!("config = {{ zone = \"{zone}\" }}");
        other.to_owned() + &CONFIG.replace("config = { zone = \"kept\" }", &used)
    };
    let mut proxy = Proxy::with_config(&config("other")).start();
    assert_eq!(
        refusal(&proxy, "/get/k", &[]),
        "zone \"other\": get: not granted"
    );
    assert_eq!(
        refusal(&proxy, "/counter/k", &[]),
        "zone \"kept\": get: a zone of another kind"
    );
    proxy.reload_with(&config("numbers")).expect_success();
    assert_eq!(
        refusal(&proxy, "/put/k", &[]),
        "zone \"numbers\": put of 0 bytes: a zone of another kind"
    );
}

#[test]
fn grants_without_a_zone_of_the_kind_are_refused_at_load() {
    // The module uses both kinds.
    for (grants, expected) in [
        ("", "uses a zone, which nothing grants"),
        (
            "grants = { zones = [\"kept\"] }",
            "uses a counter zone; expected one",
        ),
        (
            "grants = { zones = [\"numbers\"] }",
            "uses a kv zone; expected one",
        ),
    ] {
        let config = CONFIG.replace("grants = { zones = [\"kept\", \"numbers\"] }", grants);
        let checked = Proxy::with_config(&config).check();
        let told = checked.outcome.expect_refusal().stderr;
        let place = "castling.toml:12:1: plugin keeper: ";
        assert!(told.contains(place) && told.contains(expected), "{told}");
    }
}

#[test]
fn of_many_who_count_at_once_none_is_lost() {
    let proxy = keeper();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    ask(&proxy, "/count/all", &[]);
                }
            });
        }
    });
    assert_eq!(ask(&proxy, "/get/all", &[]), "400");
    let status = proxy.status();
    let requests = |worker: usize| status["workers"][worker]["requests"].as_u64().unwrap();
    assert!(requests(0) > 0 && requests(1) > 0, "{status}");
}

#[test]
fn values_survive_reloads_and_workers_and_a_killed_master() {
    let mut proxy = keeper();
    ask(&proxy, "/put/a", &[("x-value", "1")]);
    proxy
        .reload_with(&CONFIG.replace("count = 2", "count = 1"))
        .expect_success();
    assert_eq!(ask(&proxy, "/get/a", &[]), "1");
    let workers = proxy.until_workers(1);
    workers[0].signal(Signal::KILL);
    until("the worker has died", || !workers[0].is_alive());
    assert_eq!(ask(&proxy, "/get/a", &[]), "1");

    let workers = proxy.until_workers(1);
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);
    until("the worker has ended", || !workers[0].is_alive());
    assert_eq!(zones_in(&proxy.path("zones")), ["kept.1048576"]);
    proxy.start_again();
    assert_eq!(ask(&proxy, "/get/a", &[]), "1");

    proxy.command("stop", &[]).expect_success();
    assert_eq!(proxy.until_ended(), Some(0));
    assert!(!proxy.path("zones").exists());
}

#[test]
fn a_zone_that_no_generation_uses_is_removed() {
    let mut proxy = keeper();
    let store = proxy.path("zones");
    assert_eq!(zones_in(&store), ["kept.1048576"]);
    ask(&proxy, "/put/a", &[("x-value", "1")]);

    // Another size is another zone.
    proxy
        .reload_with(&CONFIG.replace("1MiB", "2MiB"))
        .expect_success();
    assert_eq!(ask(&proxy, "/get/a", &[]), "nothing");
    until("the old zone is gone", || {
        zones_in(&store) == ["kept.2097152"]
    });

    // A generation that does not come to serve leaves nothing.
    let broken = CONFIG.replace("config = { zone = \"kept\" }", "config = { zoo = 1 }");
    proxy.reload_with(&broken).expect_refusal();
    until("the zone of what was refused is gone", || {
        zones_in(&store) == ["kept.2097152"]
    });
    proxy.write_config(CONFIG);
    proxy.check().expect_success();
    assert_eq!(
        zones_in(&proxy.path(""))
            .iter()
            .filter(|name| name.starts_with("zones"))
            .count(),
        1,
        "`check` leaves nothing either"
    );

    let without = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{refusing}"]

        [[routes]]
        upstream = "app"
    "#;
    proxy.reload_with(without).expect_success();
    until("the last zone is gone", || zones_in(&store).is_empty());
}

/// The type of the file system that a file is on, from the longest mount point above it.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let above = mounts.lines().filter_map(|mount| {
        let mut words = mount.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    above.max_by_key(|(len, _)| *len).unwrap().1.to_owned()
}

#[test]
fn zones_lie_in_memory_by_default_and_are_gone_after_a_stop() {
    let config = CONFIG.replace("count = 2", "count = 2\n    core_dumps = true");
    let config = format!("[master]\ncontrol = \"{{dir}}/castling.sock\"\n{config}");
    let mut proxy = Proxy::with_config(&config).start();
    let worker = proxy.workers()[0];
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.0)).unwrap();
    let data = maps
        .split_ascii_whitespace()
        .find(|word| word.ends_with("kept.1048576/data.mdb"))
        .expect("a zone is mapped");
    let data = Path::new(data);
    assert_eq!(file_system(data), "tmpfs");
    let store = data.ancestors().nth(2).unwrap();
    assert!(store.exists());
    proxy.master().signal(Signal::TERM);
    assert_eq!(proxy.until_ended(), Some(0));
    assert!(!store.exists());
}

#[test]
fn a_store_that_cannot_be_used_is_an_error_that_names_it() {
    let config = format!(
        "[master]\ncontrol = \"{{dir}}/castling.sock\"\nzone_store = \"{{dir}}/castling.toml/zones\"\n{CONFIG}"
    );
    Proxy::with_config(&config).run().expect_error(
        "{dir}/castling.toml:3:14: zone store {dir}/castling.toml/zones: Not a directory",
    );
}

#[test]
fn zones_lie_where_the_first_config_says_and_a_refused_reload_leaves_nothing_there() {
    let plain = |store: &str| {
        format!(
            "[master]\ncontrol = \"{{dir}}/castling.sock\"\nzone_store = \"{{dir}}/{store}\"\n\
             [listeners.web]\nbind = \"{{listen}}\"\n[[routes]]\nmetrics = true\n"
        )
    };
    let with_zone = |store| plain(store) + "[zones.kept]\nkind = \"kv\"\nsize = \"1MiB\"\n";
    let mut proxy = Proxy::with_config(&plain("first")).start();
    // The zone would be made, but no worker gets ready: a plugin's config is wrong.
    let bad = with_zone("refused")
        + "[plugins.bad]\nwasm = \"{plugins}/token_auth.wasm\"\nconfig = { no = 1 }\n";
    proxy.reload_with(&bad).expect_refusal();
    until("nothing is left of it", || !proxy.path("first").exists());
    proxy.reload_with(&with_zone("second")).expect_success();
    assert!(proxy.path("first/kept.1048576/data.mdb").exists());
    assert!(!proxy.path("refused").exists() && !proxy.path("second").exists());
}

/// For each key: how many counts were asked for, and how many were answered.
#[derive(Default)]
struct Ledger {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// Answer that a client gets while workers die: often nothing.
fn try_to_ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Option<Reply> {
    let request = headers
        .iter()
        .fold(Request::get(path), |request, (name, value)| {
            request.header(*name, *value)
        });
    let request = request.body(body::empty()).unwrap();
    let exchange = client::exchange(proxy.address(), request);
    block_on(within(DEADLINE, path, exchange)).ok()
}

#[test]
fn workers_killed_in_the_midst_of_writes_leave_every_value_whole() {
    const WORKERS: usize = 4;
    const KEYS: usize = 3;
    let config = CONFIG
        .replace("count = 2", &format!("count = {WORKERS}"))
        .replace("1MiB", "4MiB");
    let proxy = Proxy::with_config(&config).start();
    ask(&proxy, "/put/untouched", &[("x-value", "1")]);
    let ledgers: [Ledger; KEYS] = Default::default();
    let over = AtomicBool::new(false);

    let count = |key: usize| {
        ledgers[key].begun.fetch_add(1, SeqCst);
        let reply = try_to_ask(&proxy, &format!("/count/c{key}"), &[]);
        if let Some(reply) = reply {
            assert_eq!(reply.status, 200, "{}", reply.text());
            ledgers[key].ended.fetch_add(1, SeqCst);
        }
    };
    let blob = |round: usize| {
        let (key, size) = (round % 7, (round * 7919 % 20_000).to_string());
        let mut headers = vec![("x-size", size.as_str())];
        headers.extend(round.is_multiple_of(2).then_some(("x-ttl-ms", "3")));
        let reply = try_to_ask(&proxy, &format!("/blob/b{key}"), &headers);
        if let Some(reply) = reply {
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    };
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (over, count, blob) = (&over, &count, &blob);
            scope.spawn(move || {
                let mut round = client;
                while !over.load(SeqCst) {
                    count(round % KEYS);
                    blob(round);
                    round += 1;
                }
            });
        }
        let mut oldest_first = proxy.until_workers(WORKERS);
        for round in 0..3 * WORKERS {
            // Kills one after the other, so that each has lived for a while and is replaced at once.
            std::thread::sleep(Duration::from_micros(
                300_000 + round as u64 * 7919 % 10_000,
            ));
            // Numbers of processes begin anew at some time: they do not say which is older.
            for worker in proxy.until_workers(WORKERS) {
                if !oldest_first.contains(&worker) {
                    oldest_first.push(worker);
                }
            }
            let oldest = oldest_first.remove(0);
            oldest.signal(Signal::KILL);
            until("the worker has died", || !oldest.is_alive());
        }
        over.store(true, SeqCst);
    });

    proxy.until_workers(WORKERS);
    let mut answered = BTreeMap::new();
    for (key, ledger) in ledgers.iter().enumerate() {
        let counted = ask(&proxy, &format!("/get/c{key}"), &[]);
        let counted: u64 = counted.parse().unwrap();
        let (begun, ended) = (ledger.begun.load(SeqCst), ledger.ended.load(SeqCst));
        assert!(
            (ended..=begun).contains(&counted),
            "{ended} <= {counted} <= {begun}"
        );
        answered.insert(key, ended);
    }
    assert!(answered.values().sum::<u64>() > 100, "{answered:?}");
    for key in 0..7 {
        assert_eq!(ask(&proxy, &format!("/blob/b{key}"), &[]), "whole");
    }
    assert_eq!(ask(&proxy, "/get/untouched", &[]), "1");
}
