//! Where a request carries its token (RFC 6750 §2).

use castling_sdk::prelude::*;

use crate::refusal::{Refusal, invalid};

/// The places that are looked at, in this order.
pub(crate) struct Source {
    pub(crate) header: HeaderName,
    /// Before the token in the header; empty: the token stands alone.
    pub(crate) scheme: String,
    pub(crate) cookie: Option<String>,
    /// A parameter of the query.
    pub(crate) query: Option<String>,
}

impl Source {
    /// The token of the first place that has one. A place that has several is refused: an upstream might look at another
    /// one.
    pub(crate) fn find(&self, request: &Request) -> Result<Option<Vec<u8>>, Refusal> {
        let values = request.header_all(&self.header);
        match values.as_slice() {
            [] => {}
            [value] => {
                if let Some(token) = self.after_scheme(value.as_bytes()) {
                    return Ok(Some(token.to_vec()));
                }
            }
            _ => return Err(SEVERAL),
        }
        if let Some(name) = &self.cookie {
            let fields = request.header_all("cookie");
            let mut values = fields
                .iter()
                .flat_map(|field| field.as_bytes().split(|&byte| byte == b';'))
                .filter_map(|pair| value_of_cookie(pair, name));
            match (values.next(), values.next()) {
                (Some(value), None) => return Ok(Some(value.to_vec())),
                (Some(_), Some(_)) => return Err(SEVERAL),
                (None, _) => {}
            }
        }
        let (Some(name), Some(query)) = (&self.query, request.query()) else {
            return Ok(None);
        };
        let mut values = query.split('&').filter_map(|pair| value_of(pair, name));
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(Some(value.as_bytes().to_vec())),
            (Some(_), Some(_)) => Err(SEVERAL),
            (None, _) => Ok(None),
        }
    }

    /// Keeps upstreams from seeing a token, wherever it is.
    pub(crate) fn remove(&self, request: &mut Request) {
        let values = request.header_all(&self.header);
        if values
            .iter()
            .any(|value| self.after_scheme(value.as_bytes()).is_some())
        {
            request.remove_header(&self.header);
        }
        if let Some(name) = self
            .cookie
            .as_ref()
            .filter(|name| request.cookie(name).is_some())
        {
            let fields = request.header_all("cookie");
            request.remove_header("cookie");
            for field in &fields {
                let is_other = |pair: &&[u8]| {
                    let end = pair.iter().position(|&byte| byte == b'=');
                    pair[..end.unwrap_or(pair.len())].trim_ascii() != name.as_bytes()
                };
                let pairs = field.as_bytes().split(|&byte| byte == b';');
                let others: Vec<&[u8]> = pairs.filter(is_other).map(<[u8]>::trim_ascii).collect();
                if !others.is_empty() {
                    request.add_header("cookie", others.join(&b"; "[..]));
                }
            }
        }
        if let (Some(name), Some(query)) = (&self.query, request.query()) {
            let is_other = |pair: &&str| value_of(pair, name).is_none();
            let others: Vec<&str> = query.split('&').filter(is_other).collect();
            if others.len() < query.split('&').count() {
                request.set_query(others.join("&"));
            }
        }
    }

    /// The token in the header's value; `None` when the scheme is another.
    fn after_scheme<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        if self.scheme.is_empty() {
            return Some(value);
        }
        // RFC 9110 §11.1: the scheme's case does not matter.
        let (given, rest) = value.split_at_checked(self.scheme.len())?;
        let token = rest.strip_prefix(b" ")?;
        given
            .eq_ignore_ascii_case(self.scheme.as_bytes())
            .then(|| token.trim_ascii_start())
    }
}

/// RFC 6265 §5.4: the name's case matters.
fn value_of_cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    (pair[..equals].trim_ascii() == name.as_bytes()).then(|| pair[equals + 1..].trim_ascii())
}

/// Nothing in a token needs to be encoded in a query, so nothing is decoded.
fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    pair.strip_prefix(name)?.strip_prefix('=')
}

const SEVERAL: Refusal = invalid("the request has several tokens");
