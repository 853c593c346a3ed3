//! The way of an exchange through a chain, in the order of the gateway's flow.

use castling_abi::{
    Action, BALANCE_FAILED, ErrorKind, Hook, Number, PeerOutcome, Property, header_list,
};

use super::super::hook::Running;
use super::super::trace;
use super::super::world::{Section, lend, with_world};
use super::super::{Exchange, FakePeer};
use super::{Chain, Served, action};
use crate::{Response, http};

/// A request is routed at most this many times.
const MAX_ROUTINGS: u32 = 10;

/// Phases before a response, but for `post_read`.
const PHASES: [Hook; 4] = [Hook::Rewrite, Hook::Preaccess, Hook::Access, Hook::Content];

/// Fields that are about the bytes as the peer has them.
const UNTRUE_OF_CHANGED: [&str; 7] = [
    "content-length",
    "accept-ranges",
    "last-modified",
    "content-md5",
    "content-digest",
    "repr-digest",
    "digest",
];

/// A hook has failed: what the client is to be told of it.
struct Failed(u16);

/// Decision of the phases.
enum Decision {
    Proxy,
    /// The response is there.
    Answered,
}

struct Way<'a> {
    chain: &'a mut Chain,
    exchange: Exchange,
    sent: Option<Vec<u8>>,
    failures: Vec<String>,
    is_cut: bool,
}

pub(super) fn run(chain: &mut Chain, exchange: Exchange) -> Served {
    let names = chain.plugins.iter().map(|plugin| plugin.name.clone());
    let names: Vec<String> = names.collect();
    let before = with_world(|world| {
        world.plugin_names = names;
        world.trace.replace(Vec::new())
    });
    lend(&exchange.facts);
    announce(&exchange);
    let plugins = chain.plugins.iter().enumerate();
    let variables = plugins.flat_map(|(idx, plugin)| plugin.computed(idx));
    exchange.facts.borrow_mut().computed.variables = variables.collect();
    let mut way = Way {
        chain,
        exchange,
        sent: None,
        failures: Vec::new(),
        is_cut: false,
    };
    let body = way.serve();
    way.set_number(Number::BodyBytesSent, body.len());
    let received = way.received_bytes();
    way.set_number(Number::BodyBytesReceived, received);
    way.last();
    let (status, headers) = {
        let mut facts = way.exchange.facts.borrow_mut();
        facts.response.take().unwrap_or_default()
    };
    let trace = with_world(|world| {
        world.plugin_names.clear();
        world.plugin = 0;
        std::mem::replace(&mut world.trace, before)
    });
    way.exchange.facts.borrow_mut().response = Some((status, headers.clone()));
    Served {
        status,
        headers,
        body,
        is_cut: way.is_cut,
        sent: way.sent,
        failures: way.failures,
        trace: trace.unwrap_or_default(),
        exchange: way.exchange,
    }
}

