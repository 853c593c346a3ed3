//! Two configs that differ in every place where a gateway can show which one it runs, and the check that a response was
//! made by one of them alone.

use super::load::Answer;

/// Names of the two configs.
pub(crate) const NAMES: [&str; 2] = ["red", "blue"];

/// The status of every response that is no error, by config.
const STATUSES: [u16; 2] = [200, 203];

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A plugin answers in `access`.
    Direct,
    /// An origin answers.
    Proxied,
    /// An origin answers, and a plugin's body filter changes that.
    Filtered,
    /// Proxied as `Proxied` is, but by a request that must not be sent twice.
    Post,
}

impl Kind {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Direct => "/direct",
            Self::Proxied | Self::Post => "/proxied",
            Self::Filtered => "/filtered",
        }
    }

    pub(crate) fn is_proxied(self) -> bool {
        self != Self::Direct
    }
}

/// Fault of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Parts of it come from one config and parts from the other.
    Mixed(String),
    /// An error, whole and well-formed.
    Status(u16),
    Other(String),
}

/// The index of the config that made the response.
///
/// Its marks: `post_read` (on the listener) and `access` (on the route) of the plugin `stamp` leave the name in the
/// request, which ends up in the body; the origin, another one in each config, adds its own; the plugin
/// `substitute` puts it in the place of what the origin leaves for it; the plugin `headers` sets `x-late`; `stamp` sets
/// the status.
pub(crate) fn check(kind: Kind, id: &str, answer: &Answer<'_>) -> Result<usize, Wrong> {
    let Some(of_status) = STATUSES.iter().position(|status| *status == answer.status) else {
        return Err(Wrong::Status(answer.status));
    };
    let other = |what: &str| Err(Wrong::Other(format!("{kind:?} {id}: {what}: {answer:?}")));
    let Ok(body) = std::str::from_utf8(answer.body) else {
        return other("a body that is not text");
    };
    let mut words = body.split(' ');
    if words.next() != Some(id) {
        return other("the answer to another request");
    }
    let marks: Vec<&str> = words.chain([answer.late]).collect();
    let count = match kind {
        Kind::Filtered => 5,
        Kind::Direct | Kind::Proxied | Kind::Post => 4,
    };
    if marks.len() != count {
        return other("marks are missing");
    }
    let mut of_all = of_status;
    for (idx, mark) in marks.iter().enumerate() {
        if kind == Kind::Direct && idx == 2 && *mark == "none" {
            continue;
        }
        match NAMES.iter().position(|name| name == mark) {
            Some(of_mark) if of_mark == of_status => of_all = of_mark,
            Some(_) => {
                let status = answer.status;
                return Err(Wrong::Mixed(format!("{kind:?} {id}: {status} {marks:?}")));
            }
            None => return other("a mark of no config"),
        }
    }
    Ok(of_all)
}

/// The lines of a config with that name. `app` is the placeholder of its peers; `stamp` are more lines for the plugin's
/// config, `tables` more tables.
pub(crate) fn config(config_idx: usize, peers: &str, stamp: &str, tables: &str) -> String {
    CONFIG
        .replace("NAME", NAMES[config_idx])
        .replace("STATUS", &STATUSES[config_idx].to_string())
        .replace("PEERS", peers)
        .replace("STAMP", stamp)
        + tables
}

/// Further tables of [`config`]: TLS, and listeners for tunnels, which no plugin changes. Files of this name have the
/// certificate; `{echo}` is where tunnels go.
pub(crate) fn secure(config_idx: usize) -> String {
    SECURE.replace("NAME", NAMES[config_idx])
}

const SECURE: &str = r#"
[listeners.secure]
bind = "{listen_secure}"
plugins = ["stamp"]
tls = { certificates = [{ certificate = "NAME.pem", key = "NAME.key" }] }

[listeners.tunnels]
bind = "{listen_tunnels}"

[listeners.secure_tunnels]
bind = "{listen_secure_tunnels}"
tls = { certificates = [{ certificate = "NAME.pem", key = "NAME.key" }] }

[upstreams.echo]
peers = ["{echo}"]

[[routes]]
listeners = ["tunnels", "secure_tunnels"]
path = "/tunnel"
upstream = "echo"
upgrades = ["websocket"]

[workers]
count = 2
drain_timeout = "15m"
"#;

const CONFIG: &str = r#"
[plugins.stamp]
wasm = "{guests}/stamp.wasm"
config = { name = "NAME", status = STATUS STAMP }
quarantine = { traps = 0 }

[plugins.late]
wasm = "{plugins}/headers.wasm"
config = { response = { set = { x-late = "NAME" } } }

[plugins.filter]
wasm = "{plugins}/substitute.wasm"
config = { types = ["text/plain"], replace = [{ from = "@mark@", to = "NAME" }] }

[listeners.web]
bind = "{listen}"
plugins = ["stamp"]

[upstreams.app]
peers = [PEERS]

[[routes]]
plugins = ["late"]
upstream = "app"

[[routes]]
path = "/filtered"
plugins = ["late", "filter"]
upstream = "app"

[access_log]
file = "off"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000aa";

    fn verdict(kind: Kind, status: u16, late: &str, body: &str) -> Result<usize, Wrong> {
        let answer = Answer {
            status,
            closes: false,
            late,
            body: body.as_bytes(),
        };
        check(kind, ID, &answer)
    }

    #[test]
    fn one_config_made_it() {
        for (kind, body) in [
            (Kind::Direct, "red red none"),
            (Kind::Proxied, "red red red"),
            (Kind::Filtered, "red red red red"),
        ] {
            assert_eq!(verdict(kind, 200, "red", &format!("{ID} {body}")), Ok(0));
            let blue = body.replace("red", "blue");
            assert_eq!(verdict(kind, 203, "blue", &format!("{ID} {blue}")), Ok(1));
        }
    }

    #[test]
    fn a_mark_of_the_other_config_shows_wherever_it_is() {
        let mixed = |kind, status, late: &str, body: &str| {
            let verdict = verdict(kind, status, late, &format!("{ID} {body}"));
            assert!(matches!(verdict, Err(Wrong::Mixed(_))), "{verdict:?}");
        };
        mixed(Kind::Proxied, 203, "red", "red red red");
        mixed(Kind::Proxied, 200, "blue", "red red red");
        mixed(Kind::Proxied, 200, "red", "blue red red");
        mixed(Kind::Proxied, 200, "red", "red blue red");
        mixed(Kind::Proxied, 200, "red", "red red blue");
        mixed(Kind::Filtered, 200, "red", "red red red blue");
        mixed(Kind::Direct, 200, "red", "blue red none");
    }

    #[test]
    fn what_is_missing_or_of_another_request_is_wrong() {
        let wrong = |body: &str| {
            let verdict = verdict(Kind::Filtered, 200, "red", body);
            assert!(matches!(verdict, Err(Wrong::Other(_))), "{verdict:?}");
        };
        wrong("00000000000000ab red red red red");
        wrong(&format!("{ID} red red red"));
        wrong(&format!("{ID} red red none red"));
        let error = verdict(Kind::Direct, 502, "red", "");
        assert_eq!(error, Err(Wrong::Status(502)));
    }
}
