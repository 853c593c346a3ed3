//! Keys of a route that take the place of its upstream's.

use super::names::Named;
use super::sections::TIMEOUT;
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::upstream::{protection, retry};
use super::{Mirror, RetryOverrides, RouteProxy};

/// `upstream`: whether the route has one, without which the keys mean nothing.
pub(super) fn route_proxy(
    table: &mut Table<'_>,
    upstreams: &Named<'_>,
    has_upstream: bool,
    spill_limit: Option<u64>,
) -> RouteProxy {
    let timeout = |value: Value<'_>| value.with_upstream(has_upstream)?.duration(TIMEOUT);
    let connect_timeout = table.optional("connect_timeout", timeout);
    let response_timeout = table.optional("response_timeout", timeout);
    let idle_timeout = table.optional("idle_timeout", timeout);
    let tries = table.optional("tries", |value| {
        value.with_upstream(has_upstream)?.integer(1..=100)
    });
    RouteProxy {
        connect_timeout,
        response_timeout,
        idle_timeout,
        tries,
        retry: table.optional("retry", |value| {
            overrides(value.with_upstream(has_upstream)?, tries, spill_limit)
        }),
        max_response_bytes: protection::max_response(table),
        response_rate: protection::response_rate(table),
        mirror: table.optional("mirror", |value| {
            mirror(value.with_upstream(has_upstream)?, upstreams)
        }),
        max_body_bytes: table.optional("max_body", |value| value.size(0..=1 << 50)),
    }
}

fn overrides(
    value: Value<'_>,
    tries: Option<u32>,
    spill_limit: Option<u64>,
) -> Option<RetryOverrides> {
    let mut table = value.table()?;
    let overrides = retry::overrides(&mut table, tries, spill_limit);
    if let Some(value) = table.get("budget") {
        value.refuse::<()>("budget is its upstream's, whose peers it protects: expected none here");
    }
    table.finish();
    Some(overrides)
}

/// A name, or a table that says more.
fn mirror(value: Value<'_>, upstreams: &Named<'_>) -> Option<Mirror> {
    let whole = |upstream| Mirror {
        upstream,
        share: 1.0,
        max_active: 100,
    };
    let NodeKind::Table(_) = value.kind() else {
        return upstreams.reference(value).map(whole);
    };
    let mut table = value.table()?;
    let upstream = table.required("upstream", "the name of an upstream", |name| {
        upstreams.reference(name)
    });
    let Mirror {
        share, max_active, ..
    } = whole(String::new());
    let share = table.or("share", share, |value| match value.number(0.0..=1.0)? {
        0.0 => value.expected("more than 0: a share of nothing has no effect"),
        share => Some(share),
    });
    let max_active = table.or("max_active", max_active, |value| value.integer(1..=100_000));
    table.finish();
    Some(Mirror {
        upstream: upstream?,
        share,
        max_active,
    })
}

impl Value<'_> {
    /// Refuses a key that is about peers where there are none.
    fn with_upstream(self, has_upstream: bool) -> Option<Self> {
        match has_upstream {
            true => Some(self),
            false => self.refuse(format_args!(
                "{} without an upstream has no effect: expected `upstream`",
                self.key()
            )),
        }
    }
}
