//! A request and its response, as plugins may see and change them.
//!
//! It is one box that a connection reuses. The flow lends it to an instance for the time of a hook (two pointers
//! change places) and gets it back whatever happens, so a guest never sees another request's. All in it is `Send`,
//! which wasmtime asks of what a store holds; everything that belongs to the worker stays with the flow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castling_abi::PeerRecord;
use http::{Method, StatusCode};

use crate::message::{HeadRoom, Headers, ReplyHead, RequestHead, Target};
use crate::runtime::clock;
use crate::transport::address::{ClientAddress, ServerAddress};

pub struct Exchange {
    pub request: RequestHead,
    pub reply: ReplyHead,
    /// Decides what may be changed now. Hooks run at one stage after the other, never back.
    stage: Stage,
    /// The client as plugins and logs see it; `post_read` may set its IP address.
    pub client: ClientAddress,
    /// The gateway's end of the client's connection.
    pub server: ServerAddress,
    pub listener: Arc<str>,
    pub route: CachedName,
    pub upstream: CachedName,
    /// The peer that was tried last.
    pub peer: CachedName,
    pub vars: Vars,
    /// Names of the variables that plugins of the route compute, in their plan's order.
    pub computable: Option<Arc<[Arc<str>]>>,
    /// Bits of those whose computing has begun.
    pub computed: u64,
    /// Usage of each plugin, against its limits.
    pub usage: PluginUsage,
    /// Answer that a hook has passed to `answer`; taken when it returns `Action::Answer`.
    pub answer: Option<Answer>,
    /// The chunk that a body hook is called for, and what goes on in its place.
    pub chunk: Bytes,
    /// The hook has said that the body ends with it.
    pub body_ends: bool,
    /// Plugins whose `response_body` hooks do not see the body of this response.
    pub body_skips: Vec<PluginKey>,
    /// The trailers of that body, with its last chunk.
    pub trailers: Headers,
    /// 0 for a client's request, one more for each sub-request around it.
    pub depth: u8,
    pub balancing: Balancing,
    pub stats: ExchangeStats,
    pub cpu_time: CpuTime,
    /// The request line's parts as they came, for the log, once a plugin has changed them.
    original: Option<Box<(Method, Target)>>,
    /// Nothing is left of a request.
    is_clear: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No request: the instance is being configured, or lent to nobody.
    Idle,
    /// The request's head may be read and changed.
    Request,
    /// A peer is being chosen or judged; nothing may be changed.
    Balance,
    /// The response's head may be changed too.
    Reply,
    /// Chunks of the response's body pass by.
    Body,
    /// All is over.
    Log,
}

/// A name of the config, or none. It is kept for the next request, which often has the same: to count a reference up and
/// down takes longer than to compare it.
#[derive(Debug, Default)]
pub struct CachedName {
    text: Option<Arc<str>>,
    is_set: bool,
}

/// A response that a plugin has made.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// Peers that a `balance` hook chooses from.
#[derive(Debug, Default)]
pub struct Balancing {
    pub peers: Vec<PeerRecord>,
    pub addresses: Arc<[Arc<str>]>,
}

/// Figures that the log tells about the exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeStats {
    /// When the request's head was complete.
    pub started: Instant,
    /// From the choice of the first peer to the response's head: begin and end.
    pub upstream: Option<(Instant, Instant)>,
    /// Status of the last peer's response, as the peer has sent it.
    pub upstream_status: Option<StatusCode>,
    pub tries: u32,
    pub body_bytes_sent: u64,
    pub body_bytes_received: u64,
    /// Culprit of a response that ended before its end; see [`crate::error::Error::culprit`].
    pub cut_by: Option<&'static str>,
}

impl Exchange {
    /// An exchange that holds no request yet.
    pub fn idle() -> Box<Self> {
        Box::new(Self {
            request: RequestHead::default(),
            reply: ReplyHead::default(),
            stage: Stage::Idle,
            client: ClientAddress::NOBODY,
            server: ServerAddress::NOBODY,
            listener: Arc::default(), // shared: it takes no allocation
            route: CachedName::default(),
            upstream: CachedName::default(),
            peer: CachedName::default(),
            vars: Vars::default(),
            computable: None,
            computed: 0,
            usage: PluginUsage::default(),
            answer: None,
            chunk: Bytes::new(),
            body_ends: false,
            body_skips: Vec::new(),
            trailers: Headers::new(),
            depth: 0,
            balancing: Balancing::default(),
            stats: ExchangeStats {
                started: Instant::now(),
                upstream: None,
                upstream_status: None,
                tries: 0,
                body_bytes_sent: 0,
                body_bytes_received: 0,
                cut_by: None,
            },
            cpu_time: CpuTime::default(),
            original: None,
            is_clear: true,
        })
    }

