//! Errors of hooks.

use castling_abi::ErrorKind;

use crate::config;
use crate::error::{Error, PluginFault};

/// Reason why a hook gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The guest returned an error. The instance lives on.
    #[error("{said}")]
    Failed {
        said: String,
        /// Kind, which decides what the client is told in its place.
        kind: ErrorKind,
    },
    /// The guest trapped: a panic, a limit, a bad pointer. The instance is gone.
    #[error("{0}")]
    Trapped(String),
    /// All instances are busy, and none became free in time or too many calls wait for one; or other plugins have all that
    /// there are in the worker.
    #[error("{0}")]
    Exhausted(String),
    /// The plugin keeps trapping and is out of service for a while. Told once, when it is taken out.
    #[error("it is out of service, because it keeps trapping")]
    Quarantined,
    /// The request has ended while the guest waited. The instance is gone.
    #[error("{0}")]
    Cancelled(Box<Error>),
}

impl HookError {
    /// A failure of which nothing is known but the text.
    pub(super) fn failed(said: String) -> Self {
        let kind = ErrorKind::Own;
        Self::Failed { said, kind }
    }

    /// Fault of the plugin at its request; the error itself, where it is none of the plugin's.
    pub fn into_fault(self) -> Result<PluginFault, Box<Error>> {
        match self {
            Self::Cancelled(error) => Err(error),
            Self::Exhausted(_) | Self::Quarantined => Ok(PluginFault::Exhausted),
            Self::Trapped(_)
            | Self::Failed {
                kind: ErrorKind::Own,
                ..
            } => Ok(PluginFault::Failed),
            Self::Failed { kind, .. } => Ok(PluginFault::Told(kind)),
        }
    }

    /// Tells the error of a config without its values.
    pub(super) fn without_values(self, config: &str) -> Self {
        let hide = |said: String| config::without_values(config, &said);
        match self {
            Self::Failed { said, kind } => Self::Failed {
                said: hide(said),
                kind,
            },
            Self::Trapped(said) => Self::Trapped(hide(said)),
            Self::Exhausted(_) | Self::Quarantined | Self::Cancelled(_) => self,
        }
    }
}
