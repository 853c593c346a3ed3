//! Whom workers run as, on which cores, with which limits, and what they can no longer do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use castling_tests::process::Process;
use castling_tests::{Proxy, Setup, castling_bin, command, origin, until};
use http::StatusCode;
use rustix::process::{Signal, geteuid};

const NOBODY: u32 = 65534;

/// `SETTINGS` are of `[workers]`.
const CONFIG: &str = r#"
    [master]
    control = "{dir}/castling.sock"
    module_store = "{dir}/modules"

    [workers]
    count = 2
    SETTINGS

    [log]
    file = "{dir}/castling.log"

    [plugins.keeper]
    wasm = "{guests}/keeper.wasm"
    config = { zone = "kept" }
    grants = { zones = ["kept", "numbers"] }

    [zones]
    kept = { kind = "kv", size = "1MiB" }
    numbers = { kind = "counter", size = "64KiB" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/put"
    plugins = ["keeper"]

    [[routes]]
    path = "/get"
    plugins = ["keeper"]

    [[routes]]
    upstream = "app"
"#;

fn setup(settings: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("SETTINGS", settings)).origin("app", origin::text("hello"))
}

/// A test that needs root says so where it is not: it has tested nothing then.
macro_rules! root_or_skip {
    () => {
        if !geteuid().is_root() {
            eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
            return;
        }
    };
}

fn owner(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().uid()
}