    /// Begins with a new request; allocations of the last one are kept.
    pub fn begin(
        &mut self,
        request: RequestHead,
        client: ClientAddress,
        server: ServerAddress,
        listener: &Arc<str>,
    ) {
        if !self.is_clear {
            self.clear();
        }
        self.is_clear = false;
        self.request = request;
        self.stage = Stage::Request;
        self.client = client;
        self.server = server;
        if !Arc::ptr_eq(&self.listener, listener) {
            self.listener = Arc::clone(listener);
        }
        self.stats.started = clock::now();
    }

    /// Lets go of the request and its response, and so of what is a slice of a buffer. Returns the room for the next request's
    /// head.
    pub fn end(&mut self) -> HeadRoom {
        self.clear();
        self.request.take_room()
    }

    fn clear(&mut self) {
        self.request.headers.clear();
        self.reply.status = StatusCode::OK;
        self.reply.headers.clear();
        self.stage = Stage::Idle;
        self.route.unset();
        self.upstream.unset();
        self.peer.unset();
        self.vars.clear();
        self.computable = None;
        self.computed = 0;
        self.usage.clear();
        self.answer = None;
        self.chunk = Bytes::new();
        self.body_ends = false;
        self.body_skips.clear();
        self.trailers.clear();
        self.depth = 0;
        self.stats = ExchangeStats {
            upstream: None,
            upstream_status: None,
            tries: 0,
            body_bytes_sent: 0,
            body_bytes_received: 0,
            cut_by: None,
            ..self.stats
        };
        self.cpu_time.clear();
        self.original = None;
        self.is_clear = true;
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

    /// Begins with something that is no request: only client, listener and times are known.
    pub fn begin_unread(
        &mut self,
        client: ClientAddress,
        server: ServerAddress,
        listener: &Arc<str>,
    ) {
        self.begin(Self::idle().request, client, server, listener);
        self.stage = Stage::Idle;
    }

    /// The index of a variable that a plugin of the route computes, when nothing has asked for it yet.
    pub fn uncomputed(&self, name: &[u8]) -> Option<usize> {
        let mut names = self.computable.as_ref()?.iter();
        let idx = names.position(|computable| computable.as_bytes() == name)?;
        (self.computed & (1 << idx) == 0).then_some(idx)
    }

    /// Another head in the place of the response's; nobody has added anything to it yet.
    pub fn replace_reply(&mut self, status: StatusCode, headers: Headers) {
        self.reply = ReplyHead { status, headers };
        self.usage.forget(Section::ReplyHead);
    }

    /// Appends the request line as the client sent it.
    pub fn write_request_line(&self, out: &mut Vec<u8>) -> bool {
        let (method, target) = match &self.original {
            Some(original) => (&original.0, &original.1),
            None => (&self.request.method, &self.request.target),
        };
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.request.protocol.as_str().as_bytes());
        true
    }
}

impl ExchangeStats {
    /// From the choice of the first peer to the response's head.
    pub fn upstream_took(&self) -> Option<Duration> {
        let (began, ended) = self.upstream?;
        Some(ended.duration_since(began))
    }
}

impl CachedName {
    pub fn set(&mut self, text: &Arc<str>) {
        let is_same = |kept: &Arc<str>| Arc::ptr_eq(kept, text);
        if !self.text.as_ref().is_some_and(is_same) {
            self.text = Some(Arc::clone(text));
        }
        self.is_set = true;
    }

    pub fn unset(&mut self) {
        self.is_set = false;
    }

    pub fn as_deref(&self) -> Option<&str> {
        self.text.as_deref().filter(|_| self.is_set)
    }
}

/// Variables that plugins have set, in the order of their first setting. A request has a handful, so a walk beats a
/// hash.
#[derive(Debug, Default)]
pub struct Vars {
    /// Variables of this request, then room that was an earlier one's.
    entries: Vec<Var>,
    len: usize,
}

