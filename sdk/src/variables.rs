//! Variables that a plugin's config names: the plugin says in `configure` which there are, and its `variable` hook computes them.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::Exchange;
//! use castling_sdk::variables;
//!
//! /// Initials of headers, as the config has it: `{ "initial": "x-user" }` makes `$initial`.
//! struct Initials(std::collections::BTreeMap<String, HeaderName>);
//!
//! #[plugin(variables = "declared")]
//! impl Initials {
//!     fn configure(config: std::collections::BTreeMap<String, HeaderName>) -> Result<Self> {
//!         for name in config.keys() {
//!             variables::declare(name)?;
//!         }
//!         Ok(Self(config))
//!     }
//!
//!     fn variable(&self, request: &Request, name: &str) -> Option<String> {
//!         let value = request.header(self.0.get(name)?)?.to_string_lossy().into_owned();
//!         value.chars().next().map(String::from)
//!     }
//! }
//!
//! let plugin = Initials::configure([("initial".to_owned(), HeaderName::new("x-user")?)].into())?;
//! let mut exchange = Exchange::get("/").header("x-user", "ada");
//! assert_eq!(plugin.variable(exchange.request(), "initial").as_deref(), Some("a"));
//! # Ok::<(), Error>(())
//! ```

use std::cell::RefCell;

use castling_abi::Status;
use castling_abi::variable::OwnVariable;

use crate::buffer::status;
use crate::error::{self, Result};
use crate::{bail, host};

thread_local! {
    /// Names by the index that the host calls the hook with.
    static DECLARED: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
}

/// Says that the plugin's `variable` hook computes `$name`, when something asks for it, as those of `#[plugin(variables = [...])]`.
/// In `configure` only. Fails where the name is none ([`template::is_settable`](crate::template::is_settable)) or was declared before, and
/// beyond 64 of one plugin ([`Error::is_limit`](crate::Error::is_limit)): the plugins of one route compute no more.
pub fn declare(name: &str) -> Result<()> {
    let index = host::variable_declare(name.as_bytes());
    if let Ok(index) = u32::try_from(index) {
        DECLARED.with_borrow_mut(|declared| {
            // A test configures one plugin after the other.
            declared.retain(|(it, _)| *it != index);
            declared.push((index, name.to_owned()));
        });
        return Ok(());
    }
    match status(index) {
        Status::BadArgument if OwnVariable::of(name).is_some() => {
            bail!("variable `{name}`: it is one of the gateway's own")
        }
        Status::BadArgument if crate::template::is_settable(name) => {
            bail!("variable `{name}`: it is declared twice")
        }
        Status::BadArgument => bail!("variable `{name}`: expected 1 to 64 of a-z 0-9 _"),
        refused => Err(error::refusal(
            format_args!("variables::declare({name:?})"),
            refused,
        )),
    }
}

/// The name that was declared with this index.
pub(crate) fn declared(index: u32) -> Option<String> {
    DECLARED.with_borrow(|declared| {
        let mut names = declared.iter();
        names
            .find(|(it, _)| *it == index)
            .map(|(_, name)| name.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_config_and_none_twice() {
        declare("country").unwrap();
        declare("city").unwrap();
        assert_eq!(declared(1).as_deref(), Some("city"));
        assert_eq!(declared(2), None);
        for (name, why) in [
            ("city", "declared twice"),
            ("host", "one of the gateway's own"),
            ("City", "expected 1 to 64 of a-z 0-9 _"),
        ] {
            let refused = declare(name).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        for idx in 2..64 {
            declare(&format!("v{idx}")).unwrap();
        }
        assert!(declare("v64").unwrap_err().is_limit());
    }
}
