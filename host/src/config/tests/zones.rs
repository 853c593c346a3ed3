//! Zones: what they are when they are full, and what cannot be.

use super::*;

#[test]
fn a_kv_zone_refuses_when_it_is_full_or_evicts() {
    let when_full = |keys: &str| {
        let zone = format!("[zones.z]\nkind = 'kv'\nsize = '1MiB'\n{keys}");
        good(&zone).zones["z"].when_full
    };
    assert_eq!(when_full(""), WhenFull::Refuse);
    assert_eq!(when_full("when_full = 'refuse'"), WhenFull::Refuse);
    assert_eq!(when_full("when_full = 'evict'"), WhenFull::Evict);
}

#[test]
fn zones_that_cannot_be() {
    let zone = |keys: &str, error: &str| refused(&format!("[zones.z]\n{keys}"), error);
    zone(
        "kind = 'kv'",
        "site.toml:1:1: missing key \"size\": expected a size such as \"1MiB\"",
    );
    zone(
        "size = '1MiB'",
        "site.toml:1:1: missing key \"kind\": expected \"counter\", \"kv\", \"gauge\", \"topic\" or \"cache\"",
    );
    zone(
        "kind = 'kw'\nsize = '1MiB'",
        "site.toml:2:8: kind 'kw': expected \"counter\", \"kv\", \"gauge\", \"topic\" or \"cache\"",
    );
    zone(
        "kind = 'kv'\nsize = '512KiB'",
        "site.toml:3:8: size '512KiB': expected 1MiB to 64GiB",
    );
    zone(
        "kind = 'counter'\nsize = '65GiB'",
        "site.toml:3:8: size '65GiB': expected 64KiB to 64GiB",
    );
    zone(
        "kind = 'kv'\nsize = '1MiB'\nttl = '1s'",
        "site.toml:4:1: unknown key \"ttl\": expected \"kind\", \"size\" or \"when_full\"",
    );
    zone(
        "kind = 'kv'\nsize = '1MiB'\nwhen_full = 'drop'",
        "site.toml:4:13: when_full 'drop': expected \"refuse\" or \"evict\"",
    );
    zone(
        "kind = 'counter'\nsize = '1MiB'\nwhen_full = 'evict'",
        "site.toml:4:13: when_full is for zones of kind \"kv\": expected none in a counter zone, in which the key that expires \
         first makes room",
    );
    zone(
        "kind = 'gauge'\nsize = '1MiB'\nwhen_full = 'evict'",
        "site.toml:4:13: when_full is for zones of kind \"kv\": expected none in a gauge zone, in which a permit that has no \
         room is refused",
    );
    zone(
        "kind = 'topic'\nsize = '1MiB'\nwhen_full = 'evict'",
        "site.toml:4:13: when_full is for zones of kind \"kv\": expected none in a topic, in which the oldest message makes room",
    );
    zone(
        "kind = 'topic'\nsize = '65MiB'",
        "site.toml:3:8: size '65MiB': expected 64KiB to 64MiB",
    );
    zone(
        "kind = 'gauge'\nsize = '5MiB'",
        "site.toml:3:8: size '5MiB': expected 4KiB to 4MiB",
    );
    refused(
        "[zones.sessions]\nkind = 'kv'\nsize = '1MiB'\n[plugins.a]\nwasm = 'p.wasm'\ngrants.zones = ['session']",
        "site.toml:6:17: unknown zone \"session\": did you mean \"sessions\"?",
    );
}
