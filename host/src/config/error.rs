//! Errors of a config, each with its place.

use std::fmt;

/// All errors of one load, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// An error of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `FILE:LINE:COLUMN`, the file as the operator named it; lines and columns (characters) count from 1. `FILE` alone
    /// where the file cannot be read.
    pub place: String,
    /// Says what is wrong and what was expected. A single line.
    pub message: String,
}

impl ConfigErrors {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Errors in the order of the files.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl FromIterator<ConfigError> for ConfigErrors {
    fn from_iter<I: IntoIterator<Item = ConfigError>>(errors: I) -> Self {
        Self(errors.into_iter().collect())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// An error a line, without a newline at the end.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, error) in self.0.iter().enumerate() {
            if idx > 0 {
                writeln!(out)?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigErrors {}

impl std::error::Error for ConfigError {}
