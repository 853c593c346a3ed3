//! What the requests of one listener are served by: its routes, limits and time-outs, what it adds to heads, and its metrics.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, FieldNames, Linger, NonAsciiTarget, Rate};
use crate::http1::HeadLimits;
use crate::metrics::ListenerMetrics;
use crate::phase::Router;
use crate::upstream::forwarded::Marks;

pub struct Service {
    /// Name of the listener in the config.
    pub name: Arc<str>,
    pub router: Router,
    pub head_limits: HeadLimits,
    /// Longest body of a request in bytes. 0: no limit.
    pub max_body_bytes: u64,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    pub linger: Linger,
    pub half_close: Duration,
    pub body_rate: Rate,
    pub send_rate: Rate,
    pub marks: Marks,
    pub metrics: ListenerMetrics,
}

impl Service {
    /// `gateway_id` is the same for all workers of a gateway, and no other gateway's.
    pub fn new(
        name: &str,
        config: &config::Listener,
        router: Router,
        metrics: ListenerMetrics,
        gateway_id: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            name: Arc::from(name),
            router,
            head_limits: HeadLimits {
                max_head_bytes: config.max_head_bytes,
                max_fields: config.max_fields,
                any_names: config.field_names == FieldNames::Any,
                non_ascii_target: config.non_ascii_target == NonAsciiTarget::Encode,
            },
            max_body_bytes: config.max_body_bytes,
            head_timeout: config.head_timeout,
            body_timeout: config.body_timeout,
            send_timeout: config.send_timeout,
            idle_timeout: config.idle_timeout,
            linger: config.linger,
            half_close: config.half_close,
            body_rate: config.body_rate,
            send_rate: config.send_rate,
            marks: Marks::new(name, config.via, config.server.clone(), gateway_id),
            metrics,
        })
    }

    /// Group of the alarms of connections that wait for a request: see [`crate::runtime::alarm::Alarms::end_longest`].
    pub fn idle_group(self: &Rc<Self>) -> usize {
        Rc::as_ptr(self).addr()
    }
}
