//! The plugin of an instance: made from the config, and lent to each of its hooks.

use std::any::TypeId;
use std::cell::RefCell;
use std::thread::LocalKey;

use castling_abi::Action;

use super::action::{fail, settle};
use crate::buffer::Buffer;
use crate::error::{self, Error, Result};
use crate::{config as json, host};

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

/// Runs a hook on the instance's plugin. What it returns has still to be [settled](super::action::settle).
#[inline]
pub(super) fn run<P, S: Default, T>(
    slot: Key<P, S>,
    hook: impl FnOnce(&mut P, &mut S) -> Result<T>,
) -> Result<T> {
    slot.with(|slot| {
        let mut loaded = slot.0.borrow_mut();
        match &mut *loaded {
            // Most plugins have no state, and take this way.
            Some(Loaded { plugin, .. }) if TypeId::of::<S>() == TypeId::of::<()>() => {
                hook(plugin, &mut S::default())
            }
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
