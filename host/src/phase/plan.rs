//! What one route of one listener runs, hook by hook. A hook that none of its plugins implements is an empty list.

use std::rc::Rc;
use std::sync::Arc;

use castling_abi::Hook;

use crate::metrics::RequestCounts;
use crate::wasm::{Plugin, Step};

#[derive(Default)]
pub struct Plan {
    /// `None` for what runs before a route is found.
    pub route: Option<Arc<str>>,
    pub upstream: Option<UpstreamIdx>,
    /// In the place of an upstream, the gateway's metrics.
    pub metrics: bool,
    /// Its requests, by status.
    pub requests: RequestCounts,
    pub rewrite: Box<[Step]>,
    pub preaccess: Box<[Step]>,
    pub access: Box<[Step]>,
    pub content: Box<[Step]>,
    /// In the order they run in: the last plugin of the config sees the response first.
    pub response_headers: Box<[Step]>,
    pub response_body: Box<[Step]>,
    pub log: Box<[Step]>,
}

/// Which of the generation's upstreams; the flow has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamIdx(pub usize);

impl Plan {
    /// Flattens the plugins of a listener and of a route, in the order of the config.
    pub fn new(
        route: Option<Arc<str>>,
        upstream: Option<UpstreamIdx>,
        plugins: &[Rc<Plugin>],
    ) -> Self {
        let steps = |hook| Step::list(plugins, hook);
        let reversed = |hook| {
            let mut steps = steps(hook).into_vec();
            steps.reverse();
            steps.into_boxed_slice()
        };
        Self {
            route,
            upstream,
            metrics: false,
            requests: RequestCounts::default(),
            rewrite: steps(Hook::Rewrite),
            preaccess: steps(Hook::Preaccess),
            access: steps(Hook::Access),
            content: steps(Hook::Content),
            response_headers: reversed(Hook::ResponseHeaders),
            response_body: reversed(Hook::ResponseBody),
            log: steps(Hook::Log),
        }
    }

    /// `access: token-auth; response_headers: headers, substitute`.
    pub fn describe(&self) -> String {
        let lists = [
            (Hook::Rewrite, &self.rewrite),
            (Hook::Preaccess, &self.preaccess),
            (Hook::Access, &self.access),
            (Hook::Content, &self.content),
            (Hook::ResponseHeaders, &self.response_headers),
            (Hook::ResponseBody, &self.response_body),
            (Hook::Log, &self.log),
        ];
        let described: Vec<String> = lists
            .iter()
            .filter(|(_, steps)| !steps.is_empty())
            .map(|(hook, steps)| {
                let names: Vec<&str> = steps.iter().map(|step| &*step.plugin.name).collect();
                format!("{}: {}", hook.name(), names.join(", "))
            })
            .collect();
        described.join("; ")
    }
}
