//! What the code that `#[plugin]` writes calls: between the exported functions and the plugin's own.
//!
//! Public for that code only; no part of the SDK's interface.

use std::cell::RefCell;
use std::thread::LocalKey;
use std::time::Duration;

use castling_abi::{Action, BALANCE_DECLINED, BALANCE_FAILED, Hook, PeerOutcome};

use crate::balance::Peers;
use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::error::{self, Error, Result};
use crate::outcome::Outcome;
use crate::request::Request;
use crate::response::{Reply, Verdict};
use crate::{config as json, host};

pub use std::result::Result::Ok;

/// The plugin of an instance and its per-request state.
pub struct Slot<P, S>(RefCell<Option<Loaded<P, S>>>);

struct Loaded<P, S> {
    plugin: P,
    /// None until a hook asks for it.
    state: Option<S>,
}

impl<P, S> Slot<P, S> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }
}

impl<P, S> Default for Slot<P, S> {
    fn default() -> Self {
        Self::new()
    }
}

type Key<P, S> = &'static LocalKey<Slot<P, S>>;

/// `castling_configure`.
pub fn configure<P, S>(slot: Key<P, S>, build: impl FnOnce(&[u8]) -> Result<P>) -> i32 {
    #[cfg(target_arch = "wasm32")]
    report_panics();
    let built = Buffer::read(0, host::config_get)
        .map_err(|status| error::refusal(format_args!("config"), status))
        .and_then(|json| build(&json));
    match settle(built) {
        Ok(plugin) => {
            slot.with(|slot| {
                slot.0.replace(Some(Loaded {
                    plugin,
                    state: None,
                }))
            });
            Action::Continue as i32
        }
        Err(error) => fail(&error, Action::Failed as i32),
    }
}

/// `castling_state_reset`.
pub fn state_reset<P, S>(slot: Key<P, S>) {
    // Taken out first: dropping it runs the plugin's code.
    let state = slot.with(|slot| {
        slot.0
            .borrow_mut()
            .as_mut()
            .and_then(|loaded| loaded.state.take())
    });
    drop(state);
}

/// Writes the function of a hook whose only parameter is the request and whose result is a verdict.
macro_rules! phase_hooks {
    ($($name:ident = $hook:expr;)+) => {
        $(pub fn $name<P, S: Default>(
            slot: Key<P, S>,
            _: [u32; 3],
            call: impl FnOnce(&mut P, &mut S, &mut Request) -> Result<Verdict>,
        ) -> i32 {
            act($hook, run(slot, |plugin, state| call(plugin, state, &mut Request::new())))
        })+
    };
}

phase_hooks! {
    post_read = Hook::PostRead;
    rewrite = Hook::Rewrite;
    preaccess = Hook::Preaccess;
    access = Hook::Access;
    content = Hook::Content;
}

pub fn response_headers<P, S: Default>(
    slot: Key<P, S>,
    _: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, &Request, &mut Reply) -> Result<Verdict>,
) -> i32 {
    let verdict = run(slot, |plugin, state| {
        call(plugin, state, &Request::new(), &mut Reply::new())
    });
    act(Hook::ResponseHeaders, verdict)
}

pub fn response_body<P, S: Default>(
    slot: Key<P, S>,
    [len, last, _]: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, &Request, &mut Chunk) -> Result<()>,
) -> i32 {
    let mut chunk = Chunk::new(usize::try_from(len).unwrap_or(usize::MAX), last != 0);
    done(run(slot, |plugin, state| {
        call(plugin, state, &Request::new(), &mut chunk)
    }))
}

pub fn request_body<P, S: Default>(
    slot: Key<P, S>,
    [len, last, _]: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, &Request, &mut Chunk) -> Result<Verdict>,
) -> i32 {
    let mut chunk = Chunk::new(usize::try_from(len).unwrap_or(usize::MAX), last != 0);
    let verdict = run(slot, |plugin, state| {
        call(plugin, state, &Request::new(), &mut chunk)
    });
    act(Hook::RequestBody, verdict)
}

pub fn variable<P, S: Default>(
    slot: Key<P, S>,
    [index, _, _]: [u32; 3],
    names: &[&str],
    call: impl FnOnce(&mut P, &mut S, &Request, &str) -> Result<Option<Vec<u8>>>,
) -> i32 {
    let name = usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index));
    let Some(name) = name else {
        let error = Error::msg(format_args!("there is no variable {index}"));
        return fail(&error, Action::Failed as i32);
    };
    let request = Request::new();
    done(run(slot, |plugin, state| {
        if let Some(value) = call(plugin, state, &request, name)? {
            request.set_var(name, value);
        }
        Ok(())
    }))
}

