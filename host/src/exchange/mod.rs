//! A request and its response, as plugins may see and change them.
//!
//! It is one box that a connection reuses. The flow lends it to an instance for the time of a hook (two pointers
//! change places) and gets it back whatever happens, so a guest never sees another request's. All in it is `Send`,
//! which wasmtime asks of what a store holds; everything that belongs to the worker stays with the flow.

mod cached_name;
mod context;
mod peer_facts;
mod permits;
mod plugin_states;
mod stats;
mod template;
mod usage;
mod variable;
mod vars;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::message::{HeadRoom, Headers, KnownHeader, ReplyHead, RequestHead, Target};
use crate::runtime::clock;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::tls::TlsInfo;

pub use castling_abi::rules::Stage;

pub use cached_name::CachedName;
pub use castling_abi::rules::usage::{Size, Usage};
pub use context::{Balancing, Context};
pub use peer_facts::PeerFacts;
pub use permits::Permits;
pub use plugin_states::PluginStates;
pub use stats::ExchangeStats;
pub use template::Template;
pub use usage::{PluginKey, PluginUsage, Section};
pub use variable::Variable;
pub use vars::Vars;

/// An HTTP request and its response: what all protocols have of an exchange ([`Context`]), and the heads.
pub struct Exchange {
    context: Context,
    request: RequestHead,
    reply: ReplyHead,
    stage: Stage,
    route: CachedName,
    /// Answer that a hook has passed to `answer`; taken when it returns `Action::Answer`.
    answer: Option<Answer>,
    body: HookedBody,
    /// The request line's parts as they came, for the log, once a plugin has changed them.
    original: Option<Box<(Method, Target)>>,
    /// The request came with `Authorization`, whatever plugins have made of it.
    has_credentials: bool,
    /// Nothing is left of a request.
    is_clear: bool,
}

/// A response that a plugin has made.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// Parts of a body that its hooks see and change.
#[derive(Debug, Default)]
pub struct HookedBody {
    /// The chunk that a body hook is called for, and what goes on in its place.
    pub chunk: Bytes,
    /// The hook has said that the body ends with it.
    pub ends: bool,
    /// Plugins whose `response_body` hooks do not see the body of this response.
    pub skips: Vec<PluginKey>,
    /// The trailers of that body, with its last chunk.
    pub trailers: Headers,
}

impl Exchange {
    /// An exchange that holds no request yet.
    pub fn idle() -> Box<Self> {
        Box::new(Self {
            context: Context::idle(),
            request: RequestHead::default(),
            reply: ReplyHead::default(),
            stage: Stage::Idle,
            route: CachedName::default(),
            answer: None,
            body: HookedBody::default(),
            original: None,
            has_credentials: false,
            is_clear: true,
        })
    }

    /// Begins with a new request; allocations of the last one are kept. `tls`: of the client's connection, where that is not plain.
    pub fn begin(
        &mut self,
        request: RequestHead,
        client: ClientAddress,
        server: ServerAddress,
        tls: Option<Arc<TlsInfo>>,
        listener: &Arc<str>,
    ) {
        if !self.is_clear {
            self.clear();
        }
        self.is_clear = false;
        self.has_credentials = request.headers.contains(KnownHeader::Authorization);
        self.request = request;
        self.stage = Stage::Request;
        self.context.begin(client, server, listener, clock::now());
        self.context.tls = tls;
    }

    /// An exchange with the same request, from the same client, as it is now.
    pub fn twin(&self) -> Box<Self> {
        let mut twin = Self::idle();
        let Context {
            client,
            server,
            tls,
            listener,
            ..
        } = &self.context;
        let request = self.request.clone();
        twin.begin(request, *client, server.clone(), tls.clone(), listener);
        twin.stage = self.stage;
        twin.has_credentials = self.has_credentials;
        twin.context.depth = self.context.depth;
        twin.context.stats = self.context.stats;
        twin
    }

    /// Begins with something that is no request: only client, listener and times are known.
    pub fn begin_unread(
        &mut self,
        client: ClientAddress,
        server: ServerAddress,
        tls: Option<Arc<TlsInfo>>,
        listener: &Arc<str>,
    ) {
        self.begin(RequestHead::default(), client, server, tls, listener);
        self.stage = Stage::Idle;
    }

    /// The response is out, and hooks go on with it for themselves: what others wait for ends now.
    pub fn leave_client(&mut self) {
        self.context.permits.clear();
        let stats = &mut self.context.stats;
        stats.took = Some(stats.started.elapsed());
    }

    /// Lets go of the request and its response, and so of what is a slice of a buffer. Returns the room for the next request's
    /// head.
    pub fn end(&mut self) -> HeadRoom {
        self.clear();
        self.request.take_room()
    }

