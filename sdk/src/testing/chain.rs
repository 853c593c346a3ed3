//! Whole exchanges: plugins in order, through all phases, with a peer that a test scripts.

mod client;
mod run;

use std::cell::RefCell;
use std::rc::Rc;

use castling_abi::{Action, Hook};

use super::Exchange;
use super::computed::Variable;
use crate::{Response, http};

pub use client::Served;

/// A plugin as [`Chain`] calls it. `#[plugin]` writes it.
pub trait Plugin: Sized + 'static {
    /// The exported functions of the hooks that it implements.
    #[doc(hidden)]
    const HOOKS: &'static [(Hook, HookFunction)];

    /// Variables that it computes.
    #[doc(hidden)]
    const VARIABLES: &'static [&'static str];

    /// The plugin in its instance.
    #[doc(hidden)]
    type Loaded;

    /// Makes an instance's content of it.
    #[doc(hidden)]
    fn load(self) -> Self::Loaded;

    /// Exchanges the instance's content with another.
    #[doc(hidden)]
    fn swap(other: &mut Option<Self::Loaded>);

    /// Forgets the state that the instance holds for a request.
    #[doc(hidden)]
    fn reset();
}

/// The exported function of a hook.
#[doc(hidden)]
pub type HookFunction = extern "C" fn(u32, u32, u32) -> i32;

/// Plugins in the order in which a route lists them, and the peer of its upstream.
///
/// [`Self::send`] takes an exchange through what the gateway takes it through, in its order: `post_read`, `rewrite` (again after
/// `Reroute`), `preaccess`, `access`, `content`; then, unless one has answered, `balance`, `request_body` for each chunk, the peer,
/// `peer_done`; `response_headers` and `response_body` for each chunk, from the last plugin to the first; `log`, `after_response`. A variable is computed by the plugin whose it is when another one asks for it; a
/// plugin that asks for one of its own finds none, as it has one instance here, and what [`declare`](crate::variables::declare) names is not computed. Where a hook fails, the client gets what `on_error = "deny"`
/// has it get.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::{Chain, Exchange};
///
/// #[derive(Default)]
/// struct Gate;
///
/// #[plugin]
/// impl Gate {
///     fn access(&self, request: &mut Request) -> Verdict {
///         match request.header("x-user") {
///             Some(user) => {
///                 request.set_var("user", user);
///                 Verdict::Continue
///             }
///             None => Response::status(401).into(),
///         }
///     }
///
///     fn response_headers(&self, request: &Request, reply: &mut Reply) {
///         if let Some(user) = request.var("user") {
///             reply.set_header("x-seen", user);
///         }
///     }
/// }
///
/// let mut chain = Chain::new()
///     .plugin("gate", Gate)
///     .peer(|request| Response::status(200).body(format!("{} {}", request.method(), request.target())));
/// let served = chain.send(Exchange::get("/a?b").header("x-user", "ada"));
/// assert_eq!((served.status(), served.header("x-seen").unwrap()), (200, &b"ada"[..]));
/// assert_eq!(served.body(), b"GET /a?b");
///
/// let served = chain.send(Exchange::get("/"));
/// assert_eq!((served.status(), served.reached_peer()), (401, false));
/// ```
pub struct Chain {
    pub(super) plugins: Vec<Linked>,
    peer: Option<Peer>,
    /// Pieces that the peer's body comes in, by their lengths; the rest is one more.
    pieces: Vec<usize>,
    /// Pieces of the request's body, likewise.
    upload: Vec<usize>,
}

impl Chain {
    /// A route without plugins, whose peer answers 200 without a body.
    pub fn new() -> Self {
        Self {
            plugins: Vec::new(),
            peer: None,
            pieces: Vec::new(),
            upload: Vec::new(),
        }
    }

    /// Adds a plugin behind those before, by the name that the config would give it.
    #[must_use]
    pub fn plugin<P: Plugin>(mut self, name: &str, plugin: P) -> Self {
        self.plugins.push(Linked::new(name, plugin));
        self
    }

    /// Says what the peer answers.
    #[must_use]
    pub fn peer(mut self, answer: impl FnMut(&http::Request) -> Response + 'static) -> Self {
        self.peer = Some(Box::new(answer));
        self
    }

    /// Has the peer's body come in pieces of these lengths, and one more of what is left; in one piece unless said.
    #[must_use]
    pub fn response_pieces(mut self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.pieces = lengths.into_iter().collect();
        self
    }

    /// Has the request's body, which is that of [`Exchange::body`], be seen in these pieces by `request_body`; in one unless said.
    #[must_use]
    pub fn request_pieces(mut self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.upload = lengths.into_iter().collect();
        self
    }

    /// Takes an exchange through the plugins, to the peer and back.
    pub fn send(&mut self, exchange: Exchange) -> Served {
        run::run(self, exchange)
    }
}

/// Answers requests in the place of a peer.
type Peer = Box<dyn FnMut(&http::Request) -> Response>;

/// Runs a function while a plugin is in its instance.
type Lend = Rc<RefCell<dyn FnMut(&mut dyn FnMut())>>;

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

/// A plugin of a chain.
pub(super) struct Linked {
    name: String,
    hooks: &'static [(Hook, HookFunction)],
    variables: &'static [&'static str],
    /// Runs a function while the plugin is that of its instance.
    lend: Lend,
    reset: fn(),
}

impl Linked {
    fn new<P: Plugin>(name: &str, plugin: P) -> Self {
        let mut own = Some(plugin.load());
        Self {
            name: name.to_owned(),
            hooks: P::HOOKS,
            variables: P::VARIABLES,
            lend: Rc::new(RefCell::new(move |run: &mut dyn FnMut()| {
                P::swap(&mut own);
                run();
                P::swap(&mut own);
            })),
            reset: P::reset,
        }
    }

    /// Variables that the plugin, which is the one with this index, computes.
    fn computed(&self, plugin: usize) -> Vec<Variable> {
        let Some(function) = self.function(Hook::Variable) else {
            return Vec::new();
        };
        let variables = self.variables.iter().zip(0..);
        let variable = |(name, idx): (&&'static str, u32)| {
            let lend = Rc::clone(&self.lend);
            let call = move || {
                let mut raw = 0;
                lend.try_borrow_mut().ok()?(&mut || raw = function(idx, 0, 0));
                Some(action(raw) != Action::Failed)
            };
            Variable {
                name,
                plugin,
                call: Rc::new(call),
                is_computed: false,
            }
        };
        variables.map(variable).collect()
    }

    fn function(&self, hook: Hook) -> Option<HookFunction> {
        let mut hooks = self.hooks.iter();
        hooks
            .find(|(own, _)| *own == hook)
            .map(|(_, function)| *function)
    }
}

/// Action that a hook has returned.
fn action(raw: i32) -> Action {
    Action::from_raw(raw).unwrap_or(Action::Failed)
}