impl Way<'_> {
    fn received_bytes(&self) -> usize {
        let bodies = &self.exchange.facts.borrow().bodies;
        match bodies.is_received {
            true => bodies.request.len(),
            false => 0,
        }
    }

    fn set_number(&self, number: Number, value: usize) {
        let numbers = &mut self.exchange.facts.borrow_mut().numbers;
        numbers[number as usize] = i64::try_from(value).ok();
    }

    /// Comes to a response and sends it: its body.
    fn serve(&mut self) -> Vec<u8> {
        let response = self.phases().and_then(|decision| match decision {
            Decision::Proxy => self.proxy(),
            Decision::Answered => Ok(()),
        });
        let filtered = match response {
            Ok(()) => self.filter_head(),
            Err(Failed(status)) => {
                self.take_plain(status);
                self.filter_head()
            }
        };
        if let Err(Failed(status)) = filtered {
            // Past the filters, as it is one of them that has failed.
            self.take_plain(status);
            return self.pieces().concat();
        }
        self.filter_body()
    }

    fn set_property(&self, property: Property, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let properties = &mut self.exchange.facts.borrow_mut().properties;
        std::mem::replace(&mut properties[property as usize], value)
    }

    fn phases(&mut self) -> Result<Decision, Failed> {
        // No route is known before.
        let route = self.set_property(Property::Route, None);
        if self.phase(Hook::PostRead)? == Action::Answer {
            return Ok(Decision::Answered);
        }
        self.set_property(Property::Route, route);
        let mut routings = 1;
        let mut at = 0;
        while at < PHASES.len() {
            match self.phase(PHASES[at])? {
                Action::Answer => return Ok(Decision::Answered),
                Action::Reroute if routings == MAX_ROUTINGS => {
                    self.failures.push("rewrite: too many reroutes".to_owned());
                    return Err(Failed(500));
                }
                Action::Reroute => {
                    routings += 1;
                    at = 0;
                }
                Action::Continue | Action::Failed => at += 1,
            }
        }
        Ok(Decision::Proxy)
    }

    /// Runs a hook of all plugins that have it, until one of them decides.
    fn phase(&mut self, hook: Hook) -> Result<Action, Failed> {
        for idx in 0..self.chain.plugins.len() {
            match self.call(idx, hook, [0; 3])?.map(action) {
                Some(Action::Answer) => {
                    self.take_answer();
                    return Ok(Action::Answer);
                }
                Some(Action::Reroute) => return Ok(Action::Reroute),
                Some(Action::Continue | Action::Failed) | None => {}
            }
        }
        Ok(Action::Continue)
    }

    /// Sends the request to a peer, whose response becomes the response.
    fn proxy(&mut self) -> Result<(), Failed> {
        let peer = self.balance()?;
        let mut passed = Vec::new();
        let pieces = self.upload();
        let count = pieces.len();
        for (idx, piece) in pieces.into_iter().enumerate() {
            let is_last = idx + 1 == count;
            let (bytes, ended) = self.pass(0, Hook::RequestBody, piece, is_last)?;
            passed.extend(bytes);
            if self.exchange.facts.borrow().response.is_some() {
                // A filter has answered.
                return Ok(());
            }
            if ended {
                break;
            }
        }
        self.exchange.facts.borrow_mut().bodies.is_received = true;
        let request = self.request(passed.clone());
        self.sent = Some(passed);
        let answered = match &mut self.chain.peer {
            Some(answer) => answer(&request),
            None => Response::status(200),
        };
        let (status, headers, body) = answered.into_parts().expect("the peer's headers are valid");
        self.done(peer, status)?;
        self.set_number(Number::UpstreamMicros, 0);
        let mut headers = section(&headers);
        add_length(&mut headers, body.len());
        self.take(status, headers, body);
        Ok(())
    }

    fn balance(&mut self) -> Result<usize, Failed> {
        let (count, tried) = {
            let mut facts = self.exchange.facts.borrow_mut();
            if facts.peers.is_empty() {
                facts.peers.push(FakePeer::at("192.0.2.10:80"));
            }
            let upstream = facts.chosen_upstream.clone();
            let upstream = upstream.map_or_else(|| b"app".to_vec(), String::into_bytes);
            facts.properties[Property::Upstream as usize].get_or_insert(upstream);
            let tried = facts.peers.iter().filter(|peer| peer.tried).count();
            (facts.peers.len(), tried)
        };
        let args = [number(count), number(tried), 0];
        let chosen = match self.policy() {
            Some(idx) => self.call(idx, Hook::Balance, args)?,
            None => None,
        };
        let chosen = chosen.and_then(|chosen| usize::try_from(chosen).ok());
        let peer = chosen.filter(|idx| *idx < count).unwrap_or(0);
        let mut facts = self.exchange.facts.borrow_mut();
        let address = facts.peers[peer].address.clone().into_bytes();
        facts.properties[Property::Peer as usize] = Some(address);
        facts.numbers[Number::Tries as usize] = Some(1);
        Ok(peer)
    }

    /// The plugin that chooses peers: the first that does.
    fn policy(&self) -> Option<usize> {
        let mut plugins = self.chain.plugins.iter();
        plugins.position(|plugin| plugin.function(Hook::Balance).is_some())
    }

    fn done(&mut self, peer: usize, status: u16) -> Result<(), Failed> {
        {
            let numbers = &mut self.exchange.facts.borrow_mut().numbers;
            numbers[Number::UpstreamStatus as usize] = Some(status.into());
        }
        let args = [number(peer), PeerOutcome::Responded as u32, 0];
        if let Some(idx) = self.policy() {
            // The hook's failure does not matter: the try is over.
            drop(self.call(idx, Hook::PeerDone, args));
        }
        Ok(())
    }

    fn filter_head(&mut self) -> Result<(), Failed> {
        for idx in self.order(Hook::ResponseHeaders) {
            let acted = self.call(idx, Hook::ResponseHeaders, [0; 3])?;
            if acted.map(action) == Some(Action::Answer) {
                self.take_answer();
            }
        }
        Ok(())
    }

    /// The body as the client gets it.
    fn filter_body(&mut self) -> Vec<u8> {
        let is_head = self.exchange.facts.borrow().properties[Property::Method as usize].as_deref()
            == Some(b"HEAD");
        let status = self
            .exchange
            .facts
            .borrow()
            .response
            .as_ref()
            .map(|it| it.0);
        if is_head || matches!(status, Some(204 | 304)) {
            return Vec::new();
        }
        if (0..self.chain.plugins.len()).all(|idx| !self.sees_body(idx, Hook::ResponseBody)) {
            return self.pieces().concat();
        }
        self.settle_head();
        let mut body = Vec::new();
        let pieces = self.pieces();
        let count = pieces.len();
        for (idx, piece) in pieces.into_iter().enumerate() {
            match self.pass(0, Hook::ResponseBody, piece, idx + 1 == count) {
                Ok((bytes, is_last)) => {
                    body.extend(bytes);
                    if is_last {
                        break;
                    }
                }
                Err(Failed(_)) => {
                    self.is_cut = true;
                    break;
                }
            }
        }
        body
    }

    /// Has the head of a response say what is true of a body that filters may change.
    fn settle_head(&mut self) {
        let mut facts = self.exchange.facts.borrow_mut();
        if let Some((_, headers)) = &mut facts.response {
            headers.retain(|(name, _)| !UNTRUE_OF_CHANGED.contains(&name.as_str()));
            for (name, tag) in headers {
                if name == "etag" && !tag.starts_with(b"W/") {
                    tag.splice(..0, *b"W/");
                }
            }
        }
    }

    /// Runs a chunk through the filters from this one in their order on: what goes on in its place, and whether the body ends with it.
    fn pass(
        &mut self,
        first: usize,
        hook: Hook,
        chunk: Vec<u8>,
        mut is_last: bool,
    ) -> Result<(Vec<u8>, bool), Failed> {
        let mut out = Vec::new();
        let mut chunk = chunk;
        for (at, idx) in self.order(hook).into_iter().enumerate().skip(first) {
            if chunk.is_empty() && !is_last {
                break;
            }
            if !self.sees_body(idx, hook) {
                continue;
            }
            let len = chunk.len();
            let trailers = {
                let mut facts = self.exchange.facts.borrow_mut();
                facts.chunk = std::mem::take(&mut chunk);
                facts.body_ended = false;
                match is_last {
                    true => Section::new(),
                    false => std::mem::take(&mut facts.trailers),
                }
            };
            let acted = self.call(idx, hook, [number(len), u32::from(is_last), 0]);
            let (parts, has_ended) = {
                let mut facts = self.exchange.facts.borrow_mut();
                facts.trailers.extend(trailers);
                chunk = std::mem::take(&mut facts.chunk);
                (std::mem::take(&mut facts.emitted), facts.body_ended)
            };
            if acted?.map(action) == Some(Action::Answer) && hook == Hook::RequestBody {
                self.take_answer();
                return Ok((out, true));
            }
            for part in parts {
                let (bytes, has_ended) = self.pass(at + 1, hook, part, false)?;
                out.extend(bytes);
                if has_ended {
                    return Ok((out, true));
                }
            }
            is_last |= has_ended;
        }
        out.extend(chunk);
        Ok((out, is_last))
    }

    /// Plugins in the order in which they see this: what is nearer to the peer sees the response first.
    fn order(&self, hook: Hook) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.chain.plugins.len()).collect();
        if matches!(hook, Hook::ResponseHeaders | Hook::ResponseBody) {
            order.reverse();
        }
        order
    }

    fn sees_body(&self, idx: usize, hook: Hook) -> bool {
        let skips = hook == Hook::ResponseBody && self.exchange.facts.borrow().skips.contains(&idx);
        self.chain.plugins[idx].function(hook).is_some() && !skips
    }

    /// `log` of all plugins: a failure changes nothing. Then the request has ended.
    fn last(&mut self) {
        for idx in 0..self.chain.plugins.len() {
            let _ = self.call(idx, Hook::Log, [0; 3]);
        }
        super::super::gauge::request_ends(&self.exchange.facts);
        for idx in 0..self.chain.plugins.len() {
            let _ = self.call(idx, Hook::AfterResponse, [0; 3]);
        }
        for plugin in &mut self.chain.plugins {
            let reset = plugin.reset;
            plugin.lend.borrow_mut()(&mut || reset());
        }
    }

    /// Calls a hook of a plugin. `None`: it does not have it.
    fn call(&mut self, idx: usize, hook: Hook, [a, b, c]: [u32; 3]) -> Result<Option<i32>, Failed> {
        let name = self.chain.plugins[idx].name.clone();
        let Some(function) = self.chain.plugins[idx].function(hook) else {
            return Ok(None);
        };
        lend(&self.exchange.facts);
        with_world(|world| {
            world.plugin = idx;
            world.failure = None;
            world.failure_kind = ErrorKind::Own;
        });
        let running = Running::of(hook);
        trace::line("begins");
        let mut raw = 0;
        self.chain.plugins[idx].lend.borrow_mut()(&mut || raw = function(a, b, c));
        let of_variables = std::mem::take(&mut self.exchange.facts.borrow_mut().computed.failures);
        self.failures.extend(of_variables);
        let (failure, kind) = with_world(|world| (world.failure.take(), world.failure_kind));
        let has_failed = match hook {
            Hook::Balance => raw == BALANCE_FAILED,
            _ => action(raw) == Action::Failed,
        };
        if has_failed {
            let failure = failure.unwrap_or_default();
            trace::line(&format!("failed: {failure}"));
            super::super::gauge::plugin_failed(&self.exchange.facts, idx);
            self.failures
                .push(format!("{name} {}: {failure}", hook.name()));
            drop(running);
            return Err(Failed(kind.client_status()));
        }
        trace::line(&match hook {
            Hook::Balance => format!("returned {raw}"),
            _ => format!("returned {}", action(raw).name()),
        });
        drop(running);
        Ok(Some(raw))
    }

    /// Makes what a hook has answered the response.
    fn take_answer(&mut self) {
        let (answer, is_streamed) = {
            let mut facts = self.exchange.facts.borrow_mut();
            let streamed = facts.stream.as_ref().map(|stream| stream.bytes());
            if let Some(bytes) = &streamed {
                facts.bodies.response.clone_from(bytes);
            }
            (facts.answer.take(), streamed.is_some())
        };
        if let (Some((status, headers, body)), false) = (answer, is_streamed) {
            self.take(status, section(&headers), body);
        }
    }

    fn take_plain(&mut self, status: u16) {
        let headers = vec![(
            "content-type".to_owned(),
            b"text/plain; charset=utf-8".to_vec(),
        )];
        let body = format!("{status} {}\n", reason(status));
        self.take(status, headers, body.into_bytes());
    }

    fn take(&mut self, status: u16, headers: Section, body: Vec<u8>) {
        let mut facts = self.exchange.facts.borrow_mut();
        facts.forget_reply();
        facts.response = Some((status, headers));
        facts.bodies.response = body;
        drop(facts);
        trace::line(&format!("the response is {status}"));
    }

    /// The pieces that the response's body comes in: one at least.
    fn pieces(&self) -> Vec<Vec<u8>> {
        let body = self.exchange.facts.borrow().bodies.response.clone();
        split(body, &self.chain.pieces)
    }

    /// The pieces of the request's body. None: it has no body.
    fn upload(&self) -> Vec<Vec<u8>> {
        let body = self.exchange.facts.borrow().bodies.request.clone();
        match body.is_empty() {
            true => Vec::new(),
            false => split(body, &self.chain.upload),
        }
    }

    /// The request as the peer gets it.
    fn request(&self, body: Vec<u8>) -> http::Request {
        let facts = self.exchange.facts.borrow();
        let text = |property: Property| {
            let text = facts.properties[property as usize].as_deref();
            String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
        };
        let query = facts.properties[Property::Query as usize].is_some();
        let target = match query {
            true => format!("{}?{}", text(Property::Path), text(Property::Query)),
            false => text(Property::Path),
        };
        let request = http::Request::new(text(Property::Method), target).body(body);
        let headers = facts.request_headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }
}

