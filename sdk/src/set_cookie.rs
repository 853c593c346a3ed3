//! Cookies that a response sets.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// A cookie to be set (RFC 6265 §4.1, with RFC 6265bis' `SameSite` and prefixes): the value of a `Set-Cookie` field, by
/// [`Reply::set_cookie`](crate::Reply::set_cookie) or [`Response::set_cookie`](crate::Response::set_cookie).
///
/// ```
/// # use castling_sdk::prelude::*;
/// let cookie = SetCookie::new("session", "31d4")?
///     .path("/")
///     .max_age(Duration::from_secs(3600))
///     .secure()
///     .http_only()
///     .same_site(SameSite::Lax);
/// assert_eq!(cookie.to_string(), "session=31d4; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    name: String,
    value: String,
    path: Option<String>,
    domain: Option<String>,
    max_age: Option<Duration>,
    is_secure: bool,
    is_http_only: bool,
    same_site: Option<SameSite>,
}

/// Requests of other sites that a cookie goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Links that are followed.
    Lax,
    /// All; browsers take it with [`SetCookie::secure`] only.
    None,
}

impl SetCookie {
    /// A cookie until the browser ends. Fails where the name is no token, or the value has a space, a quote, a comma, a semicolon, a
    /// backslash or what is not ASCII: encode such values, by [`http::encode`](crate::http::encode) say.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        if !crate::header::is_name(name.as_bytes()) {
            let name = name.escape_debug();
            return Err(Error::msg(format_args!(
                "cookie \"{name}\": expected a token"
            )));
        }
        let is_octet =
            |byte: u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
        if !value.bytes().all(is_octet) {
            // Without the value, which may be a secret.
            return Err(Error::msg(format_args!(
                "cookie {name}: expected a value without spaces, quotes, commas, semicolons and backslashes"
            )));
        }
        Ok(Self {
            name,
            value,
            path: None,
            domain: None,
            max_age: None,
            is_secure: false,
            is_http_only: false,
            same_site: None,
        })
    }

    /// A cookie that has the browser forget the one of this name, path and domain.
    pub fn removal(name: impl Into<String>) -> Result<Self> {
        Ok(Self::new(name, "")?.max_age(Duration::ZERO))
    }

    /// Paths that it goes with: this one and those below. Default: the request's, up to its last `/`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Domain that it goes with, all below included. Default: the request's host alone.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Time after which it is forgotten, in whole seconds.
    #[must_use]
    pub const fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// With HTTPS only.
    #[must_use]
    pub const fn secure(mut self) -> Self {
        self.is_secure = true;
        self
    }

    /// Out of scripts' reach.
    #[must_use]
    pub const fn http_only(mut self) -> Self {
        self.is_http_only = true;
        self
    }

    /// Requests of other sites that it goes with. Default: as the browser has it, which is mostly [`SameSite::Lax`].
    #[must_use]
    pub const fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// The field's value. Fails where browsers would not take the cookie, or take it for another.
    pub(crate) fn field(&self) -> Result<String> {
        let is_plain = |text: &String| {
            text.bytes()
                .all(|byte| byte != b';' && (b' '..=b'~').contains(&byte))
        };
        let parts = [("path", &self.path), ("domain", &self.domain)];
        for (part, text) in parts
            .into_iter()
            .filter_map(|(part, text)| Some((part, text.as_ref()?)))
        {
            if !is_plain(text) {
                return Err(self.refused(format_args!(
                    "{part}: expected no semicolon and printable ASCII"
                )));
            }
        }
        let is_at_root = self.path.as_deref() == Some("/");
        let is_host = self.has_prefix("__Host-");
        if is_host && !(self.is_secure && is_at_root && self.domain.is_none()) {
            return Err(self.refused(format_args!(
                "__Host-: expected secure, path(\"/\") and no domain"
            )));
        }
        if (self.has_prefix("__Secure-") || self.same_site == Some(SameSite::None))
            && !self.is_secure
        {
            return Err(self.refused(format_args!("expected secure")));
        }
        Ok(self.to_string())
    }

    fn has_prefix(&self, prefix: &str) -> bool {
        let begin = self.name.get(..prefix.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    }

    fn refused(&self, why: fmt::Arguments<'_>) -> Error {
        Error::msg(format_args!("cookie {}: {why}", self.name))
    }
}

impl fmt::Display for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)?;
        if let Some(path) = &self.path {
            write!(f, "; Path={path}")?;
        }
        if let Some(domain) = &self.domain {
            write!(f, "; Domain={domain}")?;
        }
        if let Some(max_age) = self.max_age {
            write!(f, "; Max-Age={}", max_age.as_secs())?;
        }
        if self.is_secure {
            f.write_str("; Secure")?;
        }
        if self.is_http_only {
            f.write_str("; HttpOnly")?;
        }
        match self.same_site {
            None => Ok(()),
            Some(SameSite::Strict) => f.write_str("; SameSite=Strict"),
            Some(SameSite::Lax) => f.write_str("; SameSite=Lax"),
            Some(SameSite::None) => f.write_str("; SameSite=None"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_is_none_is_refused() {
        for (name, value) in [
            ("", "a"),
            ("a b", "a"),
            ("a=", "a"),
            ("a", "b;c"),
            ("a", "b c"),
            ("a", "ä"),
            ("a", "\r"),
        ] {
            let error = SetCookie::new(name, value).unwrap_err().to_string();
            assert!(error.starts_with("cookie "), "{error}");
        }
        let cookie = |name: &str| SetCookie::new(name, "a").unwrap();
        for (cookie, said) in [
            (cookie("a").path("/;Domain=b"), "path"),
            (cookie("a").domain("b\r\n"), "domain"),
            (cookie("a").same_site(SameSite::None), "expected secure"),
            (cookie("__Secure-a"), "expected secure"),
            (cookie("__host-a").secure().path("/").domain("a"), "__Host-"),
            (cookie("__Host-a").secure(), "__Host-"),
        ] {
            let error = cookie.field().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let good = cookie("__Host-a").secure().path("/").field().unwrap();
        assert_eq!(good, "__Host-a=a; Path=/; Secure");
        assert_eq!(
            SetCookie::removal("a").unwrap().field().unwrap(),
            "a=; Max-Age=0"
        );
    }
}
