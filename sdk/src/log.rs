//! Lines in the gateway's log, with the plugin's name on them: `log::info!("{} tokens", tokens.len())`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing;
//!
//! let (user, wait_ms) = ("ada", 250);
//! log::warn!("slow answer user={user} wait_ms={wait_ms}");
//! assert_eq!(testing::take_log(), [(log::Level::Warn, "slow answer user=ada wait_ms=250".to_owned())]);
//! ```
//!
//! What the gateway's `[log] level` leaves out is not written. Beyond the plugin's `limits.log_lines` a second, lines are
//! dropped and counted; one that is longer than 4096 bytes is cut.

use std::fmt;

use crate::host;

pub use castling_abi::LogLevel as Level;

#[doc(inline)]
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace,
    __log_warn as warn,
};

/// Writes a line. The macros of this module read better.
pub fn write(level: Level, line: fmt::Arguments<'_>) {
    match line.as_str() {
        Some(text) => host::log(level, text.as_bytes()),
        None => host::log(level, line.to_string().as_bytes()),
    }
}

/// Work was lost.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($format:tt)+) => { $crate::log::write($crate::log::Level::Error, ::core::format_args!($($format)+)) };
}

/// An operator should look.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($format:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($format)+)) };
}

/// The life of the plugin.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($format:tt)+) => { $crate::log::write($crate::log::Level::Info, ::core::format_args!($($format)+)) };
}

/// One event of one request.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($format:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($format)+)) };
}

/// Bytes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($format:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::core::format_args!($($format)+)) };
}
