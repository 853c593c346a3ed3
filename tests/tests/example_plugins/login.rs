//! `login-sessions`.

use castling_tests::{Proxy, Reply, body, origin};
use http::Request;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.sessions]
    kind = "kv"
    size = "1MiB"

    [zones.attempts]
    kind = "counter"
    size = "1MiB"

    [plugins.login]
    wasm = "{plugins}/login_sessions.wasm"

    [plugins.login.config]
    sessions = "sessions"
    attempts = "attempts"
    attempts_a_minute = ATTEMPTS
    idle = "30m"
    header = "x-user"
    users = { ada = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["login"]
    upstream = "app"
"#;

/// Gateway before an origin that says who the gateway says it is.
fn start(attempts: usize) -> Proxy {
    let origin = origin::answering(|seen| {
        let users = seen.headers.get_all("x-user").iter();
        let users: Vec<_> = users.map(|user| user.to_str().unwrap_or("?")).collect();
        http::Response::new(body::full(users.join("+")))
    });
    Proxy::with_config(&CONFIG.replace("ATTEMPTS", &attempts.to_string()))
        .origin("app", origin)
        .start()
}

fn post(proxy: &Proxy, target: &str, form: &'static str, cookie: &str) -> Reply {
    let request = Request::post(target).header("cookie", cookie);
    proxy.send(request.body(body::full(form)).expect("a valid request"))
}

const RIGHT: &str = "user=ada&password=myPassword";

#[test]
fn a_user_logs_in_is_told_to_the_origin_and_logs_out() {
    let proxy = start(100);
    let away = proxy.get_with("/a?b=c", &[("x-user", "root")]);
    let form = away.header("location").expect("a place").to_owned();
    assert_eq!(
        (away.status.as_u16(), &*form),
        (303, "/login?next=%2Fa%3Fb%3Dc")
    );
    assert!(proxy.get(&form).text().contains("<form method=post>"));

    let wrong = post(&proxy, &form, "user=ada&password=wrong", "");
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("set-cookie")),
        (401, None)
    );
    let right = post(&proxy, &form, RIGHT, "");
    assert_eq!(
        (right.status.as_u16(), right.header("location")),
        (303, Some("/a?b=c"))
    );
    let cookie = right.header("set-cookie").expect("a session");
    let (token, flags) = cookie.split_once("; ").expect("flags");
    assert_eq!(flags, "Path=/; Secure; HttpOnly; SameSite=Lax");

    // In whichever worker.
    for _ in 0..8 {
        let page = proxy.get_with("/a?b=c", &[("cookie", token), ("x-user", "root")]);
        assert_eq!((page.status.as_u16(), &*page.text()), (200, "ada"));
    }
    let out = post(&proxy, "/logout", "", token);
    let removal = out.header("set-cookie").expect("a removal");
    assert!(
        removal.starts_with("__Host-session=; Path=/; Max-Age=0"),
        "{removal}"
    );
    assert_eq!(proxy.get_with("/", &[("cookie", token)]).status, 303);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn too_many_logins_are_refused() {
    let proxy = start(2);
    let status = |form| post(&proxy, "/login", form, "").status.as_u16();
    assert_eq!(status(RIGHT), 303);
    assert_eq!(status("user=ada&password=wrong"), 401);
    assert_eq!(status(RIGHT), 429);
    assert_eq!(
        post(&proxy, "/login", RIGHT, "").header("retry-after"),
        Some("60")
    );
}
