//! Errors of hooks.

use crate::config;
use crate::error::Error;

/// Reason why a hook gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The guest returned an error. The instance lives on.
    #[error("{0}")]
    Failed(String),
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
    /// Tells the error of a config without its values.
    pub(super) fn without_values(self, config: &str) -> Self {
        let hide = |said: String| config::without_values(config, &said);
        match self {
            Self::Failed(said) => Self::Failed(hide(said)),
            Self::Trapped(said) => Self::Trapped(hide(said)),
            Self::Exhausted(_) | Self::Quarantined | Self::Cancelled(_) => self,
        }
    }
}
