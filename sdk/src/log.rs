//! Lines in the gateway's log, with the plugin's name on them: `log::info!("{} tokens", tokens.len())`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing;
//!
//! let (peer, user) = ("192.0.2.7:80", "Ada L.");
//! log::warn!(user = user, wait_ms = 250; "slow answer from {peer}");
//! let line = r#"slow answer from 192.0.2.7:80 user="Ada L." wait_ms=250"#;
//! assert_eq!(testing::take_log(), [(log::Level::Warn, line.to_owned())]);
//! ```
//!
//! Fields stand before the text, `key = value` with a semicolon after the last. Where the gateway's log is JSON, each is a field of
//! the line, with a text as its value (`"user":"Ada L."`; one that has the name of the gateway's own, `level` say, is
//! `plugin.level`). In a log of text they are written after the line's text; a value that is not one plain word is quoted and
//! escaped.
//!
//! What the gateway's `[log] level` leaves out is not written. Beyond the plugin's `limits.log_lines` a second, lines are
//! dropped and counted; one that is longer than 4096 bytes is cut.

use std::fmt;

use castling_abi::header_list;

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

/// Writes a line with fields: `slow answer user=ada agent="a b"`.
pub fn write_fields(level: Level, line: fmt::Arguments<'_>, fields: &[(&str, &dyn fmt::Display)]) {
    let mut records = Vec::new();
    for (key, value) in fields {
        let value = value.to_string();
        // A field that is too long even for that is left out, as the host would.
        if let Some(head) = header_list::record_head(key.as_bytes(), value.as_bytes()) {
            records.extend_from_slice(&head);
            records.extend_from_slice(key.as_bytes());
            records.extend_from_slice(value.as_bytes());
        }
    }
    host::log_fields(level, line.to_string().as_bytes(), &records);
}

/// A line of the level, with or without fields.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($key:ident = $value:expr),+ $(,)?; $($format:tt)+) => {
        $crate::log::write_fields(
            $crate::log::Level::$level,
            ::core::format_args!($($format)+),
            &[$((::core::stringify!($key), &$value as &dyn ::core::fmt::Display)),+],
        )
    };
    ($level:ident, $($format:tt)+) => {
        $crate::log::write($crate::log::Level::$level, ::core::format_args!($($format)+))
    };
}

/// Work was lost.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($line:tt)+) => { $crate::__log!(Error, $($line)+) };
}

/// An operator should look.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) };
}

/// The life of the plugin.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($line:tt)+) => { $crate::__log!(Info, $($line)+) };
}

/// An event of one request.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) };
}

/// Bytes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) };
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;
    use crate::testing;

    #[test]
    fn fields_follow_the_text_and_are_quoted_where_they_must() {
        log::info!(user = "ada", wait_ms = 250, agent = "a b", odd = "1\n2\"3", empty = ""; "slow {}", "answer");
        log::error!("no fields = {}", 1);
        let lines: Vec<String> = testing::take_log()
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        let slow = r#"slow answer user=ada wait_ms=250 agent="a b" odd="1\n2\"3" empty="""#;
        assert_eq!(lines, [slow, "no fields = 1"]);
    }
}
