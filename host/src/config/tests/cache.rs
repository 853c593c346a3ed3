//! Caches of routes: their defaults, and what cannot be.

use super::*;

/// A config with a route that has these keys, from line 2 on.
fn site(keys: &str) -> String {
    format!(
        "[[routes]]\n{keys}\n[zones.pages]\nkind = 'cache'\nsize = '1MiB'\n[zones.other]\nkind = 'kv'\nsize = '1MiB'"
    )
}

#[track_caller]
fn is_refused(keys: &str, error: &str) {
    refused(&site(&format!("upstream = 'app'\n{keys}")), error);
}

#[test]
fn a_cache_is_a_zone_or_says_more() {
    let cache = |cache: &str| {
        let config = good(&site(&format!("upstream = 'app'\ncache = {cache}")));
        config.routes[0].cache.clone().expect("a cache")
    };
    let plain = cache("'pages'");
    assert_eq!(plain, cache("{ zone = 'pages' }"));
    assert_eq!(plain.key, None);
    let more =
        cache("{ zone = 'pages', ttl = { 404 = '1m', 2xx = '2m' }, heuristic = 1, keep = '1h' }");
    let (statuses, lifetime) = &more.lifetimes[0];
    assert!(statuses.contains(404) && !statuses.contains(200));
    assert_eq!(lifetime.as_secs(), 60);
    assert_eq!((more.heuristic, more.keep.as_secs()), (1.0, 3600));
}

#[test]
fn caches_that_cannot_be() {
    is_refused(
        "cache = 'page'",
        "site.toml:3:9: unknown zone \"page\": did you mean \"pages\"?",
    );
    is_refused(
        "cache = 'other'",
        "site.toml:3:9: cache 'other': expected the name of a zone of kind \"cache\"",
    );
    is_refused(
        "cache = {}",
        "site.toml:3:9: missing key \"zone\": expected a zone of kind \"cache\"",
    );
    is_refused(
        "cache = { zone = 'pages', ttl = { all = '1m' } }",
        "site.toml:3:41: ttl all: expected a status such as 200, 5xx or 200-299 before it",
    );
    is_refused(
        "cache = { zone = 'pages', key = '$status' }",
        "site.toml:3:33: key '$status': expected a text with variables of the request: the response is not there yet",
    );
    is_refused(
        "cache = { zone = 'pages', bypass = ['$'] }",
        "site.toml:3:37: bypass: `$` is no variable's name",
    );
    is_refused(
        "cache = { zone = 'pages', key = '$id' }",
        "site.toml:3:9: cache $id: no plugin is there to set it: expected a variable of the request, or a group of a route's regular expression",
    );
    is_refused(
        "cache = { zone = 'pages', ignore_origin = true }",
        "site.toml:3:9: ignore_origin without ttl: nothing would be stored: expected ttl = { 200 = \"10m\" }",
    );
    is_refused(
        "cache = { zone = 'pages', max_body = '2MiB' }",
        "site.toml:3:38: max_body '2MiB': expected 1 to 960KiB",
    );
    refused(
        &site("metrics = true\ncache = 'pages'"),
        "site.toml:3:9: cache without an upstream has no effect: expected upstream = \"NAME\" beside it",
    );
    refused(
        "[zones.z]\nkind = 'cache'\nsize = '1MiB'\nwhen_full = 'evict'",
        "site.toml:4:13: when_full is for zones of kind \"kv\": expected none in a cache, in which what was not asked for the longest \
         makes room",
    );
}
