//! The plugin of an instance: made from the config, and lent to each of its hooks.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::thread::LocalKey;

use bytemuck::Pod;
use castling_abi::Action;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::action::{fail, settle};
use super::state;
use crate::buffer::Buffer;
use crate::error::{self, Error, Result};
use crate::{config as json, host};

/// The plugin of an instance, and the state of the request that the instance is kept for.
pub struct Slot<P, S>(RefCell<Option<Loaded<P, S>>>);

/// The plugin of an instance, with its state.
#[cfg_attr(
    target_arch = "wasm32",
    allow(unreachable_pub, reason = "for chains in tests")
)]
pub struct Loaded<P, S> {
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

pub(super) type Key<P, S> = &'static LocalKey<Slot<P, S>>;

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

/// Makes an instance's content of a plugin, for chains of plugins in tests.
#[cfg(not(target_arch = "wasm32"))]
pub fn load<P, S>(plugin: P) -> Loaded<P, S> {
    Loaded {
        plugin,
        state: None,
    }
}

/// Exchanges the instance's content with another.
#[cfg(not(target_arch = "wasm32"))]
pub fn swap<P, S>(slot: Key<P, S>, other: &mut Option<Loaded<P, S>>) {
    slot.with(|slot| std::mem::swap(&mut *slot.0.borrow_mut(), other));
}

/// Way of a hook to its plugin and to the state of its request.
pub trait Access {
    type Plugin;
    type State;

    /// Runs a hook. What it returns has still to be [settled](super::action::settle).
    fn run<T>(
        self,
        hook: impl FnOnce(&mut Self::Plugin, &mut Self::State) -> Result<T>,
    ) -> Result<T>;
}

/// Hook without state.
pub struct Stateless<P: 'static, S: 'static>(Key<P, S>);

/// Hook whose state lies in the instance, which serves no other request until this one is over.
pub struct InInstance<P: 'static, S: 'static>(Key<P, S>);

/// Hook whose state the host keeps for the request, as bytes.
pub struct InRequest<P: 'static, S>(Key<P, ()>, PhantomData<S>);

/// Hook whose state the host keeps for the request, as it lies in memory.
pub struct InRequestPlain<P: 'static, S>(Key<P, ()>, PhantomData<S>);

pub fn stateless<P, S>(slot: Key<P, S>) -> Stateless<P, S> {
    Stateless(slot)
}

pub fn in_instance<P, S: Default>(slot: Key<P, S>) -> InInstance<P, S> {
    InInstance(slot)
}

pub fn in_request<P, S: Default + Serialize + DeserializeOwned>(
    slot: Key<P, ()>,
) -> InRequest<P, S> {
    InRequest(slot, PhantomData)
}

pub fn in_request_plain<P, S: Default + Pod>(slot: Key<P, ()>) -> InRequestPlain<P, S> {
    InRequestPlain(slot, PhantomData)
}

impl<P, S> Access for Stateless<P, S> {
    type Plugin = P;
    type State = ();

    #[inline]
    fn run<T>(self, hook: impl FnOnce(&mut P, &mut ()) -> Result<T>) -> Result<T> {
        lend(self.0, |loaded| hook(&mut loaded.plugin, &mut ()))
    }
}

impl<P, S: Default> Access for InInstance<P, S> {
    type Plugin = P;
    type State = S;

    #[inline]
    fn run<T>(self, hook: impl FnOnce(&mut P, &mut S) -> Result<T>) -> Result<T> {
        lend(self.0, |Loaded { plugin, state }| {
            hook(plugin, state.get_or_insert_default())
        })
    }
}

impl<P, S: Default + Serialize + DeserializeOwned> Access for InRequest<P, S> {
    type Plugin = P;
    type State = S;

    #[inline]
    fn run<T>(self, hook: impl FnOnce(&mut P, &mut S) -> Result<T>) -> Result<T> {
        lend(self.0, |loaded| {
            state::with(|state| hook(&mut loaded.plugin, state))
        })
    }
}

impl<P, S: Default + Pod> Access for InRequestPlain<P, S> {
    type Plugin = P;
    type State = S;

    #[inline]
    fn run<T>(self, hook: impl FnOnce(&mut P, &mut S) -> Result<T>) -> Result<T> {
        lend(self.0, |loaded| {
            state::with_plain(|state| hook(&mut loaded.plugin, state))
        })
    }
}

/// Lends the instance's plugin.
#[cfg(target_arch = "wasm32")]
#[inline]
fn lend<P, S, T>(slot: Key<P, S>, hook: impl FnOnce(&mut Loaded<P, S>) -> Result<T>) -> Result<T> {
    slot.with(|slot| match &mut *slot.0.borrow_mut() {
        Some(loaded) => hook(loaded),
        None => Err(not_configured()),
    })
}

/// Lends the instance's plugin. It is taken out meanwhile, as another plugin of its type may run while it waits: one that computes a
/// variable.
#[cfg(not(target_arch = "wasm32"))]
fn lend<P, S, T>(slot: Key<P, S>, hook: impl FnOnce(&mut Loaded<P, S>) -> Result<T>) -> Result<T> {
    let mut loaded = slot.with(|slot| slot.0.take()).ok_or_else(not_configured)?;
    let result = hook(&mut loaded);
    slot.with(|slot| slot.0.replace(Some(loaded)));
    result
}

#[cold]
#[inline(never)]
fn not_configured() -> Error {
    Error::msg("a hook was called before configure")
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
pub fn config<C: DeserializeOwned>(text: &[u8]) -> Result<C> {
    json::parse(text)
}

/// The config of a plugin that has none.
pub fn no_config(text: &[u8]) -> Result<()> {
    json::parse_none(text)
}
