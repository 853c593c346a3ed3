//! The step of a route with a cache: what is stored answers, and what is not is fetched by one request for all that ask for it.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode};

use super::fetched::{AFTER_ERROR, Fetched};
use super::pipeline::{Pipeline, ResponseBody};
use super::refresh;
use super::stored;
use crate::cache::{
    Found, KeyDigest, Moment, Outcome, Past, Place, RequestDirectives, Response, RouteCache,
    StatusField, is_fresh_for,
};
use crate::error::{ClientError, Error, reply};
use crate::exchange::Stage;
use crate::message::{BodySize, Target, path};
use crate::phase::UpstreamIdx;

/// Outcome of a look at what is stored, which waits for nothing.
pub enum Looked {
    Response(ResponseBody),
    /// The request is not for the cache.
    Past(Past),
    /// The origin is to be asked.
    Fetch(Box<Wanted>),
}

/// A wish for a response that is not stored, or not fresh.
pub struct Wanted {
    primary: KeyDigest,
    /// There is a response that is stale.
    stale: Option<Box<Response>>,
    fwd: &'static str,
    /// The config or the client has the origin asked, whatever is stored.
    is_bypass: bool,
    /// Others are not waited for.
    alone: bool,
    /// Whether the response may be stored, as far as the request says.
    stores: bool,
    /// What the request itself takes.
    directives: RequestDirectives,
}

/// End of the wait for others who fetch the same.
enum Turn<'c> {
    /// The request fetches.
    Fetch(Box<Fetched<'c>>),
    /// Another one has fetched it.
    Response(ResponseBody),
}

/// `detail` of a stale response that is fetched anew meanwhile.
const MEANWHILE: &str = "stale-while-revalidate";