    fn clear(&mut self) {
        self.context.clear();
        self.request.headers.clear();
        self.reply.status = StatusCode::OK;
        self.reply.headers.clear();
        self.stage = Stage::Idle;
        self.route.unset();
        self.answer = None;
        self.body.clear();
        self.original = None;
        self.is_clear = true;
    }

    /// Facts of the exchange that are of no protocol.
    #[inline]
    pub fn context(&self) -> &Context {
        &self.context
    }

    #[inline]
    pub fn context_mut(&mut self) -> &mut Context {
        &mut self.context
    }

    #[inline]
    pub fn stats(&self) -> &ExchangeStats {
        &self.context.stats
    }

    #[inline]
    pub fn stats_mut(&mut self) -> &mut ExchangeStats {
        &mut self.context.stats
    }

    /// Whether the request came with `Authorization`: its response may be its user's alone.
    pub fn has_credentials(&self) -> bool {
        self.has_credentials
    }

    #[inline]
    pub fn request(&self) -> &RequestHead {
        &self.request
    }

    /// The request's head, for the gateway's own changes. A guest's go through [`Self::stage`] first.
    #[inline]
    pub fn request_mut(&mut self) -> &mut RequestHead {
        &mut self.request
    }

    #[inline]
    pub fn reply(&self) -> &ReplyHead {
        &self.reply
    }

    /// The response's head, for the gateway's own changes. A guest's go through [`Self::stage`] first.
    #[inline]
    pub fn reply_mut(&mut self) -> &mut ReplyHead {
        &mut self.reply
    }

    /// The request's head, and the context that changes while it is read.
    pub fn parts_mut(&mut self) -> (&RequestHead, &mut Context) {
        (&self.request, &mut self.context)
    }

    /// Both heads, of which the request's is read while the response's is made.
    #[inline]
    pub fn heads_mut(&mut self) -> (&RequestHead, &mut ReplyHead) {
        (&self.request, &mut self.reply)
    }

    /// Fields that a guest may change at this stage, and the context that accounts for it. `None`: not now.
    #[inline]
    pub fn guest_headers_mut(&mut self, part: Section) -> Option<(&mut Headers, &mut Context)> {
        let headers = match (part, self.stage) {
            (Section::RequestHead, Stage::Request) => &mut self.request.headers,
            (Section::ReplyHead, Stage::Reply) => &mut self.reply.headers,
            _ => return None,
        };
        Some((headers, &mut self.context))
    }

    /// Name of the route. `None`: there is none yet.
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    #[inline]
    pub fn set_route(&mut self, route: Option<&Arc<str>>) {
        match route {
            Some(route) => self.route.set(route),
            None => self.route.unset(),
        }
    }

    /// Answer that a hook has made, for when it says that it answers.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    pub fn set_answer(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    pub fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// The body that is with its hooks.
    #[inline]
    pub fn body(&self) -> &HookedBody {
        &self.body
    }

    #[inline]
    pub fn body_mut(&mut self) -> &mut HookedBody {
        &mut self.body
    }

    /// Stage, which decides what may be changed now.
    #[inline]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Moves on to this stage. Never back: what a guest might change before stays closed.
    #[inline]
    pub fn enter(&mut self, stage: Stage) {
        debug_assert!(
            self.stage <= stage,
            "{:?} comes before {stage:?}",
            self.stage
        );
        self.stage = self.stage.max(stage);
    }

    /// Enters a stage before or after the one that it is in: for the rig, which calls hooks in any order.
    pub fn enter_out_of_order(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// To be called before a plugin changes method or target.
    pub fn keep_original(&mut self) {
        let RequestHead { method, target, .. } = &self.request;
        self.original
            .get_or_insert_with(|| Box::new((method.clone(), target.clone())));
    }

    /// Another head in the place of the response's; nobody has added anything to it yet.
    pub fn replace_reply(&mut self, status: StatusCode, headers: Headers) {
        self.reply = ReplyHead { status, headers };
        self.context.usage.forget(Section::ReplyHead);
    }

    /// Appends the request line as the client sent it.
    pub fn write_request_line(&self, out: &mut Vec<u8>) -> bool {
        let (method, target) = match &self.original {
            Some(original) => (&original.0, &original.1),
            None => (&self.request.method, &self.request.target),
        };
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        match self.request.headers.get(KnownHeader::Host) {
            // RFC 9112 §3.2.3: what it is for, which is no path.
            Some(host) if *method == Method::CONNECT => out.extend_from_slice(host),
            _ => out.extend_from_slice(target.as_str().as_bytes()),
        }
        out.push(b' ');
        out.extend_from_slice(self.request.protocol.as_str().as_bytes());
        true
    }
}

impl HookedBody {
    fn clear(&mut self) {
        self.chunk = Bytes::new();
        self.ends = false;
        self.skips.clear();
        self.trailers.clear();
    }
}
