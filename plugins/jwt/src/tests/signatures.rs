//! Tests of signatures: which are believed.

use super::*;

/// RFC 7515, appendix A: the payload and the three tokens.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256: [&str; 2] = [
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
];
const RS256: [&str; 2] = [
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
];
const ES256: [&str; 2] = [
    "eyJhbGciOiJFUzI1NiJ9",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];

/// With all three keys of the appendix, at a time when its tokens were valid.
fn appendix_a() -> Jwt {
    testing::set_wall_clock(Duration::from_secs(1_300_819_000));
    let rs256 = rs256_jwk();
    plugin(&format!(
        r#"{{"keys": [{{"jwk": {HS256_JWK}}}, {{"jwk": {rs256}}}, {{"jwk": {ES256_JWK}}}],
            "issuers": ["joe"], "required": ["exp", "http://example.com/is_root"]}}"#
    ))
}

#[test]
fn the_tokens_of_rfc_7515_pass() {
    let mut plugin = appendix_a();
    for [header, signature] in [HS256, RS256, ES256] {
        for _ in 0..2 {
            let token = format!("{header}.{PAYLOAD}.{signature}");
            assert_eq!(outcome_of(&mut plugin, &token), "passed");
        }
    }
}

#[test]
fn and_none_of_them_with_a_bit_of_it_changed() {
    let mut plugin = appendix_a();
    for [header, signature] in [HS256, RS256, ES256] {
        let bytes = decode(signature);
        for byte in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            for bit in [0, 7] {
                let mut changed = bytes.clone();
                changed[byte] ^= 1 << bit;
                let token = format!("{header}.{PAYLOAD}.{}", base64(changed));
                assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN), "{token}");
            }
        }
        for changed in [
            &bytes[1..],
            &bytes[..bytes.len() - 1],
            &[&bytes[..], b"\0"].concat(),
            b"",
        ] {
            let token = format!("{header}.{PAYLOAD}.{}", base64(changed));
            assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN), "{token}");
        }
        // Other claims, and another header that says the same.
        let claims = String::from_utf8(decode(PAYLOAD)).unwrap();
        let forged = base64(claims.replace("1300819380", "1300819381"));
        let token = format!("{header}.{forged}.{signature}");
        assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN), "{token}");
        let spaced = base64([b" ".as_slice(), &decode(header)].concat());
        let token = format!("{spaced}.{PAYLOAD}.{signature}");
        assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN), "{token}");
    }
}

/// DER, and the group's order as r or s, are no signatures; and zeros are no signature of any key (CVE-2022-21449).
#[test]
fn an_ecdsa_signature_is_two_numbers_of_the_group() {
    let mut plugin = appendix_a();
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    let good = decode(ES256[1]);
    let der = p256::ecdsa::Signature::from_slice(&good).unwrap().to_der();
    for bad in [
        vec![0; 64],
        [&good[..32], &[0; 32]].concat(),
        [&order[..], &good[32..]].concat(),
        [&good[..32], &order].concat(),
        vec![0xff; 64],
        der.as_bytes().to_vec(),
    ] {
        let token = format!("{}.{PAYLOAD}.{}", ES256[0], base64(bad));
        assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN), "{token}");
    }
}