#[derive(Debug, Default)]
struct Var {
    name_len: usize,
    /// The name, then the value.
    text: Vec<u8>,
}

/// Bounds of the room that is kept for the next request's variables.
const KEPT_VARS: usize = 16;
const KEPT_VAR_BYTES: usize = 256;

impl Vars {
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let var = &self.entries[self.find(name.as_ref())?];
        Some(&var.text[var.name_len..])
    }

    pub fn set(&mut self, name: impl AsRef<[u8]>, value: &[u8]) {
        let name = name.as_ref();
        match self.find(name) {
            Some(idx) => self.replace(idx, value),
            None => self.add(name, value),
        }
    }

    /// The index of the variable.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let mut vars = self.entries[..self.len].iter();
        vars.position(|var| var.name() == name)
    }

    /// Size of name and value of the variable with this index.
    pub fn size(&self, idx: usize) -> Size {
        Size {
            count: 1,
            bytes: self.entries[idx].text.len(),
        }
    }

    /// Another value for the variable with this index.
    pub fn replace(&mut self, idx: usize, value: &[u8]) {
        let var = &mut self.entries[idx];
        var.text.truncate(var.name_len);
        var.text.extend_from_slice(value);
    }

    /// A variable that [`Self::find`] has not found.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let is_expected = self.expects(name);
        if self.len == self.entries.len() {
            self.entries.push(Var::default());
        }
        let var = &mut self.entries[self.len];
        self.len += 1;
        if is_expected {
            var.text.truncate(var.name_len);
        } else {
            var.name_len = name.len();
            var.text.clear();
            var.text.extend_from_slice(name);
        }
        var.text.extend_from_slice(value);
    }

    /// Whether an earlier request had a variable of that name where the next new one goes: mostly so, as one request sets what
    /// the other does. Its name need not be checked or copied again.
    pub fn expects(&self, name: &[u8]) -> bool {
        let next = self.entries.get(self.len);
        !name.is_empty() && next.is_some_and(|var| var.name() == name)
    }

    pub fn clear(&mut self) {
        for var in &mut self.entries[..self.len] {
            if var.text.capacity() > KEPT_VAR_BYTES {
                *var = Var::default();
            }
        }
        self.len = 0;
        self.entries.truncate(KEPT_VARS);
    }
}

impl Var {
    fn name(&self) -> &[u8] {
        &self.text[..self.name_len]
    }
}

/// Usage of the exchange by each plugin, less what it has taken away. Few plugins add anything, so a walk beats a
/// hash.
#[derive(Debug, Default)]
pub struct PluginUsage(Vec<(PluginKey, [Usage; 3])>);

/// A plugin while the request lasts, which its worker outlives with all of its plugins: where its name is. To count references
/// of the name itself would be two atomic writes a request and plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginKey(usize);

impl PluginKey {
    /// The name must be the plugin's own: one that only reads the same is another's.
    pub fn of(plugin: &Arc<str>) -> Self {
        Self(Arc::as_ptr(plugin).addr())
    }
}

/// A part of the exchange that plugins add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    RequestHead,
    ReplyHead,
    Variables,
}

/// Number of fields or variables, and bytes of their names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub count: usize,
    pub bytes: usize,
}

/// Negative where a plugin has taken away more than it has added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub count: i64,
    pub bytes: i64,
    /// The plugin has changed something there.
    pub changed: bool,
}

impl PluginUsage {
    /// Usage of this section by a plugin.
    #[inline]
    pub fn of(&mut self, plugin: PluginKey, part: Section) -> &mut Usage {
        let known = self.0.iter().position(|(other, _)| *other == plugin);
        let idx = known.unwrap_or_else(|| self.begin(plugin));
        &mut self.0[idx].1[part as usize]
    }

    /// Whether the plugin has changed anything in this part.
    pub fn has_changed(&self, plugin: PluginKey, part: Section) -> bool {
        let mut all = self.0.iter();
        all.any(|(other, added)| *other == plugin && added[part as usize].changed)
    }

    fn begin(&mut self, plugin: PluginKey) -> usize {
        self.0.push((plugin, Default::default()));
        self.0.len() - 1
    }