#[test]
fn workers_have_the_time_zone_and_nothing_else_of_the_masters_environment() {
    let proxy = setup("core_dumps = true")
        .environment("UPSTREAM_PASSWORD", "s3cret")
        .environment("TZ", "Europe/Oslo")
        .start();
    let environment = |process: Process| {
        let bytes = fs::read(format!("/proc/{}/environ", process.0)).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(environment(proxy.master()).contains("UPSTREAM_PASSWORD=s3cret"));
    for worker in proxy.workers() {
        assert_eq!(environment(worker), "TZ=Europe/Oslo\0");
    }
}

#[test]
fn workers_of_another_user_do_all_that_workers_do() {
    root_or_skip!();
    let mut proxy = setup("user = \"nobody\"").open_to_others().start();
    let workers = proxy.until_workers(2);
    for worker in &workers {
        assert_eq!(worker.status("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(worker.status("Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(worker.status("Groups:"), "");
        assert_eq!(worker.status("CapEff:"), "0000000000000000");
        // Not dumpable: what is in its memory is root's business.
        assert_eq!(owner(format!("/proc/{}/environ", worker.0)), 0);
    }
    assert_eq!(proxy.master().status("Uid:"), "0\t0\t0\t0");

    // Zones, logs.
    let ask = |path: &str, value: &str| proxy.get_with(path, &[("x-value", value)]).text();
    ask("/put/a", "1");
    assert_eq!(ask("/get/a", ""), "1");
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.until_access_lines(3).len(), 3);
    for log in ["access.log", "castling.log"] {
        assert_eq!(owner(proxy.path(log)), NOBODY, "{log}");
    }
    fs::rename(proxy.path("access.log"), proxy.path("access.log.1")).unwrap();
    proxy.command("reopen", &[]).expect_success();
    assert_eq!(owner(proxy.path("access.log")), NOBODY);
    until("a line in the new file", || {
        proxy.get("/");
        !proxy.access_lines().is_empty()
    });

    // Replaced, reloaded, found again by a master after a kill.
    workers[0].signal(Signal::KILL);
    until("another worker", || {
        let now = proxy.workers();
        now.len() == 2 && !now.contains(&workers[0])
    });
    proxy.reload().expect_success();
    let workers = proxy.until_workers(2);
    assert_eq!(proxy.get_with("/get/a", &[]).text(), "1");
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);
    proxy.start_again();
    until("the old workers' end", || {
        !workers.iter().any(|worker| worker.is_alive())
    });
    assert_eq!(proxy.get_with("/get/a", &[]).text(), "1");
    let log = fs::read_to_string(proxy.path("castling.log")).unwrap();
    assert!(!log.contains("root"), "{log}");
}

#[test]
fn a_refused_reload_leaves_zones_to_the_user_who_serves() {
    root_or_skip!();
    let stored = "zone_store = \"{dir}/zones\"\n    control =";
    let config = CONFIG.replace("control =", stored);
    let with_user = |user: &str| config.replace("SETTINGS", &format!("user = \"{user}\""));
    let mut proxy = Proxy::with_config(&with_user("nobody"))
        .origin("app", origin::text("hello"))
        .open_to_others()
        .start();
    let zone = proxy.path("zones/kept.1048576");
    assert_eq!(owner(zone.join("data.mdb")), NOBODY);
    assert_eq!(owner(zone.join("zone.json")), 0);
    // The worker may not open the log, which is nobody's.
    let said = proxy
        .reload_with(&with_user("daemon"))
        .expect_refusal()
        .stderr;
    assert!(said.contains("castling.log: Permission denied"), "{said}");
    assert_eq!(owner(zone.join("data.mdb")), NOBODY);
    assert_eq!(owner(zone.join("lock.mdb")), NOBODY);
}

#[test]
fn a_helper_that_compiles_is_no_root_either() {
    root_or_skip!();
    let mut config = CONFIG.replace("SETTINGS", "user = \"nobody\"");
    let mut proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .open_to_others()
        .start();
    let functions: String = (0..20000)
        .map(|n| format!("(func (export \"f{n}\") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {n})))"))
        .collect();
    let hook =
        r#"(func (export "castling_hook_access") (param i32 i32 i32) (result i32) i32.const 0)"#;
    let manifest = castling_tests::module::manifest(1, r#"["access"]"#);
    let slow = castling_tests::module::plugin(&manifest, &format!("{hook} {functions}"));
    fs::write(proxy.path("slow.wasm"), slow).unwrap();
    config.push_str("\n    [plugins.slow]\n    wasm = \"{dir}/slow.wasm\"\n");
    proxy.write_config(&config);
    proxy.master().signal(Signal::HUP);
    until("a helper of nobody's", || {
        let helpers = proxy.master().children_with("compile");
        let is_sealed = |helper: &Process| {
            helper.status("Uid:").starts_with("65534")
                && helper.status("Seccomp:") == "2"
                && helper.status("NoNewPrivs:") == "1"
        };
        helpers.iter().any(is_sealed)
    });
}

#[test]
fn a_worker_that_may_not_reach_its_files_says_which() {
    root_or_skip!();
    let close = |folder: &Path| fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    let whole = setup("user = \"nobody\"");
    close(whole.folder());
    let said = whole.run().outcome.expect_refusal().stderr;
    let hint = "Permission denied (os error 13); expected a file and folders that the user who runs workers may open";
    assert!(
        said.contains("castling.log") && said.contains(hint),
        "{said}"
    );
    let config = CONFIG
        .replace("SETTINGS", "user = \"nobody\"")
        .replace("[log]\n    file = \"{dir}/castling.log\"", "")
        .replace(
            "control =",
            "zone_store = \"{dir}/closed/zones\"\n    control =",
        );
    let setup = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .file("closed/keep", "")
        .open_to_others();
    close(&setup.folder().join("closed"));
    let said = setup.run().outcome.expect_refusal().stderr;
    assert!(
        said.contains("expected a `zone_store` in [master]"),
        "{said}"
    );
}

#[test]
fn only_root_can_run_workers_as_somebody_else() {
    let other = if geteuid().is_root() {
        "daemon"
    } else {
        "root"
    };
    let setup = setup(&format!("user = \"{other}\"")).open_to_others();
    let (dir, config) = setup.written();
    let mut run = Command::new(castling_bin());
    run.arg("run").arg("--config").arg(&config);
    if geteuid().is_root() {
        run.uid(NOBODY).gid(NOBODY);
    }
    let said = command::run(run, Duration::from_secs(30))
        .expect_refusal()
        .stderr;
    let expected = format!(
        "castling.toml:7:8: user {other}: expected the user and group that start the gateway"
    );
    assert!(said.contains(&expected), "{said}");
    drop(dir);
}

#[test]
fn workers_give_up_what_they_do_not_need() {
    let mut proxy = setup("").start();
    for worker in proxy.until_workers(2) {
        assert_eq!(worker.status("NoNewPrivs:"), "1");
        assert_eq!(worker.status("Seccomp:"), "2");
        assert_eq!(worker.status("Seccomp_filters:"), "3");
    }
    assert_eq!(proxy.master().status("Seccomp:"), "0");
    let settings = "seccomp = false\n    core_dumps = true";
    proxy
        .reload_with(&CONFIG.replace("SETTINGS", settings))
        .expect_success();
    for worker in proxy.until_workers(2) {
        assert_eq!(worker.status("NoNewPrivs:"), "1");
        assert_eq!(worker.status("Seccomp:"), "0");
        assert_eq!(
            owner(format!("/proc/{}/environ", worker.0)),
            geteuid().as_raw()
        );
    }
}

#[test]
fn names_are_resolved_and_unknown_ones_told() {
    let config = CONFIG.replace("SETTINGS", "");
    let named = origin::text("hello");
    let port = named.address().port();
    let with_name = |name: &str| config.replace("\"{app}\"", &format!("\"{name}\""));
    let proxy = Proxy::with_config(&with_name(&format!("localhost:{port}"))).start();
    assert_eq!(proxy.get("/").text(), "hello");
    let said = Proxy::with_config(&with_name("no-such-name.invalid:80"))
        .run()
        .outcome
        .expect_refusal()
        .stderr;
    assert!(
        said.contains("peer no-such-name.invalid:80: cannot be resolved: "),
        "{said}"
    );
}

#[test]
fn pinned_workers_stay_on_their_cores() {
    let cores_of = |proxy: &Proxy, workers: usize| -> Vec<String> {
        let workers = proxy.until_workers(workers);
        let cores = workers.iter().map(|w| w.status("Cpus_allowed_list:"));
        cores.collect()
    };
    let mut proxy = setup("pin = true").start();
    let pinned = cores_of(&proxy, 2);
    assert!(
        pinned.iter().all(|core| core.parse::<u32>().is_ok()),
        "{pinned:?}"
    );
    let all = proxy.master().status("Cpus_allowed_list:");
    if all.parse::<u32>().is_err() {
        assert_ne!(pinned[0], pinned[1]);
    }
    let last = pinned.iter().max().unwrap();
    let many = CONFIG
        .replace("SETTINGS", &format!("pin = [{last}]"))
        .replace("count = 2", "count = 3");
    proxy.reload_with(&many).expect_success();
    assert_eq!(cores_of(&proxy, 3), [last.as_str(); 3]);
    until("a warning", || {
        let log = fs::read_to_string(proxy.path("castling.log")).unwrap();
        log.contains("more workers than cores: several share a core workers=3 cores=1")
    });
    proxy
        .reload_with(&CONFIG.replace("SETTINGS", "pin = false"))
        .expect_success();
    assert_eq!(cores_of(&proxy, 2), [all.as_str(); 2]);
    let said = proxy
        .reload_with(&CONFIG.replace("SETTINGS", "pin = [1023]"))
        .expect_refusal()
        .stderr;
    assert!(
        said.contains(
            "castling.toml:7:8: pin 1023: expected a core that this process may run on: "
        ),
        "{said}"
    );
}

#[test]
fn open_files_are_limited_and_too_few_are_told() {
    let mut proxy = setup("max_open_files = 100").start();
    for worker in proxy.until_workers(2) {
        assert_eq!(open_files(worker), "100");
    }
    let log = fs::read_to_string(proxy.path("castling.log")).unwrap();
    assert!(
        log.contains("a worker may have more connections than open files"),
        "{log}"
    );
    proxy
        .reload_with(&CONFIG.replace("SETTINGS", ""))
        .expect_success();
    let all = open_files(proxy.master());
    for worker in proxy.until_workers(2) {
        assert_eq!(open_files(worker), all);
    }
    // More than the system gives anybody.
    let said = proxy
        .reload_with(&CONFIG.replace("SETTINGS", "max_open_files = 1073741816"))
        .expect_refusal()
        .stderr;
    assert!(
        said.contains("castling.toml:7:18: max_open_files 1073741816: the hard limit is "),
        "{said}"
    );
    assert_eq!(proxy.get("/").status, StatusCode::OK);
}

/// The soft limit.
fn open_files(process: Process) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.0)).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.unwrap().split_ascii_whitespace().next();
    soft.unwrap().to_owned()
}
