//! Configs that are refused.

use super::*;

#[test]
fn a_bad_config_says_where() {
    let weak_rsa = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, RSA_P);
    let other_alg = ES256_JWK.replace("{", r#"{"alg":"ES384","#);
    let for_encryption = ES256_JWK.replace("{", r#"{"use":"enc","#);
    let for_signing = ES256_JWK.replace("{", r#"{"key_ops":["sign"],"#);
    let off_curve = ES256_JWK.replace("5a0\"", "5a4\"");
    let short = ES256_JWK.replace("\"x_FE", "\"");
    let key = |key: &str| format!(r#"{{"keys": [{key}]}}"#);
    let jwk = |jwk: &str| key(&format!(r#"{{"jwk": {jwk}}}"#));
    let with = |more: &str| format!(r#"{{"keys": [{{"jwk": {ES256_JWK}}}], {more}}}"#);
    let jwks = |more: &str| format!(r#"{{"jwks": {{{more}}}}}"#);
    for (json, text) in [
        ("{}".to_owned(), "config: neither `keys` nor `jwks`"),
        (
            key("{}"),
            "config.keys[0]: expected one of `secret`, `pem` and `jwk`",
        ),
        (
            key(r#"{"secret": "a", "pem": "b"}"#),
            "config.keys[0]: expected one of",
        ),
        (
            key(r#"{"secret": "short"}"#),
            "config.keys[0]: 5 bytes: HS256 needs 32 or more",
        ),
        (
            key(r#"{"pem": "x"}"#),
            "config.keys[0]: expected a public key",
        ),
        (
            key(r#"{"pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}"#),
            "config.keys[0]: neither an RSA key",
        ),
        (
            key(r#"{"pem": "-----BEGIN PRIVATE KEY-----"}"#),
            "config.keys[0]: expected a public key",
        ),
        (jwk("{}"), "config.keys[0]: expected `kty`"),
        (jwk(r#"{"kty": "oct"}"#), "config.keys[0]: it has no `k`"),
        (
            jwk(r#"{"kty": "oct", "k": "?"}"#),
            "config.keys[0]: k: not base64url",
        ),
        (
            jwk(r#"{"kty": "EC", "crv": "P-384"}"#),
            "config.keys[0]: expected `kty`",
        ),
        (
            jwk(&weak_rsa),
            "config.keys[0]: an RSA key of 1024 bits: RS256 needs 2048 or more",
        ),
        (jwk(&other_alg), "config.keys[0]: its `alg` is not ES256"),
        (
            jwk(&for_encryption),
            "config.keys[0]: it is not for verifying",
        ),
        (jwk(&for_signing), "config.keys[0]: it is not for verifying"),
        (jwk(&off_curve), "config.keys[0]: x and y are no point"),
        (jwk(&short), "config.keys[0]: x and y have 32 and 29 bytes"),
        (
            with(r#""scheme": "a b""#),
            "config.scheme: expected one word",
        ),
        (with(r#""cookie": "a;b""#), "config.cookie: expected a name"),
        (
            with(r#""query": "a&""#).replace("&", "\u{26}="),
            "config.query: expected a name",
        ),
        (
            with(r#""claims": {"sub": "User"}"#),
            "config.claims.sub: `User`: expected a-z",
        ),
        (
            with(r#""headers": {"sub": "Authorization"}"#),
            "config.headers.sub: `authorization` is where the token is",
        ),
        (
            with(r#""headers": {"sub": "Host"}"#),
            "config.headers.sub: `host` is the gateway's own",
        ),
        (
            with(r#""scopes": ["a b"]"#),
            "config.scopes[0]: `a b` is not a scope",
        ),
        (
            with(r#""realm": "a\nb""#),
            "config.realm: a control character",
        ),
        (with(r#""leeway": "-1s""#), "config.leeway: "),
        (
            with(r#""algorithm": "none""#),
            "config.algorithm: unknown field",
        ),
        (
            jwks(r#""upstream": "a", "path": "b", "zone": "c""#),
            "config.jwks.path: `b`: expected `/...`",
        ),
        (
            jwks(r#""upstream": "", "path": "/b", "zone": "c""#),
            "config.jwks.upstream: empty",
        ),
        (
            jwks(r#""upstream": "a", "path": "/b""#),
            "config.jwks: missing field `zone`",
        ),
        (
            jwks(r#""upstream": "a", "path": "/b", "zone": "c", "refresh": 0"#),
            "config.jwks.refresh: invalid",
        ),
        (
            jwks(r#""upstream": "a", "path": "/b", "zone": "c", "host": "a\r""#),
            "config.jwks.host: a control",
        ),
    ] {
        let error = testing::config(&json).and_then(Jwt::configure).err();
        let error = error.expect(&json).to_string();
        assert!(error.starts_with(text), "{json}: {error}");
        assert!(
            !error.contains("AyM1") && !error.contains("short"),
            "a secret: {error}"
        );
    }
}
