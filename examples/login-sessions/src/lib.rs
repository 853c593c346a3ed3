//! Sessions of users who log in by a form. Whoever has none is sent to the form; the upstream is told the user's name in a header,
//! and never by a client.
//!
//! ```toml
//! [zones.sessions]
//! kind = "kv"
//! size = "32MiB"
//!
//! [zones.attempts]
//! kind = "counter"
//! size = "1MiB"
//!
//! [plugins.login]
//! wasm = "login_sessions.wasm"
//!
//! [plugins.login.config]
//! sessions = "sessions"       # the gateway grants what the config names
//! attempts = "attempts"
//! attempts_a_minute = 10      # of a client, and at a user's name
//! idle = "30m"                # a session ends so long after its last request
//! header = "x-user"
//! users = { ada = "$argon2id$..." } # as `htpasswd -B` or `argon2` write them
//! ```
//!
//! `GET /login` has the form, `POST /login` takes it (`user`, `password`, `next`), `POST /logout` ends the session.

use std::collections::BTreeMap;

use castling_sdk::crypto::{self, Digest};
use castling_sdk::prelude::*;
use castling_sdk::units;
use castling_sdk::zones::{Counter, Kv};

/// The plugin, which is its config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    sessions: Kv,
    attempts: Counter,
    attempts_a_minute: u64,
    #[serde(deserialize_with = "units::duration_above_zero")]
    idle: Duration,
    header: HeaderName,
    /// Hashes of their passwords.
    users: BTreeMap<String, String>,
}

#[plugin]
impl Login {
    fn configure(config: Self) -> Result<Self> {
        if config.users.is_empty() {
            bail!("config.users: expected at least one");
        }
        Ok(config)
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        request.remove_header(&self.header);
        match (&*request.method(), &*request.routed_path()) {
            ("GET" | "HEAD", "/login") => Ok(form(200)),
            ("POST", "/login") => self.log_in(request),
            ("POST", "/logout") => self.log_out(request),
            _ => match self.user(request)? {
                Some(user) => {
                    request.set_header(&self.header, &user);
                    request.set_var("user", &user);
                    Ok(Verdict::Continue)
                }
                None => Ok(see(&to_form(request)).into()),
            },
        }
    }
}

impl Login {
    /// User of the request's session, which lasts longer by it.
    fn user(&self, request: &Request) -> Result<Option<Vec<u8>>> {
        let Some(key) = session(request) else {
            return Ok(None);
        };
        let Some((user, left)) = self.sessions.get_with_ttl(&key)? else {
            return Ok(None);
        };
        // Not at each request: writing takes ten times as long as reading. A session that has ended meanwhile stays so.
        if left.is_some_and(|left| left < self.idle * 3 / 4) {
            let idle = Some(self.idle);
            self.sessions
                .compare_and_swap(&key, Some(&user), &user, idle)?;
        }
        Ok(Some(user))
    }

    fn log_in(&self, request: &mut Request) -> Result<Verdict> {
        let posted = request.read_form(1024)?;
        let [user, password] = ["user", "password"].map(|it| posted.get(it).unwrap_or_default());
        for whose in [request.client_address(), format!("user {user}")] {
            if self.attempts.add(whose, 1, MINUTE)? > self.attempts_a_minute {
                return Ok(Response::status(429).header("retry-after", "60").into());
            }
        }
        // A name that nobody has takes as long as one that somebody has.
        let known = self.users.get(user);
        let hash = known.or_else(|| self.users.values().next());
        let hash = hash.map(String::as_str).unwrap_or_default();
        if !crypto::verify_password(hash, password)? || known.is_none() {
            log::info!(client = request.client_address(); "a login has failed");
            return Ok(form(401));
        }
        self.end(request)?;
        let mut token = [0; 32];
        random::bytes(&mut token);
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        self.sessions.put(key(&token), user, Some(self.idle))?;
        let cookie = SetCookie::new(COOKIE, token)?;
        Ok(see(&next(request)).set_cookie(&strict(cookie))?.into())
    }

    fn log_out(&self, request: &Request) -> Result<Verdict> {
        self.end(request)?;
        let cookie = SetCookie::removal(COOKIE)?;
        Ok(see("/login").set_cookie(&strict(cookie))?.into())
    }

    fn end(&self, request: &Request) -> Result<()> {
        if let Some(key) = session(request) {
            self.sessions.delete(key)?;
        }
        Ok(())
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Browsers take it from this host alone, and by HTTPS.
const COOKIE: &str = "__Host-session";

fn strict(cookie: SetCookie) -> SetCookie {
    let cookie = cookie.path("/").secure().http_only();
    cookie.same_site(SameSite::Lax)
}

/// Key of the request's session.
fn session(request: &Request) -> Option<Vec<u8>> {
    Some(key(request.cookie(COOKIE)?.as_str()?))
}

/// Key of a token in the zone: whoever sees the zone has no session by that.
fn key(token: &str) -> Vec<u8> {
    crypto::digest(Digest::Sha256, token)
}

fn see(place: &str) -> Response {
    Response::status(303).header("location", place)
}

/// Place of the form, which sends the user back to where a link has led.
fn to_form(request: &Request) -> String {
    match &*request.method() {
        "GET" => {
            let next = http::Params::new().with("next", request.target());
            format!("/login?{next}")
        }
        _ => "/login".to_owned(),
    }
}

/// Path to go on at after the form. `//host` and `/\host` would be other hosts.
fn next(request: &Request) -> String {
    let is_path = |it: &String| it.starts_with('/') && !it[1..].starts_with(['/', '\\']);
    let next = request.query_param("next").filter(is_path);
    next.filter(|it| it.bytes().all(|byte| byte.is_ascii_graphic()))
        .unwrap_or_else(|| "/".to_owned())
}

/// The form, which is sent to where it was got from, `next` included.
fn form(status: u16) -> Verdict {
    let form = Response::status(status).body(FORM);
    form.header("content-type", "text/html; charset=utf-8")
        .header("cache-control", "no-store")
        .into()
}

const FORM: &str = "<!doctype html><title>Log in</title><form method=post><input name=user autofocus> \
                    <input name=password type=password> <button>Log in</button></form>";

#[cfg(test)]
mod tests;
