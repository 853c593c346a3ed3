//! The plan of one route of one listener, hook by hook. A hook that none of its plugins implements is an empty list.

use std::rc::Rc;
use std::sync::Arc;

use castling_abi::Hook;

use super::{Check, Native, PluginStep, Step, Upstreams};
use crate::cache::RouteCache;
use crate::config::{PathPolicy, Tunnel};
use crate::metrics::RequestCounts;
use crate::upstream::{Mirror, ProxySettings};

#[derive(Default)]
pub struct Plan {
    /// `None` for what runs before a route is found.
    pub route: Option<Arc<str>>,
    pub upstreams: Upstreams,
    /// Policy of its paths.
    pub paths: PathPolicy,
    /// Whether requests may go on with another protocol, and within which limits.
    pub tunnel: Option<Tunnel>,
    /// What the route says of requests to peers, and of their bodies. `None`: nothing of its own.
    pub proxy: Option<Box<RoutePlan>>,
    /// Cache of its responses, between its phases and its upstream.
    pub cache: Option<Rc<RouteCache>>,
    /// Counts of its requests, by status.
    pub requests: RequestCounts,
    pub rewrite: Box<[Step]>,
    pub preaccess: Box<[Step]>,
    pub access: Box<[Step]>,
    pub content: Box<[Step]>,
    pub request_body: Rc<[Step]>,
    /// In the order they run in: the last plugin of the config sees the response first.
    pub response_headers: Box<[Step]>,
    pub response_body: Box<[Step]>,
    pub log: Box<[PluginStep]>,
    /// Hooks that run when the response is out.
    pub after_response: Box<[PluginStep]>,
    /// Whether one of these three lists has something.
    pub has_last_hooks: bool,
    /// Steps that compute variables, by their indices among [`Self::computable`].
    pub variables: Rc<[Computed]>,
    /// Names of those variables; `None` where there are none.
    pub computable: Option<Arc<[Arc<str>]>>,
}

/// Settings of a route in the place of those of its upstreams and of its listener.
pub struct RoutePlan {
    /// By upstream. Those that are not there have their own.
    pub settings: Vec<(UpstreamIdx, Rc<ProxySettings>)>,
    /// Longest body of a request; 0: no limit. `None`: the listener's own.
    pub max_body_bytes: Option<u64>,
    pub mirror: Option<Rc<Mirror>>,
}

impl RoutePlan {
    /// Settings for requests to this upstream, where they are not its own.
    pub fn settings(&self, upstream: UpstreamIdx) -> Option<&Rc<ProxySettings>> {
        let found = self.settings.iter().find(|(idx, _)| *idx == upstream);
        found.map(|(_, settings)| settings)
    }
}

/// A variable that a plugin computes.
pub struct Computed {
    pub step: PluginStep,
    /// Among those of the plugin.
    pub idx: u32,
    /// The access log writes it, so it is computed for every request.
    pub is_logged: bool,
}

/// Variables that the plugins of one route may compute: the bits of [`crate::exchange::Context::computed`].
pub const MAX_COMPUTED: usize = castling_abi::rules::limits::COMPUTED_VARIABLES;

/// Which of the generation's upstreams; the flow has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamIdx(pub usize);

