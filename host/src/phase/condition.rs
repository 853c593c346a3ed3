//! Conditions of a route beside its host and path.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderName, Method};

use super::expression::{Expression, Groups};
use crate::config::{self, Networks, ValueTest};
use crate::exchange::{Context, Vars};
use crate::message::{RequestHead, Scheme, cookies, query};

/// One of them. All of a route must hold.
pub(super) enum Condition {
    /// A redirect to https is for who comes without: a proxy in front, which is trusted, may have TLS.
    Plain,
    Methods(Vec<Method>),
    Clients(Networks),
    Header(HeaderName, Test),
    Query(Box<str>, Test),
    Cookie(Box<str>, Test),
}

/// Test of the values of a name, of which one that passes is enough.
pub(super) enum Test {
    OneOf(Box<[Box<str>]>),
    Present,
    Absent,
    Regex(Expression),
}

impl Condition {
    /// Those of a route, the cheapest first.
    pub(super) fn all_of(route: &config::Route) -> Box<[Self]> {
        let mut all = Vec::new();
        if route.redirect.is_some() {
            all.push(Self::Plain);
        }
        if !route.methods.is_empty() {
            // They were checked when the config was read, as names were.
            let methods = route.methods.iter().filter_map(|it| it.parse().ok());
            all.push(Self::Methods(methods.collect()));
        }
        all.extend(route.clients.clone().map(Self::Clients));
        for one in &route.headers {
            let name = one.name.parse().ok();
            all.extend(name.map(|name| Self::Header(name, Test::new(&one.test))));
        }
        for one in &route.query {
            all.push(Self::Query(one.name.as_str().into(), Test::new(&one.test)));
        }
        for one in &route.cookies {
            all.push(Self::Cookie(one.name.as_str().into(), Test::new(&one.test)));
        }
        all.into()
    }

    pub(super) fn holds(&self, request: &RequestHead, context: &Context) -> bool {
        match self {
            Self::Plain => request.scheme == Scheme::Http,
            Self::Methods(methods) => methods.contains(&request.method),
            Self::Clients(networks) => networks.contain(context.client.ip()),
            Self::Header(name, test) => test.passes(request.headers.get_all(name)),
            Self::Query(name, test) => test.passes(parameters(request, name)),
            Self::Cookie(name, test) => test.passes(cookies::values(&request.headers, name)),
        }
    }

    /// Whether its expression has groups with names.
    pub(super) fn captures(&self) -> bool {
        match self {
            Self::Header(_, test) | Self::Query(_, test) | Self::Cookie(_, test) => {
                matches!(test, Test::Regex(expression) if expression.has_groups())
            }
            Self::Plain | Self::Methods(_) | Self::Clients(_) => false,
        }
    }

    /// Sets the variables of its expression's groups, by the first value that passes.
    pub(super) fn capture(&self, request: &RequestHead, vars: &mut Vars) {
        match self {
            Self::Header(name, test) => test.capture(request.headers.get_all(name), vars),
            Self::Query(name, test) => test.capture(parameters(request, name), vars),
            Self::Cookie(name, test) => {
                test.capture(cookies::values(&request.headers, name), vars);
            }
            Self::Plain | Self::Methods(_) | Self::Clients(_) => {}
        }
    }
}

/// For a person.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("scheme http"),
            Self::Methods(methods) => {
                let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
                write!(f, "method {}", methods.join(", "))
            }
            Self::Clients(networks) => write!(f, "client in {networks}"),
            Self::Header(name, test) => write!(f, "header {name}{test}"),
            Self::Query(name, test) => write!(f, "query {name}{test}"),
            Self::Cookie(name, test) => write!(f, "cookie {name}{test}"),
        }
    }
}

/// For a person, behind a name.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(values) => match &values[..] {
                [value] => write!(f, " = {value:?}"),
                values => write!(f, " in {values:?}"),
            },
            Self::Present => f.write_str(" present"),
            Self::Absent => f.write_str(" absent"),
            Self::Regex(expression) => write!(f, " ~ {}", expression.as_str()),
        }
    }
}

fn parameters<'a>(request: &'a RequestHead, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query::values(request.target.query().unwrap_or_default(), name.as_bytes())
}

impl Test {
    fn new(test: &ValueTest) -> Self {
        match test {
            ValueTest::OneOf(values) => {
                Self::OneOf(values.iter().map(|value| value.as_str().into()).collect())
            }
            ValueTest::Present => Self::Present,
            ValueTest::Absent => Self::Absent,
            ValueTest::Regex(pattern) => {
                Self::Regex(Expression::new(pattern, false, Groups::Named))
            }
        }
    }

    fn passes<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>) -> bool {
        match self {
            Self::OneOf(expected) => values.any(|value| {
                let mut expected = expected.iter();
                expected.any(|one| one.as_bytes() == value.as_ref())
            }),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Regex(expression) => values.any(|value| expression.is_match(value.as_ref())),
        }
    }

    fn capture<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>, vars: &mut Vars) {
        if let Self::Regex(expression) = self
            && let Some(value) = values.find(|value| expression.is_match(value.as_ref()))
        {
            expression.capture(value.as_ref(), vars);
        }
    }
}