#[test]
fn a_token_without_a_signature_never_passes() {
    let mut plugin = es256_plugin(r#""required": []"#);
    for alg in [
        "none", "None", "NONE", "nOnE", "", "es256", "HS384", "RS1", "ES256K",
    ] {
        for signature in ["", "AAAA", ES256[1]] {
            let header = format!(r#"{{"alg":"{alg}"}}"#);
            let token = format!("{}.{signature}", unsigned(&header, "{}"));
            let expected = refused("the token's algorithm is not accepted");
            assert_eq!(outcome_of(&mut plugin, &token), expected, "{alg}");
        }
    }
}

/// The public key is known to everybody, so it must not serve as a secret.
#[test]
fn a_key_serves_its_own_algorithm_only() {
    let header = r#"{"alg":"HS256"}"#;
    let rs256 = rs256_jwk();
    for pem in [RSA_PEM, RSA_PKCS1_PEM, ES256_PEM] {
        let json = serde_json::json!({"keys": [{"pem": pem}], "required": []});
        let mut plugin = plugin(&json.to_string());
        let der = data_encoding::BASE64
            .decode(
                pem.lines()
                    .filter(|line| !line.starts_with('-'))
                    .collect::<String>()
                    .as_bytes(),
            )
            .unwrap();
        let secrets = [
            pem.as_bytes(),
            pem.trim().as_bytes(),
            &der,
            &decode(RSA_N),
            rs256.as_bytes(),
        ];
        for secret in secrets {
            let token = sign_hs256(header, "{}", secret);
            assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN));
        }
    }
    // Nor the other way round, nor between the two public ones.
    let mut hs256 = plugin(&format!(
        r#"{{"keys": [{{"jwk": {HS256_JWK}}}], "required": []}}"#
    ));
    let es256_for_rs256 = sign_es256(r#"{"alg":"RS256"}"#, "{}");
    for token in [sign_es256(r#"{"alg":"ES256"}"#, "{}"), es256_for_rs256] {
        assert_eq!(outcome_of(&mut hs256, &token), refused(UNKNOWN));
        let mut es256 = es256_plugin(r#""required": []"#);
        let passes = token.starts_with(ES256[0]);
        assert_eq!(outcome_of(&mut es256, &token) == "passed", passes);
    }
}

#[test]
fn keys_come_as_pem_too() {
    for pem in [RSA_PEM, RSA_PKCS1_PEM, ES256_PEM] {
        let json = serde_json::json!({"keys": [{"pem": pem, "id": "k"}], "required": []});
        let mut plugin = plugin(&json.to_string());
        let token = match pem {
            ES256_PEM => sign_es256(r#"{"alg":"ES256","kid":"k"}"#, "{}"),
            _ => sign_rs256(r#"{"alg":"RS256","kid":"k"}"#, "{}"),
        };
        assert_eq!(outcome_of(&mut plugin, &token), "passed");
    }
}

#[test]
fn a_secret_is_a_text() {
    let mut plugin = plugin(
        r#"{"keys": [{"secret": "0123456789abcdef0123456789abcdef", "id": "old"},
                     {"secret": "fedcba9876543210fedcba9876543210", "id": "new"}], "required": []}"#,
    );
    let (old, new) = (
        b"0123456789abcdef0123456789abcdef",
        b"fedcba9876543210fedcba9876543210",
    );
    for (header, secret, expected) in [
        (
            r#"{"alg":"HS256","kid":"old"}"#,
            old,
            String::from("passed"),
        ),
        (
            r#"{"alg":"HS256","kid":"new"}"#,
            new,
            String::from("passed"),
        ),
        (r#"{"alg":"HS256"}"#, new, String::from("passed")),
        (
            r#"{"alg":"HS256","kid":"new"}"#,
            old,
            refused("the token's signature is wrong"),
        ),
        (r#"{"alg":"HS256","kid":"newer"}"#, new, refused(UNKNOWN)),
    ] {
        let token = sign_hs256(header, "{}", secret);
        assert_eq!(outcome_of(&mut plugin, &token), expected, "{header}");
    }
}

#[test]
fn garbage_in_any_place_is_refused() {
    let mut plugin = es256_plugin(r#""required": []"#);
    let header = r#"{"alg":"ES256"}"#;
    let good = sign_es256(header, "{}");
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let malformed = refused("the token is malformed");
    let deep = "[".repeat(5_000);
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "garbage".into(),
        format!("{head}.{payload}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{head}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{head}=.{payload}.{signature}"),
        format!("{head}.{payload}.{signature}="),
        format!("{head}.{payload}.{signature}\u{e4}"),
        format!("{head} .{payload}.{signature}"),
        format!("{head}.{payload}.+/{signature}"),
        // The last character has bits that mean nothing, and they are set.
        format!("{head}.{payload}.{}B", &signature[..signature.len() - 1]),
        sign_es256("", "{}"),
        sign_es256("null", "{}"),
        sign_es256("[]", "{}"),
        sign_es256("{}", "{}"),
        sign_es256(r#"{"alg":1}"#, "{}"),
        sign_es256(r#"{"alg":"ES256","alg":"ES256"}"#, "{}"),
        sign_es256(r#"{"alg":"ES256","kid":1}"#, "{}"),
        sign_es256("{\"alg\":\"ES256\"}x", "{}"),
        sign_es256(header, ""),
        sign_es256(header, "null"),
        sign_es256(header, "[]"),
        sign_es256(header, "{}{}"),
        sign_es256(header, &deep),
        sign_es256(header, &format!(r#"{{"a":{deep}"#)),
        sign_es256(header, "\"text\""),
        sign_es256(&format!(r#"{{"alg":"ES256","x":{deep}"#), "{}"),
    ] {
        // Without a token there is nothing to be wrong.
        let expected = if token.is_empty() {
            refused("the token is malformed")
        } else {
            malformed.clone()
        };
        assert_eq!(outcome_of(&mut plugin, &token), expected, "{token}");
    }
    let invalid_utf8 = format!("{head}.{}.{signature}", base64(b"{\"a\":\"\xff\"}"));
    assert_eq!(outcome_of(&mut plugin, &invalid_utf8), malformed);
    assert_eq!(outcome_of(&mut plugin, &good), "passed");
}

#[test]
fn what_a_token_says_of_keys_is_not_heard() {
    let mut plugin = es256_plugin(r#""required": []"#);
    let other = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    let jwk = es256_jwk(other, "mine");
    let header = format!(
        r#"{{"alg":"ES256","jwk":{jwk},"jku":"http://evil.example/","x5u":"http://evil.example/"}}"#
    );
    let token = sign_es256_with(other, &header, "{}");
    assert_eq!(outcome_of(&mut plugin, &token), refused(UNKNOWN));
    let expected = refused("the token has an extension that is not understood");
    for crit in [r#"["b64"]"#, "[]", "null", "false", "\"b64\""] {
        let header = format!(r#"{{"alg":"ES256","crit":{crit},"b64":false}}"#);
        let critical = sign_es256(&header, "{}");
        assert_eq!(outcome_of(&mut plugin, &critical), expected, "{crit}");
    }
}

/// Also where it is of another algorithm, and another key would do.
#[test]
fn a_token_that_names_a_key_is_signed_with_this_one() {
    let es256 = r#"{"alg":"ES256","kid":"k"}"#;
    let rs256 = r#"{"alg":"RS256","kid":"k"}"#;
    let wrong = refused("the token's signature is wrong");
    let passed = String::from("passed");
    let rsa = rs256_jwk();
    for (rsa_id, es_id, of_es256, of_rs256) in [
        (r#""k""#, "null", &wrong, &passed),
        ("null", r#""k""#, &passed, &wrong),
        // RFC 7517 §4.5: keys of different types may have one name.
        (r#""k""#, r#""k""#, &passed, &passed),
        ("null", "null", &passed, &passed),
    ] {
        let mut plugin = plugin(&format!(
            r#"{{"keys": [{{"jwk": {rsa}, "id": {rsa_id}}}, {{"jwk": {ES256_JWK}, "id": {es_id}}}], "required": []}}"#
        ));
        let ids = format!("{rsa_id} {es_id}");
        let (es256, rs256) = (sign_es256(es256, "{}"), sign_rs256(rs256, "{}"));
        assert_eq!(&outcome_of(&mut plugin, &es256), of_es256, "{ids}");
        assert_eq!(&outcome_of(&mut plugin, &rs256), of_rs256, "{ids}");
    }
}

#[test]
fn a_long_token_is_refused_unread() {
    let mut plugin = es256_plugin(r#""required": []"#);
    let with = |filling: usize| es256_token(&format!(r#"{{"a":"{}"}}"#, "a".repeat(filling)));
    let fits = with(12_000);
    assert!(fits.len() <= token::TOKEN_LIMIT_BYTES);
    assert_eq!(outcome_of(&mut plugin, &fits), "passed");
    assert_eq!(
        outcome_of(&mut plugin, &with(13_000)),
        refused("the token is too long")
    );
}

#[test]
fn what_was_verified_is_remembered_and_nothing_else() {
    let mut plugin = es256_plugin(r#""leeway": "0s""#);
    let token = es256_token(&format!(r#"{{"exp":{}}}"#, NOW + 10));
    assert_eq!(outcome_of(&mut plugin, &token), "passed");
    assert_eq!(outcome_of(&mut plugin, &token), "passed");
    let (input, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = es256_token(&format!(r#"{{"exp":{}}}"#, NOW + 11))
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(
        outcome_of(&mut plugin, &format!("{input}.{signature}")),
        refused(UNKNOWN)
    );
    // The token's claims are judged each time.
    testing::advance_clock(Duration::from_secs(10));
    assert_eq!(
        outcome_of(&mut plugin, &token),
        refused("the token has expired")
    );
}

/// The key of RFC 7515 §A.2.
const RSA_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";

/// A key as PKCS #1 has it.
const RSA_PKCS1_PEM: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd/wWJcyQoTbji9k0l8W2
6mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMs
D1W/YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5
z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxv
b3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxXFvUK+DWNmoudF8NAco9/h9iaGNj8q2et
hFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQIDAQAB
-----END RSA PUBLIC KEY-----
";

/// The key of RFC 7515 §A.3.
const ES256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";
