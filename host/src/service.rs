//! Services: a listener's routes, limits and time-outs, what it adds to heads, and its metrics.

use std::num::NonZeroU32;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, FieldNames, NonAsciiTarget};
use crate::downstream::Settings;
use crate::exchange::Exchange;
use crate::handler::acme_challenge::HttpChallenges;
use crate::http2;
use crate::message::forwarded::Marks;
use crate::message::{HeadLimits, Scheme};
use crate::metrics::{ListenerMetrics, RequestCounts};
use crate::phase::Router;

pub struct Service {
    /// Name of the listener in the config.
    pub name: Arc<str>,
    pub router: Router,
    pub head_limits: HeadLimits,
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    /// Scheme of its clients' requests.
    pub scheme: Scheme,
    pub client: Settings,
    /// Whether a request's body is held to a limit only when its route is known.
    pub limits_bodies_by_route: bool,
    /// `None`: HTTP/1 alone.
    pub http2: Option<http2::Builder>,
    pub metrics: ListenerMetrics,
    pub challenges: HttpChallenges,
    this: Weak<Self>,
}

impl Service {
    /// `gateway_id` is the same for all workers of a gateway, and no other gateway's.
    pub fn new(
        name: &str,
        config: &config::HttpSettings,
        router: Router,
        metrics: ListenerMetrics,
        (gateway_id, scheme): (u64, Scheme),
    ) -> Rc<Self> {
        let head_limits = HeadLimits {
            max_head_bytes: config.max_head_bytes,
            max_fields: config.max_fields,
            any_names: config.field_names == FieldNames::Any,
            non_ascii_target: config.non_ascii_target == NonAsciiTarget::Encode,
        };
        Rc::new_cyclic(|this| Self {
            name: Arc::from(name),
            http2: config
                .http2
                .map(|http2| http2::Builder::new(&http2, &head_limits, router.has_tunnels())),
            limits_bodies_by_route: router.has_body_limits(),
            router,
            head_limits,
            scheme,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            client: Settings {
                max_body_bytes: config.max_body_bytes,
                max_requests: config.max_requests.map_or(u32::MAX, NonZeroU32::get),
                max_age: config.max_age,
                body_timeout: config.body_timeout,
                body_rate: config.body_rate,
                send_timeout: config.send_timeout,
                send_rate: config.send_rate,
                half_close: config.half_close,
                linger: config.linger,
                marks: Marks::of(name, config, gateway_id),
            },
            metrics,
            challenges: HttpChallenges::default(),
            this: Weak::clone(this),
        })
    }

    /// Adds a request that is over to the metrics. `requests`: counts of its route.
    pub fn count(&self, exchange: &Exchange, requests: &RequestCounts) {
        let (stats, metrics) = (exchange.stats(), &self.metrics);
        requests.count(exchange.reply().status);
        metrics.received_bytes.add(stats.body_bytes_received as f64);
        metrics.sent_bytes.add(stats.body_bytes_sent as f64);
    }

    /// Share of it, for a task that outlives the client's connection.
    pub fn handle(&self) -> Option<Rc<Self>> {
        self.this.upgrade()
    }

    /// Group of the alarms of connections that wait for a request: see [`crate::runtime::alarm::Alarms::end_longest`].
    pub fn idle_group(self: &Rc<Self>) -> usize {
        Rc::as_ptr(self).addr()
    }
}
