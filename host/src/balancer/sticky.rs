//! Sessions that stay with their peer: by a cookie of the gateway's, by a name of the peer in what the request has, or by a name that
//! the peer gave to the session.

use std::cell::RefCell;
use std::rc::Rc;

use http::header::SET_COOKIE;

use super::sticky_learn::{LearntSessions, SessionStore};
use super::sticky_tags::StickyTags;
use crate::config;
use crate::exchange::{Exchange, Template};
use crate::message::cookies;
use crate::upstream::{Availability, Checks, Peer, PeerSet};
use crate::zone::now_ns;

/// Binding of requests to a peer. Where that one cannot take it, the policy chooses another, to which the session is bound from
/// then on.
pub(super) struct Sticky(Binding);

enum Binding {
    Cookie(Cookie),
    /// Texts, of which the first that has a value is the peer's `route`.
    Route(Box<[Template]>),
    Learn(LearntSessions),
}

struct Cookie {
    name: String,
    /// Attributes that follow the value.
    attributes: String,
    secrets: Vec<Vec<u8>>,
    upstream: String,
    /// Values of the peers, by their places in the set.
    tags: RefCell<StickyTags>,
}

impl Sticky {
    /// `store`: for sessions that are learnt. The error is a line for a person.
    pub(super) fn new(
        config: &config::Sticky,
        upstream: &str,
        store: Option<SessionStore>,
    ) -> Result<Self, String> {
        Ok(Self(match config {
            config::Sticky::Cookie(cookie) => Binding::Cookie(Cookie {
                name: cookie.name.clone(),
                attributes: attributes(cookie),
                secrets: cookie.secrets.iter().map(|it| it.0.clone()).collect(),
                upstream: upstream.to_owned(),
                tags: RefCell::new(StickyTags::new(&[], upstream, &[])),
            }),
            config::Sticky::Route(texts) => {
                let parsed = texts.iter().map(|text| Template::parse(text));
                Binding::Route(parsed.collect::<Result<_, _>>()?)
            }
            config::Sticky::Learn(learn) => {
                let zone = &learn.zone;
                let store = store.ok_or_else(|| format!("sticky: zone {zone} is not there"))?;
                Binding::Learn(LearntSessions::new(learn, upstream, store)?)
            }
        }))
    }

    /// Takes up these peers, among which requests are bound from now on.
    pub(super) fn know(&self, set: &PeerSet) {
        match &self.0 {
            Binding::Cookie(cookie) => cookie.know(set),
            Binding::Route(_) => {}
            Binding::Learn(sessions) => sessions.know(set),
        }
    }

    /// The peer that the request is bound to, if it is there and may take it. A peer that is drained still gets those that are bound
    /// to it.
    pub(super) fn peer<'s>(
        &self,
        set: &'s PeerSet,
        checks: Checks,
        exchange: &mut Exchange,
    ) -> Option<&'s Rc<Peer>> {
        let peers = set.as_slice();
        let peer = match &self.0 {
            Binding::Cookie(cookie) => peers.get(cookie.place(exchange)?)?,
            Binding::Route(texts) => {
                let mut route = Vec::new();
                texts.iter().find(|text| {
                    route.clear();
                    text.write(&mut route, exchange)
                })?;
                let is_it = |peer: &&Rc<Peer>| {
                    let its = peer.route.as_deref();
                    its.is_some_and(|its| its.as_bytes() == route)
                };
                peers.iter().find(is_it)?
            }
            Binding::Learn(sessions) => peers.get(sessions.place(exchange)?)?,
        };
        match peer.state.availability(checks, now_ns) {
            Availability::Available | Availability::Draining => Some(peer),
            Availability::Down
            | Availability::Unhealthy
            | Availability::Unchecked
            | Availability::Ejected { .. } => None,
        }
    }

    /// Name of the cookie that responses to clients without a session get.
    pub(super) fn cookie_name(&self) -> Option<&str> {
        match &self.0 {
            Binding::Cookie(cookie) => Some(&cookie.name),
            Binding::Route(_) | Binding::Learn(_) => None,
        }
    }

    /// Binds the session to the peer that has answered, unless it is already.
    pub(super) fn bind(&self, set: &PeerSet, peer: &Peer, exchange: &mut Exchange) {
        let found = set
            .as_slice()
            .binary_search_by_key(&peer.slot, |it| it.slot);
        // A peer that has left meanwhile gets no more sessions.
        let Ok(place) = found else {
            return;
        };
        match &self.0 {
            Binding::Cookie(cookie) => cookie.bind(place, exchange),
            Binding::Route(_) => {}
            Binding::Learn(sessions) => sessions.bind(peer, exchange),
        }
    }
}

