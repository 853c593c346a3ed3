//! Which route a request would take, and why: what `castling route` tells. No request is sent.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use castling_abi::Hook;
use serde::Serialize;

use super::Gateway;
use super::describe::{asked, reason};
use crate::config::{Bind, PathMatch, Serves};
use crate::error::reply;
use crate::exchange::Exchange;
use crate::http1::{self, HeadProgress};
use crate::message::{HeadRoom, RequestHead, Scheme};
use crate::phase::{Order, Outcome, Plan, Step, Turn};
use crate::service::Service;
use crate::transport::address::{ClientAddress, ServerAddress};

/// A request that is asked about.
pub struct Question {
    pub method: String,
    /// `http://HOST[:PORT]/PATH[?QUERY]`, `https://...`, without a scheme, or `/PATH` alone.
    pub url: String,
    /// `NAME: VALUE` each.
    pub headers: Vec<String>,
    /// Other end of the connection.
    pub client: IpAddr,
    /// The listener that it comes to. `None`: those that the URL's port and scheme fit.
    pub listener: Option<String>,
}

/// A listener's answer.
#[derive(Debug, Serialize)]
pub struct RouteAnswer {
    pub listener: String,
    pub bind: String,
    /// The client's address, after trusted proxies were believed.
    pub client: String,
    /// Why no route takes it, with the status that the client gets.
    pub refused: Option<String>,
    pub route: Option<ChosenRoute>,
    /// Routes that are asked before it and do not take it, those first that are for its host and path.
    pub passed_over: Vec<Considered>,
    /// Routes that would take it, too, but are asked later.
    pub behind: Vec<Considered>,
    /// Facts that may come out otherwise with a request that is sent.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct ChosenRoute {
    pub name: String,
    pub place: String,
    /// What it asks for.
    pub matches: String,
    /// Variables that its expressions capture.
    pub captures: Vec<(String, String)>,
    /// Hooks in their order, with the plugins that run in each.
    pub hooks: String,
    /// What its requests come to.
    pub target: String,
    /// Upstreams with their peers.
    pub upstreams: Vec<Shown>,
    /// Path that a peer is sent.
    pub path: String,
}

/// An upstream of the chosen route.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub name: String,
    pub weight: u64,
    pub peers: Vec<String>,
    /// Whether `split_by` gives this request to it. `None`: that is not decided by its text.
    pub takes: Option<bool>,
}

/// A route that was not chosen.
#[derive(Debug, Serialize)]
pub struct Considered {
    pub name: String,
    pub place: String,
    pub why: String,
}

/// A URL's parts, as a request has them.
struct Url {
    scheme: Option<Scheme>,
    host: String,
    port: Option<u16>,
    /// Path and query.
    target: String,
}

/// Most routes that a list has.
const MAX_LISTED: usize = 20;

impl Gateway {
    /// Asks the routes of each listener that the request may come to. The error is for a person.
    pub fn route(&self, question: &Question) -> Result<Vec<RouteAnswer>, String> {
        let url = Url::parse(&question.url)?;
        let listeners = self.listeners_for(question, &url)?;
        let answers = listeners.into_iter().map(|name| {
            let answer = self.ask(name, question, &url);
            answer.map_err(|error| format!("listener {name}: {error}"))
        });
        answers.collect()
    }

    fn listeners_for(&self, question: &Question, url: &Url) -> Result<Vec<&str>, String> {
        let names = || self.config.listeners.keys().map(String::as_str);
        if let Some(asked) = &question.listener {
            return match names().find(|name| name == asked) {
                Some(name) => Ok(vec![name]),
                None => {
                    let names: Vec<_> = names().collect();
                    Err(format!(
                        "there is no listener {asked:?}; expected {}",
                        names.join(", ")
                    ))
                }
            };
        }
        let has_port = |name: &&str| match self.config.listeners[*name].bind {
            Bind::Tcp(address) => Some(address.port()) == url.port,
            Bind::Unix(_) => false,
        };
        let has_scheme = |name: &&str| {
            let has_tls = self.config.listeners[*name].tls.is_some();
            url.scheme
                .is_none_or(|scheme| (scheme == Scheme::Https) == has_tls)
        };
        let by_port: Vec<_> = names().filter(has_port).collect();
        if !by_port.is_empty() {
            return Ok(by_port);
        }
        let by_scheme: Vec<_> = names().filter(has_scheme).collect();
        match by_scheme.is_empty() {
            true => Ok(names().collect()),
            false => Ok(by_scheme),
        }
    }

