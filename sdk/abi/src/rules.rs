//! Rules of host calls: which may be made in which hook, with what arguments, and how much of it. The host enforces them, and so does
//! the fake host of the SDK's tests: both ask here.
//!
//! [`Rule`]: one for each call, in [`ALL`]. [`check`]: what names, values and numbers may be. [`limits`]: defaults of a plugin's limits.
//! [`path`]: how paths are read, beside plugins alone. [`usage`]: what a plugin adds to an exchange.

pub mod check;
pub mod host;
pub mod limits;
#[cfg(not(target_arch = "wasm32"))]
// it allocates, and a plugin that does not must not be asked for an allocator
pub mod path;
mod place;
mod table;
pub mod usage;

pub use place::{Hooks, Place, Stage};
pub use table::*;

use crate::{Hook, Status};

/// Rule of a host call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name of the call, as in [`crate::imports`].
    pub name: &'static str,
    /// Type of the function, as it is written in a refusal: `(i32, i32) -> i64`.
    pub signature: &'static str,
    /// Hooks in which it may be made, and at which stages of the exchange.
    pub place: Place,
    /// Status that it has elsewhere.
    pub refused: Status,
    /// The guest is suspended while the host does something for it.
    pub waits: bool,
}

impl Rule {
    const fn new(name: &'static str, signature: &'static str, place: Place) -> Self {
        Self {
            name,
            signature,
            place,
            refused: Status::NotNow,
            waits: false,
        }
    }

    /// A call that reads what is not there elsewhere.
    const fn not_found_elsewhere(self) -> Self {
        Self {
            refused: Status::NotFound,
            ..self
        }
    }

    const fn waiting(self) -> Self {
        Self {
            waits: true,
            ..self
        }
    }

    /// Whether the call may be made in this hook (`None`: in `configure`), at this stage.
    #[inline]
    pub const fn allows(&self, hook: Option<Hook>, stage: Stage) -> bool {
        self.place.allows(hook, stage)
    }
}

#[cfg(test)]
mod tests;