pub fn timer<P, S: Default>(
    slot: Key<P, S>,
    _: [u32; 3],
    call: impl FnOnce(&mut P, &mut S) -> Result<()>,
) -> i32 {
    done(run(slot, |plugin, state| call(plugin, state)))
}

pub fn log<P, S: Default>(
    slot: Key<P, S>,
    _: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, &Request, &Outcome) -> Result<()>,
) -> i32 {
    done(run(slot, |plugin, state| {
        call(plugin, state, &Request::new(), &Outcome::new())
    }))
}

pub fn balance<P, S: Default>(
    slot: Key<P, S>,
    [count, tries, _]: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, &Request, &Peers) -> Result<Option<usize>>,
) -> i32 {
    let peers = Peers::read(count, tries);
    let chosen = run(slot, |plugin, state| {
        call(plugin, state, &Request::new(), &peers)
    });
    match settle(chosen) {
        Ok(Some(peer)) => match i32::try_from(peer).ok().filter(|_| peer < peers.len()) {
            Some(index) => index,
            None => {
                let error =
                    Error::msg(format_args!("balance chose peer {peer} of {}", peers.len()));
                fail(&error, BALANCE_FAILED)
            }
        },
        Ok(None) => BALANCE_DECLINED,
        Err(error) => fail(&error, BALANCE_FAILED),
    }
}

pub fn peer_done<P, S: Default>(
    slot: Key<P, S>,
    [peer, outcome, micros]: [u32; 3],
    call: impl FnOnce(&mut P, &mut S, usize, PeerOutcome, Duration) -> Result<()>,
) -> i32 {
    let Some(outcome) = PeerOutcome::from_raw(outcome) else {
        // A newer host's: nothing that this plugin could judge.
        return Action::Continue as i32;
    };
    let peer = usize::try_from(peer).unwrap_or(usize::MAX);
    let latency = Duration::from_micros(u64::from(micros));
    done(run(slot, |plugin, state| {
        call(plugin, state, peer, outcome, latency)
    }))
}

/// Runs a hook on the instance's plugin. What it returns has still to be [`settle`]d.
#[inline]
fn run<P, S: Default, T>(
    slot: Key<P, S>,
    hook: impl FnOnce(&mut P, &mut S) -> Result<T>,
) -> Result<T> {
    slot.with(|slot| {
        let mut loaded = slot.0.borrow_mut();
        match &mut *loaded {
            Some(Loaded { plugin, state }) => hook(plugin, state.get_or_insert_default()),
            None => Err(not_configured()),
        }
    })
}

#[cold]
#[inline(never)]
fn not_configured() -> Error {
    Error::msg("a hook was called before configure")
}

/// A change that the host refused is an error, even where the hook did not return one.
#[inline]
fn settle<T>(result: Result<T>) -> Result<T> {
    match error::is_noted() {
        true => settle_noted(result),
        false => result,
    }
}

#[cold]
#[inline(never)]
fn settle_noted<T>(result: Result<T>) -> Result<T> {
    let noted = error::take_noted();
    match (result, noted) {
        (Ok(_), Some(refused)) => Err(refused),
        (result, _) => result,
    }
}

#[inline]
fn act(hook: Hook, verdict: Result<Verdict>) -> i32 {
    match verdict {
        Ok(Verdict::Continue) if !error::is_noted() => Action::Continue as i32,
        verdict => act_otherwise(hook, verdict),
    }
}

#[inline(never)]
fn act_otherwise(hook: Hook, verdict: Result<Verdict>) -> i32 {
    let acted = settle(verdict).and_then(|verdict| match verdict {
        Verdict::Continue => Ok(Action::Continue),
        Verdict::Answer(response) => response.hand_over().map(|()| Action::Answer),
        Verdict::Reroute if hook == Hook::Rewrite => Ok(Action::Reroute),
        Verdict::Reroute => Err(Error::msg(format_args!(
            "{} returned Verdict::Reroute, which is for rewrite",
            hook.name()
        ))),
    });
    match acted {
        Ok(action) => action as i32,
        Err(error) => fail(&error, Action::Failed as i32),
    }
}

#[inline]
fn done(result: Result<()>) -> i32 {
    match result {
        Ok(()) if !error::is_noted() => Action::Continue as i32,
        result => done_otherwise(result),
    }
}

#[cold]
#[inline(never)]
fn done_otherwise(result: Result<()>) -> i32 {
    match settle(result) {
        Ok(()) => Action::Continue as i32,
        Err(error) => fail(&error, Action::Failed as i32),
    }
}

#[cold]
#[inline(never)]
fn fail(error: &Error, code: i32) -> i32 {
    host::fail(error.to_string().as_bytes());
    code
}

/// Sends a panic's message and place to the host before it traps.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let text = match info.location() {
            Some(place) => format!("{message} at {place}"),
            None => message.to_owned(),
        };
        host::panicked(text.as_bytes());
    }));
}