impl Pipeline<'_> {
    /// Looks for a stored response that answers the request.
    pub fn look_into(&mut self, cache: &Rc<RouteCache>, idx: UpstreamIdx) -> Looked {
        let has_body = self.body.size != BodySize::None;
        if let Err(past) = cache.takes(self.exchange, has_body) {
            return Looked::Past(past);
        }
        let asked = cache.directives(self.exchange);
        let is_bypass = cache.is_bypassed(self.exchange);
        let upstream = &self.worker.upstream(idx).name;
        let primary = cache.primary_key(self.exchange, upstream);
        let stores = !asked.no_store && !cache.stores_nothing_of(self.exchange);
        let mut wanted = Wanted {
            primary,
            stale: None,
            fwd: "uri-miss",
            is_bypass,
            alone: false,
            stores,
            directives: asked,
        };
        let (place, found) = cache.find(primary, &self.exchange.request().headers);
        let now = Moment::now();
        let takes_stale = !asked.no_cache && asked.max_age.is_none();
        match found {
            Found::Nothing { varies } if varies => wanted.fwd = "vary-miss",
            Found::Nothing { .. } => {}
            Found::Passes => wanted.alone = true,
            Found::Response(response) if is_bypass => wanted.stale = Some(response),
            Found::Response(response) if is_fresh_for(&response.freshness, &asked, now) => {
                cache.note(Outcome::Hit, self.exchange);
                let field = StatusField::default();
                return Looked::Response(self.answer_with(cache, &response, field, now));
            }
            Found::Response(response)
                if takes_stale && stores && response.freshness.is_usable_meanwhile(now) =>
            {
                self.refresh(cache, idx, &place, &response);
                let body = self.answer_with_stale(cache, &response, MEANWHILE, now);
                return Looked::Response(body);
            }
            Found::Response(response)
                if takes_stale && response.freshness.rests_after_error(now) =>
            {
                let body = self.answer_with_stale(cache, &response, AFTER_ERROR, now);
                return Looked::Response(body);
            }
            Found::Response(response) => {
                wanted.fwd = match asked.no_cache || asked.max_age.is_some() {
                    true if response.freshness.is_fresh_at(now) => "request",
                    _ => "stale",
                };
                wanted.stale = Some(response);
            }
        }
        if is_bypass {
            wanted.fwd = "bypass";
        }
        Looked::Fetch(Box::new(wanted))
    }

    /// Sends a request that is not for the cache to its upstream. One that may have changed something has what is stored for its URL used
    /// no more (RFC 9111 §4.4).
    pub async fn go_past(
        &mut self,
        idx: UpstreamIdx,
        cache: &Rc<RouteCache>,
        past: Past,
    ) -> Result<ResponseBody, Error> {
        cache.note(Outcome::Past, self.exchange);
        let body = self.proxy(idx).await?;
        let status = self.exchange.reply().status;
        if past == Past::Method
            && !self.exchange.request().method.is_safe()
            && (status.is_success() || status.is_redirection())
        {
            let upstream = &self.worker.upstream(idx).name;
            self.invalidate(cache, upstream);
        }
        if cache.shows_status {
            let field = StatusField {
                fwd: Some(past.as_str()),
                ..StatusField::default()
            };
            field.add_to(&mut self.exchange.reply_mut().headers);
        }
        Ok(body)
    }

    /// Has the origin answer, and stores its response where it may be stored. Requests that want the same wait for it.
    pub async fn fetch(
        &mut self,
        idx: UpstreamIdx,
        cache: &Rc<RouteCache>,
        wanted: Box<Wanted>,
    ) -> Result<ResponseBody, Error> {
        if wanted.directives.only_if_cached {
            // RFC 9111 §5.2.1.7.
            cache.note(Outcome::Miss, self.exchange);
            return Ok(self.take(reply::plain(StatusCode::GATEWAY_TIMEOUT)));
        }
        let outcome = match wanted.is_bypass {
            true => Outcome::Bypass,
            false => Outcome::Miss,
        };
        let mut fetched = match self.await_turn(cache, wanted).await {
            Ok(Turn::Fetch(fetched)) => fetched,
            Ok(Turn::Response(body)) => return Ok(body),
            Err(error) => {
                cache.note(outcome, self.exchange);
                return Err(error);
            }
        };
        fetched.outcome = outcome;
        let asked = self.ask(idx, &mut fetched).await;
        cache.note(fetched.outcome, self.exchange);
        asked
    }

    /// Waits while another request fetches the same.
    async fn await_turn<'c>(
        &mut self,
        cache: &'c Rc<RouteCache>,
        wanted: Box<Wanted>,
    ) -> Result<Turn<'c>, Error> {
        let Wanted {
            primary,
            mut stale,
            fwd,
            is_bypass,
            mut alone,
            stores,
            directives,
        } = *wanted;
        let mut field = StatusField {
            fwd: Some(fwd),
            ..StatusField::default()
        };
        let is_head = self.exchange.request().method == Method::HEAD;
        let begun = Moment::now();
        let until = Instant::now() + cache.wait;
        let (place, flight) = loop {
            let (place, found) = cache.find(primary, &self.exchange.request().headers);
            if is_bypass || is_head || !stores {
                break (place, None);
            }
            match found {
                Found::Response(response) => {
                    let waited = field.collapsed.then_some(begun);
                    let since = (waited, &directives);
                    if let Some(body) = self.answer_after_wait(cache, &response, since) {
                        return Ok(Turn::Response(body));
                    }
                    stale = Some(response);
                }
                Found::Passes => alone = true,
                Found::Nothing { .. } => {}
            }
            if alone {
                break (place, None);
            }
            let flights = self.worker.flights();
            let key = place.flight(cache);
            if let Some(flight) = flights.begin(&key) {
                break (place, Some(flight));
            }
            field.collapsed = true;
            let left = until.saturating_duration_since(Instant::now());
            let over = flights.end_of(&key, left);
            match self.downstream.while_there(Box::pin(over)).await {
                None => return Err(ClientError::Gone.into()),
                Some(true) => {}
                Some(false) => alone = true,
            }
        };
        Ok(Turn::Fetch(Box::new(Fetched {
            cache,
            place,
            stale,
            flight,
            field,
            stores: stores && !is_head,
            alone,
            outcome: Outcome::Miss,
        })))
    }

    /// Answers a request with what another one has fetched meanwhile, for which it has waited since this moment. What is
    /// fresh as it has `asked` will do, whenever it came. `None`: there is nothing for it.
    fn answer_after_wait(
        &mut self,
        cache: &RouteCache,
        response: &Response,
        (waited, asked): (Option<Moment>, &RequestDirectives),
    ) -> Option<ResponseBody> {
        let now = Moment::now();
        let is_new = waited.is_some_and(|waited| response.freshness.came >= waited);
        // A response that came while the request waited is as good as the one that it would fetch.
        if is_new || is_fresh_for(&response.freshness, asked, now) {
            cache.note(Outcome::Hit, self.exchange);
            let field = StatusField {
                collapsed: waited.is_some(),
                ..StatusField::default()
            };
            return Some(self.answer_with(cache, response, field, now));
        }
        let rests = waited.is_some() && response.freshness.rests_after_error(now);
        rests.then(|| self.answer_with_stale(cache, response, AFTER_ERROR, now))
    }

    /// Makes a stale response the response. `why` it may be used.
    fn answer_with_stale(
        &mut self,
        cache: &RouteCache,
        response: &Response,
        why: &'static str,
        now: Moment,
    ) -> ResponseBody {
        cache.note(Outcome::Stale, self.exchange);
        let field = StatusField {
            detail: Some(why),
            ..StatusField::default()
        };
        self.answer_with(cache, response, field, now)
    }

    /// Makes a stored response the response. `field` says that it is a hit, and gets the time that is left.
    fn answer_with(
        &mut self,
        cache: &RouteCache,
        response: &Response,
        field: StatusField,
        now: Moment,
    ) -> ResponseBody {
        let field = StatusField {
            ttl: Some(response.freshness.seconds_left_at(now)),
            ..field
        };
        self.answer_field(cache, response, field, now)
    }

    /// Makes a stored response the response, with this field.
    pub fn answer_field(
        &mut self,
        cache: &RouteCache,
        response: &Response,
        field: StatusField,
        now: Moment,
    ) -> ResponseBody {
        let request = self.exchange.request();
        // Filters are to see a body from its beginning.
        let in_parts = self.plan.get().response_body.is_empty();
        let (status, mut headers, body) = stored::answer(request, response, in_parts, now);
        if cache.shows_status {
            field.add_to(&mut headers);
        }
        self.exchange.enter(Stage::Balance);
        self.exchange.replace_reply(status, headers);
        ResponseBody::Here(body)
    }

    /// Has what is stored for the request's URL, and for those of the same origin that the response names, be used no more.
    fn invalidate(&mut self, cache: &RouteCache, upstream: &str) {
        cache.invalidate(&cache.primary_key(self.exchange, upstream));
        let reply = self.exchange.reply();
        let names = [&http::header::LOCATION, &http::header::CONTENT_LOCATION];
        let named = names.map(|name| reply.headers.get(name).map(<[u8]>::to_vec));
        for location in named.into_iter().flatten() {
            let Some(target) = self.target_of(&location) else {
                continue;
            };
            let own = std::mem::replace(&mut self.exchange.request_mut().target, target);
            cache.invalidate(&cache.primary_key(self.exchange, upstream));
            self.exchange.request_mut().target = own;
        }
    }

    /// Target of a URL or reference that a response names, where that is of the request's own host.
    fn target_of(&self, reference: &[u8]) -> Option<Target> {
        let reference = std::str::from_utf8(reference).ok()?;
        let request = self.exchange.request();
        let path = match reference.split_once("://") {
            Some((scheme, rest)) => {
                let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
                let is_own = scheme.eq_ignore_ascii_case(request.scheme.as_str())
                    && request
                        .host()
                        .is_some_and(|own| own.eq_ignore_ascii_case(host));
                is_own.then(|| rest[host.len()..].to_owned())?
            }
            None if reference.starts_with("//") => return None,
            None if reference.starts_with('/') => reference.to_owned(),
            None if reference.starts_with('?') => format!("{}{reference}", request.target.path()),
            // Relative to the folder of the request's path (RFC 3986 §5.2.3).
            None => {
                let own = request.target.path();
                let folder = &own[..own.rfind('/').map_or(0, |at| at + 1)];
                format!("{folder}{reference}")
            }
        };
        let path = path.split('#').next().unwrap_or_default();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        // Without dot segments, as requests have their paths.
        let path = path::read(if path.is_empty() { "/" } else { path })
            .ok()?
            .text;
        Some(Target::new(&path, query))
    }

    /// Has a stale response fetched anew by a task of its own, unless that is done already.
    fn refresh(
        &mut self,
        cache: &Rc<RouteCache>,
        idx: UpstreamIdx,
        place: &Place,
        stale: &Response,
    ) {
        let Some(flight) = self.worker.flights().begin(&place.flight(cache)) else {
            return;
        };
        let (Some(worker), Some(service)) = (self.worker.handle(), self.service.handle()) else {
            return;
        };
        let own = self.plan.get().proxy.as_deref();
        let settings = own.and_then(|route| route.settings(idx)).map(Rc::clone);
        let refresh = refresh::Refresh {
            worker,
            service,
            idx,
            settings,
            exchange: self.exchange.twin(),
            cache: Rc::clone(cache),
            place: place.again(),
            stale: stale.clone(),
            flight,
        };
        tokio::task::spawn_local(refresh.run());
    }
}
