//! The order in which a listener's routes are asked, for people: what `castling check` and `castling route` tell of it. Each route
//! is looked at, one after the other; [`super::Router`] finds the same without that.

use std::cmp::Reverse;
use std::rc::Rc;

use super::condition::Condition;
use super::expression::{Expression, Groups};
use super::route::PathComparison;
use crate::config::{self, FieldMatch, HostPattern, PathCase, PathMatch, PathPolicy, ValueTest};
use crate::exchange::Exchange;

/// Routes of a listener, each for each of its hosts, the first to be asked first.
pub struct Order<'c> {
    turns: Vec<Turn<'c>>,
    compares: PathComparison,
}

/// A route with one of its hosts.
pub struct Turn<'c> {
    pub route: &'c config::Route,
    /// Index of the route among those of the listener, in the order of the config.
    pub idx: usize,
    /// `None`: any host.
    pub host: Option<&'c HostPattern>,
    /// Its path as requests are compared.
    key: String,
    /// Expression of its path, where that is one.
    expression: Option<Rc<Expression>>,
}

/// What comes of it when a route is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Takes,
    OtherHost,
    OtherPath,
    /// The first condition that does not hold.
    Fails(String),
}

/// Why a route is asked before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    Priority,
    Host,
    ExactPath,
    Expression,
    LongerPath,
    Order,
}

impl<'c> Order<'c> {
    /// Of the routes in the order of the config.
    pub fn new(routes: &[&'c config::Route], (paths, case): (PathPolicy, PathCase)) -> Self {
        let compares = PathComparison::new(paths, case);
        let mut turns = Vec::new();
        for (idx, route) in routes.iter().enumerate() {
            let key = compares.key_of_route(&route.path);
            let expression = match &route.path {
                PathMatch::Regex(pattern) => {
                    let ignores_case = compares.ignores_case;
                    Some(Rc::new(Expression::new(pattern, ignores_case, Groups::All)))
                }
                PathMatch::Prefix(_) | PathMatch::Exact(_) => None,
            };
            let turn = |host| Turn {
                route,
                idx,
                host,
                key: key.clone(),
                expression: expression.clone(),
            };
            match route.hosts.is_empty() {
                true => turns.push(turn(None)),
                false => turns.extend(route.hosts.iter().map(|host| turn(Some(host)))),
            }
        }
        turns.sort_by_key(Turn::rank);
        Self { turns, compares }
    }

    pub fn turns(&self) -> &[Turn<'c>] {
        &self.turns
    }

    /// What comes of it when all are asked for this request.
    pub fn ask(&self, exchange: &Exchange) -> Vec<(&Turn<'c>, Outcome)> {
        let path = exchange.request().target.path();
        let text = self.compares.text(path).unwrap_or_default();
        let text = if text == "*" { "/" } else { &*text };
        let host = exchange.request().host_name().unwrap_or_default();
        let outcome = |turn: &Turn<'_>| {
            if !turn.is_for_host(&host) {
                Outcome::OtherHost
            } else if !turn.is_for_path(text, self.compares) {
                Outcome::OtherPath
            } else {
                let conditions = Condition::all_of(turn.route);
                let (request, context) = (exchange.request(), exchange.context());
                let failing = conditions.iter().find(|it| !it.holds(request, context));
                failing.map_or(Outcome::Takes, |it| Outcome::Fails(it.to_string()))
            }
        };
        let asked = self.turns.iter().map(|turn| (turn, outcome(turn)));
        asked.collect()
    }

    /// Routes that no request comes to, each with one that takes what it would.
    pub fn shadowed(&self) -> Vec<(&Turn<'c>, &Turn<'c>)> {
        let mut shadowed = Vec::new();
        if self.turns.len() > MAX_COMPARED {
            return shadowed;
        }
        for (at, turn) in self.turns.iter().enumerate() {
            let is_known = |(other, _): &(&Turn<'_>, _)| other.idx == turn.idx;
            if shadowed.iter().any(is_known) {
                continue;
            }
            let covering = |(at, turn): (usize, &Turn<'c>)| {
                let mut ahead = self.turns[..at].iter();
                ahead.find(|other| other.idx != turn.idx && other.covers(turn, self.compares))
            };
            // With each of its hosts.
            let mut of_route = self.turns.iter().enumerate();
            let is_reached = of_route
                .any(|(at, other)| other.idx == turn.idx && covering((at, other)).is_none());
            if let (false, Some(other)) = (is_reached, covering((at, turn))) {
                shadowed.push((turn, other));
            }
        }
        shadowed
    }

    /// The next of another route that could take a request of this turn's, too, and why it comes behind.
    pub fn next_overlapping(&self, at: usize) -> Option<(&Turn<'c>, Precedence)> {
        if self.turns.len() > MAX_COMPARED {
            return None;
        }
        let turn = &self.turns[at];
        let mut behind = self.turns[at + 1..].iter();
        let other =
            behind.find(|other| other.idx != turn.idx && turn.overlaps(other, self.compares))?;
        Some((other, turn.precedes(other)))
    }
}

/// Routes that are compared with one another: with more it would take seconds.
const MAX_COMPARED: usize = 5000;

/// Kind of a host or path, then its length, the longest first.
type Rank = (u8, Reverse<usize>);

impl Turn<'_> {
    /// The lowest is asked first.
    fn rank(&self) -> (Reverse<i32>, Rank, Rank, usize) {
        (
            Reverse(self.route.priority),
            self.host_rank(),
            self.path_rank(),
            self.idx,
        )
    }