/// The config of a plugin that has a `configure`.
pub fn config<C: serde::de::DeserializeOwned>(text: &[u8]) -> Result<C> {
    json::parse(text)
}

/// The config of a plugin that has none.
pub fn no_config(text: &[u8]) -> Result<()> {
    json::parse_none(text)
}

/// The manifest as a static's bytes.
pub const fn section<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = text[i];
        i += 1;
    }
    bytes
}

/// What a hook that decides may return.
#[diagnostic::on_unimplemented(
    message = "a hook that decides cannot return `{Self}`",
    label = "expected `Verdict`, or `()` for `Verdict::Continue`, or a `Result` of one of them"
)]
pub trait IntoVerdict {
    fn into_verdict(self) -> Result<Verdict>;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Result<Verdict> {
        Ok(self)
    }
}

impl IntoVerdict for () {
    fn into_verdict(self) -> Result<Verdict> {
        Ok(Verdict::Continue)
    }
}

impl<T: IntoVerdict, E: Into<Error>> IntoVerdict for Result<T, E> {
    fn into_verdict(self) -> Result<Verdict> {
        self.map_err(Into::into)?.into_verdict()
    }
}

pub fn verdict<T: IntoVerdict>(returned: T) -> Result<Verdict> {
    returned.into_verdict()
}

/// What a hook that only sees or changes may return.
#[diagnostic::on_unimplemented(
    message = "a hook that decides nothing cannot return `{Self}`",
    label = "expected nothing, or a `Result` of `()`"
)]
pub trait IntoUnit {
    fn into_unit(self) -> Result<()>;
}

impl IntoUnit for () {
    fn into_unit(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error>> IntoUnit for Result<(), E> {
    fn into_unit(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

pub fn unit<T: IntoUnit>(returned: T) -> Result<()> {
    returned.into_unit()
}

/// What `variable` may return.
#[diagnostic::on_unimplemented(
    message = "`variable` cannot return `{Self}`",
    label = "expected `Option<String>` or another optional text or bytes (`None`: it has no value), or a `Result` of it"
)]
pub trait IntoValue {
    fn into_value(self) -> Result<Option<Vec<u8>>>;
}

impl<T: Into<Vec<u8>>> IntoValue for Option<T> {
    fn into_value(self) -> Result<Option<Vec<u8>>> {
        Ok(self.map(Into::into))
    }
}

impl<T: Into<Vec<u8>>, E: Into<Error>> IntoValue for Result<Option<T>, E> {
    fn into_value(self) -> Result<Option<Vec<u8>>> {
        Ok(self.map_err(Into::into)?.map(Into::into))
    }
}

pub fn value<T: IntoValue>(returned: T) -> Result<Option<Vec<u8>>> {
    returned.into_value()
}

/// What `balance` may return.
#[diagnostic::on_unimplemented(
    message = "`balance` cannot return `{Self}`",
    label = "expected `Option<usize>` (the peer's index; `None` leaves the choice to the gateway), or a `Result` of it"
)]
pub trait IntoChoice {
    fn into_choice(self) -> Result<Option<usize>>;
}

impl IntoChoice for Option<usize> {
    fn into_choice(self) -> Result<Option<usize>> {
        Ok(self)
    }
}

impl<E: Into<Error>> IntoChoice for Result<Option<usize>, E> {
    fn into_choice(self) -> Result<Option<usize>> {
        self.map_err(Into::into)
    }
}

pub fn choice<T: IntoChoice>(returned: T) -> Result<Option<usize>> {
    returned.into_choice()
}

/// What `configure` may return.
#[diagnostic::on_unimplemented(
    message = "`configure` cannot return `{Self}`",
    label = "expected `Result<Self>` or `Self`"
)]
pub trait IntoPlugin<P> {
    fn into_plugin(self) -> Result<P>;
}

impl<P> IntoPlugin<P> for P {
    fn into_plugin(self) -> Result<P> {
        Ok(self)
    }
}

impl<P, E: Into<Error>> IntoPlugin<P> for Result<P, E> {
    fn into_plugin(self) -> Result<P> {
        self.map_err(Into::into)
    }
}