impl Plan {
    /// Flattens the plugins of a listener and of a route, in the order of the config. `native` makes the content where no
    /// plugin does.
    pub fn new(
        route: Option<Arc<str>>,
        upstreams: Upstreams,
        plugins: &[PluginStep],
        native: Option<Native>,
        is_logged: impl Fn(&str) -> bool,
    ) -> Self {
        let (computable, variables): (Vec<Arc<str>>, Vec<Computed>) = plugins
            .iter()
            .flat_map(|step| {
                let names = step.plugin.variables().zip(0..);
                names.map(|(name, idx)| {
                    let computed = Computed {
                        step: step.clone(),
                        idx,
                        is_logged: is_logged(name),
                    };
                    (Arc::from(name), computed)
                })
            })
            .unzip();
        let list = |hook| PluginStep::list(plugins, hook).map(Step::Plugin);
        let steps = |hook| -> Box<[Step]> { list(hook).collect() };
        let reversed = |hook| {
            let mut steps = steps(hook).into_vec();
            steps.reverse();
            steps.into_boxed_slice()
        };
        let content = list(Hook::Content).chain(native.map(Step::Native));
        let last = |hook| -> Box<[PluginStep]> { PluginStep::list(plugins, hook).collect() };
        let (log, after_response) = (last(Hook::Log), last(Hook::AfterResponse));
        Self {
            route,
            upstreams,
            paths: PathPolicy::Normal,
            tunnel: None,
            proxy: None,
            cache: None,
            requests: RequestCounts::default(),
            rewrite: steps(Hook::Rewrite),
            preaccess: steps(Hook::Preaccess),
            access: steps(Hook::Access),
            content: content.collect(),
            request_body: steps(Hook::RequestBody).into(),
            response_headers: reversed(Hook::ResponseHeaders),
            response_body: reversed(Hook::ResponseBody),
            has_last_hooks: !(log.is_empty() && after_response.is_empty() && variables.is_empty()),
            log,
            after_response,
            variables: variables.into(),
            computable: (!computable.is_empty()).then(|| computable.into()),
        }
    }

    /// Native step that makes the content, where the plan has one.
    pub fn native(&self) -> Option<Native> {
        match self.content.last()? {
            Step::Native(native) => Some(*native),
            Step::Plugin(_) | Step::Check(_) => None,
        }
    }

    /// Has this checked before all of the route's plugins.
    pub fn check_first(&mut self, check: Check) {
        let mut steps = std::mem::take(&mut self.rewrite).into_vec();
        steps.insert(0, Step::Check(check));
        self.rewrite = steps.into();
    }

    /// The first list with steps among the phases of a route, from this index on, and its index: the order of phases.
    #[inline]
    pub fn phases(&self, from: usize) -> Option<(usize, Hook, &[Step])> {
        // Four comparisons, where a list of the lists would be built for each look.
        if from == 0 && !self.rewrite.is_empty() {
            return Some((0, Hook::Rewrite, &self.rewrite));
        }
        if from <= 1 && !self.preaccess.is_empty() {
            return Some((1, Hook::Preaccess, &self.preaccess));
        }
        if from <= 2 && !self.access.is_empty() {
            return Some((2, Hook::Access, &self.access));
        }
        match from <= 3 && !self.content.is_empty() {
            true => Some((3, Hook::Content, &self.content)),
            false => None,
        }
    }

    /// `access: token-auth; response_headers: headers, substitute (on_error skip)`.
    pub fn describe(&self) -> String {
        let lists: [(Hook, &[Step]); 7] = [
            (Hook::Rewrite, &self.rewrite),
            (Hook::Preaccess, &self.preaccess),
            (Hook::Access, &self.access),
            (Hook::Content, &self.content),
            (Hook::RequestBody, &self.request_body),
            (Hook::ResponseHeaders, &self.response_headers),
            (Hook::ResponseBody, &self.response_body),
        ];
        let of_plugins = lists.into_iter().map(|(hook, steps)| {
            let steps = steps.iter().filter_map(Step::plugin);
            (hook, steps.map(PluginStep::describe).collect())
        });
        let last = [
            (Hook::Log, &self.log),
            (Hook::AfterResponse, &self.after_response),
        ];
        let last = last.map(|(hook, steps)| {
            let names = steps.iter().map(PluginStep::describe).collect();
            (hook, names)
        });
        let mut described: Vec<String> = of_plugins
            .chain(last)
            .filter(|(_, names): &(Hook, Vec<String>)| !names.is_empty())
            .map(|(hook, names)| format!("{}: {}", hook.name(), names.join(", ")))
            .collect();
        if let Some(cache) = &self.cache {
            described.push(format!("cache: {cache}"));
        }
        if let Some(names) = &self.computable {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            described.push(format!("variable: {}", names.join(", ")));
        }
        described.join("; ")
    }
}
