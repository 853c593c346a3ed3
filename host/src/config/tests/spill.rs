//! `spill_dir` and `spill_limit` of `[workers]`, `retry.spill` of upstreams and routes.

use super::*;

#[test]
fn bodies_go_to_a_disk_where_the_config_says_so() {
    let config = |workers: &str, retry: &str, route: &str| {
        good(&format!(
            "[workers]\n{workers}\n[upstreams.x]\npeers = ['127.0.0.1:1']\nretry = {{ {retry} }}\n\
             [[routes]]\npath = '/x'\nupstream = 'x'\nretry = {{ {route} }}\n"
        ))
    };
    let quiet = config("", "", "");
    assert!(quiet.workers.spill.is_none() && !quiet.spills());
    assert_eq!(quiet.upstreams["x"].retry.spill_bytes, 0);
    // Nothing needs no folder.
    assert!(!config("", "spill = 0", "spill = 0").spills());
    let idle = config("spill_dir = 'spill'", "", "");
    let spill = idle.workers.spill.as_ref().unwrap();
    assert!(spill.dir.is_absolute() && spill.dir.ends_with("spill"));
    assert!(spill.dir.place.ends_with("site.toml:2:13"));
    assert_eq!(spill.limit_bytes, 1 << 30);
    assert!(!idle.spills());
    let workers = "spill_dir = 'spill'\nspill_limit = '2GiB'";
    let config = config(workers, "spill = '64MiB'", "spill = 0");
    assert!(config.spills());
    assert_eq!(config.workers.spill.as_ref().unwrap().limit_bytes, 2 << 30);
    let of_upstream = &config.upstreams["x"].retry;
    assert_eq!(of_upstream.spill_bytes, 64 << 20);
    let of_route = config.routes[0].proxy.retry.as_ref().unwrap();
    assert_eq!(of_route.over(of_upstream).spill_bytes, 0);
}

#[test]
fn bodies_on_disk_that_cannot_be() {
    let spill = |workers: &str, retry: &str, error: &str| {
        let upstream = format!("[upstreams.x]\npeers = ['127.0.0.1:1']\n{retry}\n");
        refused(&format!("[workers]\n{workers}\n{upstream}"), error);
    };
    let dir = "spill_dir = '/tmp'";
    spill(
        "",
        "retry = { spill = '1MiB' }",
        "site.toml:5:19: spill '1MiB': expected `spill_dir` in [workers], the folder that it goes to",
    );
    spill(
        dir,
        "tries = 1\nretry = { spill = '1MiB' }",
        "site.toml:6:19: spill with tries = 1 has no effect: expected more tries",
    );
    spill(
        dir,
        "retry = { spill = '2GiB' }",
        "site.toml:5:19: spill '2GiB': expected no more than `spill_limit` of [workers]",
    );
    spill(
        dir,
        "retry = { spill = '2TiB' }",
        "site.toml:5:19: spill '2TiB': expected 0 to 1TiB",
    );
    spill(
        "spill_limit = '2GiB'",
        "",
        "site.toml:2:15: spill_limit without `spill_dir` has no effect: expected `spill_dir`",
    );
    spill(
        "spill_dir = '/tmp'\nspill_limit = '64KiB'",
        "",
        "site.toml:3:15: spill_limit '64KiB': expected 1MiB to 1TiB",
    );
    spill(
        "spill_dir = 5",
        "",
        "site.toml:2:13: spill_dir 5: expected a path",
    );
    refused(
        "[[routes]]\npath = '/a'\nupstream = 'app'\nretry = { spill = '1MiB' }",
        "site.toml:4:19: spill '1MiB': expected `spill_dir` in [workers], the folder that it goes to",
    );
}