pub fn plugin<P, T: IntoPlugin<P>>(returned: T) -> Result<P> {
    returned.into_plugin()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Response;
    use crate::testing::{Exchange, FakePeer, with_world};

    #[derive(Default)]
    struct Tail(u32);

    std::thread_local! {
        static PLUGIN: Slot<&'static str, Tail> = const { Slot::new() };
    }

    fn configured() {
        assert_eq!(
            configure(&PLUGIN, |_| Ok("plugin")),
            Action::Continue as i32
        );
    }

    fn failure() -> Option<String> {
        with_world(|world| world.failure.take())
    }

    #[test]
    fn a_config_that_does_not_fit_fails_with_the_key() {
        with_world(|world| world.config = String::from(r#"{"ports": [80, "x"]}"#));
        let code = configure(&PLUGIN, |text| {
            config::<std::collections::BTreeMap<String, Vec<u16>>>(text)?;
            Ok("plugin")
        });
        assert_eq!(code, Action::Failed as i32);
        let text = failure().unwrap();
        assert!(
            text.starts_with("config.ports[1]: invalid type: string"),
            "{text}"
        );
    }

    #[test]
    fn a_hook_before_configure_fails() {
        let code = access(&PLUGIN, [0; 3], |_, _, _| Ok(Verdict::Continue));
        assert_eq!(code, Action::Failed as i32);
        assert_eq!(failure().unwrap(), "a hook was called before configure");
    }

    #[test]
    fn an_answer_is_handed_over() {
        configured();
        let mut exchange = Exchange::get("/");
        exchange.request();
        let answer = || Ok(Response::status(401).header("a", "b").body("no").into());
        assert_eq!(
            access(&PLUGIN, [0; 3], |_, _, _| answer()),
            Action::Answer as i32
        );
        let expected = Some((401, b"\x01\0\x01\0\0\0ab".to_vec(), b"no".to_vec()));
        assert_eq!(exchange.answer(), expected);
    }

    #[test]
    fn an_answer_that_cannot_be_sent_fails() {
        configured();
        for (response, text) in [
            (
                Response::status(99),
                "answer with status 99 and 0 bytes: bad argument",
            ),
            (
                Response::status(200).header("a", "b\r\nc"),
                r#"Response::header("a", "b\r\nc"): bad argument"#,
            ),
        ] {
            let code = content(&PLUGIN, [0; 3], |_, _, _| Ok(response.into()));
            assert_eq!(code, Action::Failed as i32);
            assert_eq!(failure().unwrap(), text);
        }
    }

    #[test]
    fn a_refused_change_fails_the_hook() {
        configured();
        let mut exchange = Exchange::get("/");
        exchange.request();
        let code = rewrite(&PLUGIN, [0; 3], |_, _, request| {
            request.set_path("no-slash");
            request.set_header("x", "later");
            Ok(Verdict::Continue)
        });
        assert_eq!(code, Action::Failed as i32);
        assert_eq!(failure().unwrap(), r#"set_path("no-slash"): bad argument"#);
        assert_eq!(
            access(&PLUGIN, [0; 3], |_, _, _| Ok(Verdict::Continue)),
            Action::Continue as i32
        );
    }

    #[test]
    fn only_rewrite_may_reroute() {
        configured();
        assert_eq!(
            rewrite(&PLUGIN, [0; 3], |_, _, _| Ok(Verdict::Reroute)),
            Action::Reroute as i32
        );
        assert_eq!(
            access(&PLUGIN, [0; 3], |_, _, _| Ok(Verdict::Reroute)),
            Action::Failed as i32
        );
        assert_eq!(
            failure().unwrap(),
            "access returned Verdict::Reroute, which is for rewrite"
        );
    }

    #[test]
    fn balance_returns_an_index_that_exists() {
        configured();
        let mut exchange = Exchange::get("/")
            .peer(FakePeer::at("a:1"))
            .peer(FakePeer::at("b:2").tried());
        exchange.request();
        let choose = |choice: Option<usize>| {
            balance(&PLUGIN, [2, 1, 0], |_, _, _, peers| {
                assert_eq!(peers.tries(), 1);
                assert_eq!(
                    peers.iter().map(|peer| peer.tried).collect::<Vec<_>>(),
                    [false, true]
                );
                assert_eq!(peers.get(1).unwrap().address(), "b:2");
                Ok(choice)
            })
        };
        assert_eq!(choose(Some(1)), 1);
        assert_eq!(choose(None), BALANCE_DECLINED);
        assert_eq!(choose(Some(2)), BALANCE_FAILED);
        assert_eq!(failure().unwrap(), "balance chose peer 2 of 2");
    }

    #[test]
    fn state_lives_until_it_is_reset() {
        configured();
        let count = || {
            let mut seen = 0;
            log(&PLUGIN, [0; 3], |_, tail, _, _| {
                tail.0 += 1;
                seen = tail.0;
                Ok(())
            });
            seen
        };
        assert_eq!([count(), count()], [1, 2]);
        state_reset(&PLUGIN);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_chunk_is_replaced() {
        configured();
        let mut exchange = Exchange::get("/").response(200);
        let out = exchange.pass_chunk("abc", true, |_, chunk| {
            assert_eq!((chunk.data(), chunk.is_last()), (&b"abc"[..], true));
            chunk.replace("defg");
            assert_eq!(chunk.data(), b"abc");
        });
        assert_eq!(out, b"defg");
    }
}