    fn host_rank(&self) -> Rank {
        match self.host {
            Some(HostPattern::Exact(_)) => (0, Reverse(0)),
            Some(HostPattern::Suffix(suffix)) => (1, Reverse(suffix.len())),
            None => (2, Reverse(0)),
        }
    }

    fn path_rank(&self) -> Rank {
        match self.route.path {
            PathMatch::Exact(_) => (0, Reverse(0)),
            PathMatch::Regex(_) => (1, Reverse(0)),
            PathMatch::Prefix(_) => (2, Reverse(self.key.len())),
        }
    }

    /// Why it is asked before one that ranks behind it.
    pub fn precedes(&self, other: &Self) -> Precedence {
        if self.route.priority != other.route.priority {
            return Precedence::Priority;
        }
        if self.host_rank() != other.host_rank() {
            return Precedence::Host;
        }
        match self.route.path {
            _ if self.path_rank() == other.path_rank() => Precedence::Order,
            PathMatch::Exact(_) => Precedence::ExactPath,
            PathMatch::Regex(_) => Precedence::Expression,
            PathMatch::Prefix(_) => Precedence::LongerPath,
        }
    }

    fn is_for_host(&self, host: &str) -> bool {
        match self.host {
            None => true,
            Some(HostPattern::Exact(name)) => name == host,
            Some(HostPattern::Suffix(suffix)) => host.ends_with(suffix.as_str()),
        }
    }

    fn is_for_path(&self, text: &str, compares: PathComparison) -> bool {
        match (&self.route.path, &self.expression) {
            (_, Some(expression)) => expression.is_match(text.as_bytes()),
            (PathMatch::Exact(_), None) => compares.key(text) == self.key,
            (PathMatch::Prefix(_) | PathMatch::Regex(_), None) => {
                is_within(&compares.key(text), &self.key)
            }
        }
    }

    /// Whether it takes each request that the other one would. Where that cannot be told, it does not.
    fn covers(&self, other: &Self, compares: PathComparison) -> bool {
        let has_path = match (&self.route.path, &other.route.path) {
            (PathMatch::Prefix(_), _) if self.key.is_empty() => true,
            (PathMatch::Regex(ours), PathMatch::Regex(theirs)) => ours == theirs,
            (_, PathMatch::Regex(_)) => false,
            (PathMatch::Exact(_) | PathMatch::Regex(_), PathMatch::Prefix(_)) => false,
            (_, PathMatch::Prefix(_) | PathMatch::Exact(_)) => {
                self.is_for_path(&other.key, compares)
            }
        };
        has_path && self.has_host_of(other) && asks_no_more(self.route, other.route)
    }

    /// Whether there may be a request for both.
    fn overlaps(&self, other: &Self, compares: PathComparison) -> bool {
        let has_path = match (&self.route.path, &other.route.path) {
            (PathMatch::Prefix(_), PathMatch::Prefix(_)) => {
                is_within(&self.key, &other.key) || is_within(&other.key, &self.key)
            }
            (PathMatch::Exact(_), _) => other.is_for_path(&self.key, compares),
            (_, PathMatch::Exact(_)) => self.is_for_path(&other.key, compares),
            (PathMatch::Regex(_), _) | (_, PathMatch::Regex(_)) => true,
        };
        let methods = (&self.route.methods, &other.route.methods);
        let has_method = methods.0.is_empty()
            || methods.1.is_empty()
            || methods.0.iter().any(|it| methods.1.contains(it));
        has_path && has_method && (self.has_host_of(other) || other.has_host_of(self))
    }

    /// Whether each of the other's hosts is its.
    fn has_host_of(&self, other: &Self) -> bool {
        match (self.host, other.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(HostPattern::Exact(ours)), Some(HostPattern::Exact(theirs))) => ours == theirs,
            (Some(HostPattern::Exact(_)), Some(HostPattern::Suffix(_))) => false,
            (
                Some(HostPattern::Suffix(suffix)),
                Some(HostPattern::Exact(theirs) | HostPattern::Suffix(theirs)),
            ) => theirs.ends_with(suffix.as_str()),
        }
    }
}

/// Conditions of a route beside its host and path, for a person.
pub fn conditions(route: &config::Route) -> Vec<String> {
    let all = Condition::all_of(route);
    all.iter().map(Condition::to_string).collect()
}

/// Whether a path is the prefix or below it. The root is the empty text.
fn is_within(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether each condition of the one follows from those of the other.
fn asks_no_more(one: &config::Route, other: &config::Route) -> bool {
    let is_plain = one.redirect.is_none() || other.redirect.is_some();
    let methods = one.methods.is_empty()
        || !other.methods.is_empty() && other.methods.iter().all(|it| one.methods.contains(it));
    let clients = one.clients.is_none() || one.clients == other.clients;
    let fields = [
        (&one.headers, &other.headers),
        (&one.query, &other.query),
        (&one.cookies, &other.cookies),
    ];
    is_plain
        && methods
        && clients
        && fields.iter().all(|(ours, theirs)| {
            ours.iter()
                .all(|one| theirs.iter().any(|other| follows(one, other)))
        })
}

fn follows(one: &FieldMatch, from: &FieldMatch) -> bool {
    one.name == from.name
        && match (&one.test, &from.test) {
            (ValueTest::Present, ValueTest::OneOf(_) | ValueTest::Regex(_)) => true,
            (ValueTest::OneOf(ours), ValueTest::OneOf(theirs)) => {
                theirs.iter().all(|value| ours.contains(value))
            }
            (one, from) => one == from,
        }
}