    fn ask(&self, name: &str, question: &Question, url: &Url) -> Result<RouteAnswer, String> {
        let listener = &self.config.listeners[name];
        let Serves::Http(http) = &listener.serves;
        let service = self.acceptors[name].service();
        let mut head = url.head(question, service)?;
        if listener.tls.is_some() {
            head.scheme = Scheme::Https;
        }
        head.headers.remove_hop_by_hop();
        let marks = &service.client.marks;
        let connection = ClientAddress::from(SocketAddr::new(question.client, 0));
        let client = marks.claims.settle(&mut head, connection, marks);
        let mut exchange = Exchange::idle();
        exchange.begin(head, client, ServerAddress::NOBODY, None, &service.name);
        let routes = self.config.routes_of(name);
        let order = Order::new(&routes, (http.paths, http.case));
        let asked = order.ask(&exchange);
        let found = service.router.route(&mut exchange);
        let winner = asked.iter().position(|(_, it)| *it == Outcome::Takes);
        let (route, refused) = match (&found, winner) {
            (Ok(plan), Some(at)) => (Some(self.chosen(plan, asked[at].0, &exchange)), None),
            (Ok(_), None) => return Err("the order of routes is not that of the router".to_owned()),
            (Err(error), _) => (None, Some(format!("{error}: {}", reply::status(error)))),
        };
        let winner = winner.filter(|_| route.is_some());
        Ok(RouteAnswer {
            listener: name.to_owned(),
            bind: listener.bind.to_string(),
            client: String::from_utf8_lossy(client.host().bytes()).into_owned(),
            refused,
            passed_over: passed_over(&asked[..winner.unwrap_or(asked.len())], winner.is_some()),
            behind: winner.map_or_else(Vec::new, |at| behind(&asked, at)),
            notes: notes(service, found.ok()),
            route,
        })
    }

    fn chosen(&self, plan: &Plan, turn: &Turn<'_>, exchange: &Exchange) -> ChosenRoute {
        let route = turn.route;
        let mut names = route.group_names();
        if let PathMatch::Regex(pattern) = &route.path {
            names.splice(0..0, (1..=pattern.groups()).map(|idx| idx.to_string()));
        }
        let captured = |name: String| {
            let value = exchange.context().vars.get(&name)?;
            let value = String::from_utf8_lossy(value).into_owned();
            Some((name, value))
        };
        let decided = plan.upstreams.decided(exchange);
        let upstreams = plan.upstreams.all().into_iter().map(|(idx, weight)| {
            let upstream = self.worker.upstream(idx);
            Shown {
                name: upstream.name.to_string(),
                weight,
                peers: self.peers(upstream),
                takes: decided.map(|it| it == idx),
            }
        });
        ChosenRoute {
            name: route.name.clone(),
            place: route.place.clone(),
            matches: asked(route),
            captures: names.into_iter().filter_map(captured).collect(),
            hooks: plan.describe(),
            target: self.target(plan),
            upstreams: upstreams.collect(),
            path: exchange.request().target.as_str().to_owned(),
        }
    }
}

