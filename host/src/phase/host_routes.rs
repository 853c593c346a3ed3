//! Routes of one host: those with an exact path, those with a regular expression, those with a prefix, in this order.

use std::collections::HashMap;
use std::rc::Rc;

use super::condition::Condition;
use super::expression::{Expression, Groups};
use super::paths::Paths;
use super::plan::Plan;
use crate::config::{self, PathMatch};
use crate::exchange::{Context, Exchange};
use crate::message::RequestHead;

#[derive(Default)]
pub(super) struct HostRoutes {
    prefixes: Paths<Candidate>,
    /// Whether there are others than those with a prefix.
    has_others: bool,
    exact: HashMap<Box<str>, Vec<Rc<Candidate>>>,
    /// In the order of the config.
    expressions: Vec<Rc<Candidate>>,
}

/// A route that may take a request.
pub(super) struct Candidate {
    /// Expression of its path, where that is one.
    expression: Option<Expression>,
    conditions: Box<[Condition]>,
    /// Whether a group of an expression becomes a variable.
    pub(super) captures: bool,
    pub(super) plan: Rc<Plan>,
}

/// Path of a request, as it is compared.
#[derive(Clone, Copy)]
pub(super) struct Compared<'a> {
    /// With prefixes and exact paths; in lower case where case is ignored.
    pub(super) key: &'a str,
    /// With expressions, which ignore case themselves.
    pub(super) text: &'a str,
}

impl HostRoutes {
    /// `key` is the route's path as requests are compared, if it is no expression.
    pub(super) fn add(&mut self, path: &PathMatch, key: &str, candidate: Rc<Candidate>) {
        match path {
            PathMatch::Prefix(_) => self.prefixes.add(key, candidate),
            PathMatch::Exact(_) => {
                self.has_others = true;
                self.exact.entry(key.into()).or_default().push(candidate);
            }
            PathMatch::Regex(_) => {
                self.has_others = true;
                self.expressions.push(candidate);
            }
        }
    }

    #[inline]
    pub(super) fn find(&self, path: Compared<'_>, exchange: &Exchange) -> Option<&Candidate> {
        let (request, context) = (exchange.request(), exchange.context());
        if self.has_others
            && let Some(found) = self.find_other(path, request, context)
        {
            return Some(found);
        }
        self.prefixes
            .find(path.key, |candidate| candidate.takes(request, context))
    }

    #[inline(never)]
    fn find_other(
        &self,
        path: Compared<'_>,
        request: &RequestHead,
        context: &Context,
    ) -> Option<&Candidate> {
        let exact = self.exact.get(path.key).map_or(&[][..], Vec::as_slice);
        let exact = exact.iter().find(|it| it.takes(request, context));
        let found = exact.or_else(|| {
            self.expressions
                .iter()
                .find(|it| it.is_for(path) && it.takes(request, context))
        });
        found.map(|candidate| &**candidate)
    }
}

impl Candidate {
    pub(super) fn new(route: &config::Route, plan: Rc<Plan>, ignores_case: bool) -> Self {
        let expression = match &route.path {
            PathMatch::Regex(pattern) => Some(Expression::new(pattern, ignores_case, Groups::All)),
            PathMatch::Prefix(_) | PathMatch::Exact(_) => None,
        };
        let conditions = Condition::all_of(route);
        Self {
            captures: expression.as_ref().is_some_and(Expression::has_groups)
                || conditions.iter().any(Condition::captures),
            expression,
            conditions,
            plan,
        }
    }

    /// Whether its expression matches the path.
    fn is_for(&self, path: Compared<'_>) -> bool {
        let mut expression = self.expression.iter();
        expression.all(|expression| expression.is_match(path.text.as_bytes()))
    }

    #[inline]
    fn takes(&self, request: &RequestHead, context: &Context) -> bool {
        let mut conditions = self.conditions.iter();
        conditions.all(|condition| condition.holds(request, context))
    }

    /// Sets the variables of its expressions' groups. `path`: where it is not the request's.
    #[cold]
    pub(super) fn capture(&self, path: Option<&str>, exchange: &mut Exchange) {
        let (request, context) = exchange.parts_mut();
        if let Some(expression) = &self.expression {
            let path = path.unwrap_or_else(|| request.target.path());
            expression.capture(path.as_bytes(), &mut context.vars);
        }
        for condition in &self.conditions {
            condition.capture(request, &mut context.vars);
        }
    }
}
