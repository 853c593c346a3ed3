//! Paths and queries that are made of what a client has sent.

use super::{EXPECTED_BYTES, Part, Template, extend_with};
use crate::params::encode;
use crate::request::Request;
use crate::response::Reply;

impl Template {
    /// Text for this exchange, in which the values of variables are percent-encoded ([`http::encode`](crate::http::encode)) and the rest
    /// is as it was written: for a path or a query that is made of what a client has sent.
    ///
    /// A segment of the path that values make `.` or `..` becomes empty, so that it does not lead out of the path.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::template::Template;
    /// # use castling_sdk::testing::Exchange;
    /// let target: Template = "/check/$http_x/all?agent=$http_user_agent".parse()?;
    /// let mut exchange = Exchange::get("/").header("user-agent", "a&b=c").header("x", "..");
    /// assert_eq!(target.expand_encoded(exchange.request(), None), "/check//all?agent=a%26b%3Dc");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn expand_encoded(&self, request: &Request, reply: Option<&Reply>) -> String {
        let mut target = Target {
            text: String::with_capacity(EXPECTED_BYTES),
            segment: Some(0),
            has_values: false,
        };
        let mut value = Vec::new();
        for part in &self.0 {
            if let Part::Text(written) = part {
                target.push_written(written);
                continue;
            }
            value.clear();
            extend_with(&mut value, part, request, reply);
            target.push_value(&value);
        }
        target.end_segment();
        target.text
    }
}

/// A path and a query on their way.
struct Target {
    text: String,
    /// Place where the last segment of the path begins; `None` behind the path.
    segment: Option<usize>,
    /// Whether the last segment has something of a value.
    has_values: bool,
}

impl Target {
    fn push_written(&mut self, text: &str) {
        for char in text.chars() {
            if matches!(char, '/' | '?' | '#') {
                self.end_segment();
                self.has_values = false;
                let is_path = char == '/' && self.segment.is_some();
                self.segment = is_path.then_some(self.text.len() + 1);
            }
            self.text.push(char);
        }
    }

    fn push_value(&mut self, value: &[u8]) {
        self.text.push_str(&encode(value));
        self.has_values |= !value.is_empty();
    }

    /// Empties the last segment where values have made it one of dots (RFC 3986 §5.2.4).
    fn end_segment(&mut self) {
        if let Some(start) = self.segment
            && self.has_values
            && matches!(&self.text[start..], "." | "..")
        {
            self.text.truncate(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Exchange;

    #[test]
    fn no_value_walks_out_of_its_path() {
        for (text, expected) in [
            ("/a/$one/b", "/a//b"),
            ("/a/$two/b", "/a//b"),
            ("/a/$two", "/a/"),
            ("/a/$one$one?b", "/a/?b"),
            ("/a/.$one#b", "/a/#b"),
            ("/a/$two$nothing/", "/a//"),
            ("$two/b", "/b"),
            // Others stay, and so does what was written.
            ("/a/../$one$two", "/a/../..."),
            ("/a/x$two/$two.y", "/a/x../...y"),
            ("/a?$two/$two#$one", "/a?../..#."),
            ("/a/$slash", "/a/..%2Fb"),
        ] {
            let mut exchange = Exchange::get("/")
                .var("one", ".")
                .var("two", "..")
                .var("slash", "../b");
            let text: Template = text.parse().unwrap();
            assert_eq!(text.expand_encoded(exchange.request(), None), expected);
        }
    }
}