/// Routes that do not take it: those whose conditions fail, and where none takes it, what else there is.
fn passed_over(asked: &[(&Turn<'_>, Outcome)], is_found: bool) -> Vec<Considered> {
    let considered = |(turn, outcome): &(&Turn<'_>, Outcome)| {
        let why = match outcome {
            Outcome::Fails(condition) => format!("not so: {condition}"),
            Outcome::OtherPath if !is_found => format!("not so: {}", turn.route.path),
            Outcome::OtherHost if !is_found => match turn.host {
                Some(host) => format!("not so: host {host}"),
                None => return None,
            },
            Outcome::Takes | Outcome::OtherHost | Outcome::OtherPath => return None,
        };
        Some(Considered::new(turn, why))
    };
    let closeness = |(_, outcome): &&(&Turn<'_>, Outcome)| match outcome {
        Outcome::Takes | Outcome::Fails(_) => 0,
        Outcome::OtherPath => 1,
        Outcome::OtherHost => 2,
    };
    let mut closest: Vec<_> = asked.iter().collect();
    closest.sort_by_key(closeness);
    let all = closest.into_iter().filter_map(considered);
    all.take(MAX_LISTED).collect()
}

/// Routes behind the winner that would take it, too.
fn behind(asked: &[(&Turn<'_>, Outcome)], winner: usize) -> Vec<Considered> {
    let (chosen, _) = asked[winner];
    let others = asked[winner + 1..].iter().filter(|(turn, outcome)| {
        let is_other = turn.idx != chosen.idx;
        is_other && *outcome == Outcome::Takes
    });
    let considered =
        others.map(|(turn, _)| Considered::new(turn, reason(chosen.precedes(turn)).to_owned()));
    considered.take(MAX_LISTED).collect()
}

impl Considered {
    fn new(turn: &Turn<'_>, why: String) -> Self {
        Self {
            name: turn.route.name.clone(),
            place: turn.route.place.clone(),
            why,
        }
    }
}

/// What may come out otherwise.
fn notes(service: &Service, plan: Option<&Plan>) -> Vec<String> {
    let names = |steps: &[Step]| {
        let plugins = steps.iter().filter_map(Step::plugin);
        let names: Vec<_> = plugins.map(|it| it.plugin.name.to_string()).collect();
        names.join(", ")
    };
    let mut notes = Vec::new();
    let before = names(&service.router.post_read);
    if !before.is_empty() {
        notes.push(format!(
            "{} hooks may change the request before it is routed: {before}",
            Hook::PostRead.name()
        ));
    }
    let rewriting = plan.map_or_else(String::new, |plan| names(&plan.rewrite));
    if !rewriting.is_empty() {
        notes.push(format!(
            "{} hooks may have it routed anew: {rewriting}",
            Hook::Rewrite.name()
        ));
    }
    notes
}

impl Url {
    fn parse(url: &str) -> Result<Self, String> {
        let url = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some((other, _)) if !other.contains(['/', '?']) => {
                return Err(format!("URL {url:?}: expected http:// or https://"));
            }
            Some(_) | None => (None, url),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(format!("URL {url:?}: expected none of a user's name"));
        }
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => match port.parse() {
                Ok(port) => Some(port),
                Err(_) => return Err(format!("URL {url:?}: expected a port behind the colon")),
            },
            Some(_) | None => None,
        };
        Ok(Self {
            scheme,
            port,
            host: match authority {
                "" => "localhost".to_owned(),
                host => host.to_owned(),
            },
            target: match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("/{target}"),
            },
        })
    }

    /// The head, read as the listener reads one that a client sends.
    fn head(&self, question: &Question, service: &Service) -> Result<RequestHead, String> {
        let mut text = format!("{} {} HTTP/1.1\r\n", question.method, self.target);
        let is_host = |line: &String| {
            let name = line.split(':').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("host")
        };
        if !question.headers.iter().any(is_host) {
            // Writing to a String cannot fail.
            let _ = write!(text, "Host: {}\r\n", self.host);
        }
        for line in &question.headers {
            if !line.contains(':') {
                return Err(format!("header {line:?}: expected NAME: VALUE"));
            }
            let _ = write!(text, "{line}\r\n");
        }
        let all = question
            .headers
            .iter()
            .chain([&question.method, &self.target, &self.host]);
        if let Some(bad) = all.into_iter().find(|it| it.contains(['\r', '\n'])) {
            return Err(format!("{bad:?}: expected one line"));
        }
        text.push_str("\r\n");
        let (mut progress, mut room) = (HeadProgress::default(), HeadRoom::default());
        let mut bytes = BytesMut::from(text.as_str());
        match http1::parse_request(&mut bytes, &mut progress, &service.head_limits, &mut room) {
            Ok(Some(parsed)) => Ok(parsed.head),
            Ok(None) => Err("the head has no end".to_owned()),
            Err(error) => Err(format!("{error}: {}", error.status())),
        }
    }
}

/// For a person.
pub fn text(question: &Question, answers: &[RouteAnswer]) -> String {
    let mut text = format!("{} {}\n", question.method, question.url);
    for answer in answers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nlistener {} on {}", answer.listener, answer.bind);
        if answer.client != question.client.to_canonical().to_string() {
            let _ = writeln!(text, "  client {}, whom the proxy names", answer.client);
        }
        match (&answer.route, &answer.refused) {
            (Some(route), _) => write_route(&mut text, route),
            (None, refused) => {
                let why = refused.as_deref().unwrap_or_default();
                let _ = writeln!(text, "  no route: {why}");
            }
        }
        for (title, list) in [
            ("passed over", &answer.passed_over),
            ("would take it, too, but is asked later", &answer.behind),
        ] {
            if !list.is_empty() {
                let _ = writeln!(text, "  {title}:");
            }
            for one in list {
                let _ = writeln!(text, "    {} ({}): {}", one.name, one.place, one.why);
            }
        }
        for note in &answer.notes {
            let _ = writeln!(text, "  note: {note}");
        }
    }
    text
}

fn write_route(text: &mut String, route: &ChosenRoute) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  route {} -> {}", route.name, route.target);
    let _ = writeln!(text, "    {}", route.place);
    let _ = writeln!(text, "    for {}", route.matches);
    for (name, value) in &route.captures {
        let _ = writeln!(text, "    ${name} = {value}");
    }
    if !route.hooks.is_empty() {
        let _ = writeln!(text, "    {}", route.hooks);
    }
    for upstream in &route.upstreams {
        let takes = match upstream.takes {
            Some(true) if route.upstreams.len() > 1 => ", which takes this one",
            Some(_) | None => "",
        };
        let peers = upstream.peers.join(", ");
        let _ = writeln!(text, "    upstream {}{takes}: {peers}", upstream.name);
    }
    if !route.upstreams.is_empty() {
        let _ = writeln!(text, "    asked for {}", route.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_what_people_type() {
        let parts = |url: &str| {
            let url = Url::parse(url)?;
            let port = url
                .port
                .map_or_else(|| "-".to_owned(), |port| port.to_string());
            Ok::<_, String>(format!("{} {port} {}", url.host, url.target))
        };
        for (url, expected) in [
            ("http://a.example/x?y#z", "a.example - /x?y"),
            ("https://a.example:8443", "a.example:8443 8443 /"),
            ("a.example:80?q=http://b", "a.example:80 80 /?q=http://b"),
            ("/x/y?to=https://b/", "localhost - /x/y?to=https://b/"),
            ("http://[::1]/", "[::1] - /"),
            ("http://[::1]:80/", "[::1]:80 80 /"),
        ] {
            assert_eq!(parts(url), Ok(expected.to_owned()), "{url}");
        }
        for bad in ["ftp://a/", "http://u:p@a/", "http://a:x/", "http://a:/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