/// Reason of a status that the gateway answers where a hook has failed.
fn reason(status: u16) -> &'static str {
    match status {
        413 => "Payload Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

/// Has the request's head say how long its body is, as a client's does.
fn announce(exchange: &Exchange) {
    let mut facts = exchange.facts.borrow_mut();
    let length = facts.bodies.request.len();
    if length > 0 {
        add_length(&mut facts.request_headers, length);
    }
}

fn add_length(headers: &mut Section, length: usize) {
    let name = "content-length";
    if headers.iter().all(|(known, _)| known != name) {
        headers.push((name.to_owned(), length.to_string().into_bytes()));
    }
}

/// Pieces of these lengths, as far as it reaches, and one of the rest: one at least.
fn split(body: Vec<u8>, lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = body.as_slice();
    let mut pieces = Vec::new();
    for length in lengths {
        match rest.split_at_checked(*length) {
            Some((piece, after)) if !after.is_empty() => {
                pieces.push(piece.to_vec());
                rest = after;
            }
            Some(_) | None => break,
        }
    }
    pieces.push(rest.to_vec());
    pieces
}

fn section(list: &[u8]) -> Section {
    let records = header_list::records(list).map_while(Result::ok);
    let field = |(name, value): (&[u8], &[u8])| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        (name, value.to_vec())
    };
    records.map(field).collect()
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