impl Cookie {
    /// Makes the values of these peers.
    fn know(&self, set: &PeerSet) {
        let peers = set.as_slice().iter();
        let addresses: Vec<&str> = peers.map(|peer| &*peer.label).collect();
        let tags = StickyTags::new(&self.secrets, &self.upstream, &addresses);
        self.tags.replace(tags);
    }

    /// Has the client come back to the peer at this place.
    fn bind(&self, place: usize, exchange: &mut Exchange) {
        let tags = self.tags.borrow();
        // Peers at one address, of which the config may have several names, are one to a session.
        let bound = self.place(exchange);
        if bound.is_some_and(|bound| tags.value(bound) == tags.value(place)) {
            return;
        }
        if let Some(value) = tags.value(place) {
            let field = format!("{}={value}{}", self.name, self.attributes);
            exchange
                .reply_mut()
                .headers
                .add(&SET_COOKIE, field.as_bytes());
        }
    }

    /// Place of the peer that the request's cookie is for. Of several cookies, the first that is one of ours counts.
    fn place(&self, exchange: &Exchange) -> Option<usize> {
        let tags = self.tags.borrow();
        let mut values = cookies::values(&exchange.request().headers, &self.name);
        values.find_map(|value| tags.peer(value))
    }
}

/// Attributes of the cookie (RFC 6265 §4.1).
fn attributes(cookie: &config::StickyCookie) -> String {
    let mut text = format!("; Path={}", cookie.path);
    if let Some(domain) = &cookie.domain {
        text.push_str(&format!("; Domain={domain}"));
    }
    if let Some(max_age) = cookie.max_age {
        text.push_str(&format!("; Max-Age={}", max_age.as_secs()));
    }
    if cookie.secure {
        text.push_str("; Secure");
    }
    if cookie.http_only {
        text.push_str("; HttpOnly");
    }
    if let Some(same_site) = cookie.same_site {
        text.push_str("; SameSite=");
        text.push_str(same_site.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::COOKIE;

    use super::super::tests::peers;
    use super::*;
    use crate::config::{SameSite, Secret, StickyCookie};
    use crate::exchange::Stage;
    use crate::upstream::Standing;

    fn cookie() -> StickyCookie {
        StickyCookie {
            name: "route".to_owned(),
            secrets: vec![Secret(b"sixteen bytes it".to_vec())],
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            secure: false,
            http_only: true,
            same_site: None,
        }
    }

    fn exchange(field: &str) -> Box<Exchange> {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Request);
        if !field.is_empty() {
            let headers = &mut exchange.request_mut().headers;
            headers.add(&COOKIE, field.as_bytes());
        }
        exchange
    }

    fn set_cookie(exchange: &Exchange) -> Option<String> {
        let field = exchange.reply().headers.get(&SET_COOKIE)?;
        Some(String::from_utf8_lossy(field).into_owned())
    }

    #[test]
    fn a_session_stays_until_its_peer_cannot_take_it() {
        let set = PeerSet::new(peers(&[1, 1]));
        let sticky = Sticky::new(&config::Sticky::Cookie(cookie()), "app", None).unwrap();
        sticky.know(&set);
        let second = &set.as_slice()[1];
        let mut first_visit = exchange("other=1");
        assert!(sticky.peer(&set, Checks::None, &mut first_visit).is_none());
        sticky.bind(&set, second, &mut first_visit);
        let field = set_cookie(&first_visit).unwrap();
        assert!(
            field.ends_with("; Path=/; HttpOnly") && !field.contains("900"),
            "{field}"
        );
        let value = field.split(';').next().unwrap();
        let mut next_visit = exchange(&format!("route=made-up; {value}"));
        let mut bound = || {
            sticky
                .peer(&set, Checks::None, &mut next_visit)
                .map(|peer| peer.slot)
        };
        assert_eq!(bound(), Some(1));
        second.state.order(Standing::Draining, None);
        assert_eq!(bound(), Some(1));
        second.state.order(Standing::Down, None);
        assert_eq!(bound(), None);
        sticky.bind(&set, second, &mut next_visit);
        assert_eq!(set_cookie(&next_visit), None, "the client has it already");
        sticky.bind(&set, &set.as_slice()[0], &mut next_visit);
        assert!(set_cookie(&next_visit).is_some());
    }

    #[test]
    fn a_cookie_has_the_attributes_of_the_config() {
        let all = StickyCookie {
            path: "/shop".to_owned(),
            domain: Some("example.com".to_owned()),
            max_age: Some(Duration::from_secs(3600)),
            secure: true,
            same_site: Some(SameSite::Lax),
            ..cookie()
        };
        assert_eq!(
            attributes(&all),
            "; Path=/shop; Domain=example.com; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"
        );
    }
}