    fn forget(&mut self, part: Section) {
        for (_, added) in &mut self.0 {
            added[part as usize] = Usage::default();
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// CPU time that the hooks of each plugin have used for the request, as far as the worker's clock has met them.
#[derive(Debug, Default)]
pub struct CpuTime(Vec<(PluginKey, Duration)>);

impl CpuTime {
    /// Returns the plugin's sum.
    pub fn add(&mut self, plugin: PluginKey, used: Duration) -> Duration {
        if let Some((_, sum)) = self.0.iter_mut().find(|(other, _)| *other == plugin) {
            *sum += used;
            return *sum;
        }
        self.0.push((plugin, used));
        used
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Size {
    /// Size of one field or variable.
    pub fn of(name: &[u8], value: &[u8]) -> Self {
        Self {
            count: 1,
            bytes: name.len() + value.len(),
        }
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(extents: I) -> Self {
        extents.fold(Self::default(), |sum, one| Self {
            count: sum.count + one.count,
            bytes: sum.bytes + one.bytes,
        })
    }
}

impl Usage {
    /// When `comes` is there in the place of `goes`.
    #[must_use]
    pub fn after(self, comes: Size, goes: Size) -> Self {
        // Both are in memory, far below these types' range.
        Self {
            count: self.count + comes.count as i64 - goes.count as i64,
            bytes: self.bytes + comes.bytes as i64 - goes.bytes as i64,
            changed: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let mut vars = Vars::default();
        vars.set("user", b"alice");
        vars.set("group", b"");
        vars.set("user", b"bob");
        assert_eq!(vars.get("user"), Some(&b"bob"[..]));
        assert_eq!(vars.get("group"), Some(&b""[..]));
        assert_eq!(vars.get("other"), None);
    }

    #[test]
    fn a_name_that_was_unset_is_none() {
        let [one, other]: [Arc<str>; 2] = [Arc::from("one"), Arc::from("other")];
        let mut name = CachedName::default();
        assert_eq!(name.as_deref(), None);
        for text in [&one, &one, &other] {
            name.set(text);
            assert_eq!(name.as_deref(), Some(&**text));
            name.unset();
            assert_eq!(name.as_deref(), None);
        }
    }

    #[test]
    fn variables_end_with_their_request() {
        let mut vars = Vars::default();
        vars.set("user", b"alice");
        vars.set("long", &[b'x'; KEPT_VAR_BYTES]);
        vars.clear();
        assert_eq!(vars.get("user"), None);
        assert!(vars.expects(b"user"));
        assert!(!vars.expects(b"long"));
        assert!(!vars.expects(b""));
        vars.set("other", b"1");
        assert_eq!(vars.get("other"), Some(&b"1"[..]));
        assert_eq!(vars.get("long"), None);
        assert!(vars.entries[1].text.capacity() <= KEPT_VAR_BYTES);
    }

    #[test]
    fn a_variable_of_each_request_has_the_value_of_this_one() {
        let mut vars = Vars::default();
        for value in [&b"alice"[..], b"bo", b"", b"carol"] {
            assert_eq!(vars.get("user"), None);
            vars.set("user", value);
            assert_eq!(vars.get("user"), Some(value));
            vars.clear();
        }
    }

    #[test]
    fn additions_are_each_plugins_own() {
        let names: [Arc<str>; 2] = [Arc::from("p"), Arc::from("p")];
        let [one, other] = names.each_ref().map(PluginKey::of);
        let mut usage = PluginUsage::default();
        let added = usage.of(one, Section::RequestHead);
        *added = added.after(Size::of(b"x-a", b"12"), Size::default());
        assert_eq!((added.count, added.bytes), (1, 5));
        assert_eq!(*usage.of(one, Section::ReplyHead), Usage::default());
        assert_eq!(*usage.of(other, Section::RequestHead), Usage::default());
        let added = usage.of(one, Section::RequestHead);
        *added = added.after(Size::of(b"x-a", b""), Size::of(b"x-a", b"12"));
        assert_eq!((added.count, added.bytes), (1, 3));
        assert!(usage.has_changed(one, Section::RequestHead));
        assert!(!usage.has_changed(other, Section::RequestHead));
        usage.forget(Section::RequestHead);
        assert_eq!(*usage.of(one, Section::RequestHead), Usage::default());
    }
}
