//! Texts with `$variables`, made once and written for each exchange.

use super::{Exchange, Variable};
use crate::config::{TemplatePart, template_parts};

/// Such a text.
#[derive(Debug)]
pub struct Template(Box<[Part]>);

#[derive(Debug)]
enum Part {
    Literal(Box<str>),
    Variable(Variable),
}

impl Template {
    /// The error says what is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let part = |part| match part {
            TemplatePart::Literal(text) => Ok(Part::Literal(text.into())),
            TemplatePart::Variable(name) => match Variable::parse(name) {
                Some(variable) => Ok(Part::Variable(variable)),
                None => Err(format!("`${name}` is no variable's name")),
            },
        };
        let parts = template_parts(text)?.into_iter().map(part);
        parts.collect::<Result<_, _>>().map(Self)
    }

    /// Appends it as it reads now; a variable without a value is empty. False: no variable has one.
    pub fn write(&self, out: &mut Vec<u8>, exchange: &Exchange) -> bool {
        let (valued, _) = self.append(out, exchange);
        valued > 0
    }

    /// Appends it as it reads now. False: there is no variable in it, or one without a value.
    pub fn write_whole(&self, out: &mut Vec<u8>, exchange: &Exchange) -> bool {
        let (valued, all) = self.append(out, exchange);
        valued > 0 && valued == all
    }

    /// Number of variables that have a value, and of all.
    fn append(&self, out: &mut Vec<u8>, exchange: &Exchange) -> (usize, usize) {
        let (mut valued, mut all) = (0, 0);
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    let start = out.len();
                    let has_value = variable.write(out, exchange) && out.len() > start;
                    valued += usize::from(has_value);
                    all += 1;
                }
            }
        }
        (valued, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Stage;
    use crate::message::Target;

    #[test]
    fn a_text_is_written_with_what_the_request_has() {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Request);
        exchange.request_mut().target = Target::new("/", Some("user=a%2Fb&user=c&empty="));
        let headers = &mut exchange.request_mut().headers;
        headers.add(&http::header::COOKIE, b"other=1; session=s");
        exchange.context_mut().vars.set("group", b"g");
        for (text, expected) in [
            ("$arg_user", Some("a/b")),
            ("$cookie_session-${group}x", Some("s-gx")),
            ("$arg_empty", None),
            ("$cookie_none", None),
            ("x$$", None),
            ("$method $arg_none", Some("GET ")),
        ] {
            let mut out = Vec::new();
            let has_value = Template::parse(text).unwrap().write(&mut out, &exchange);
            let written = has_value.then(|| String::from_utf8(out).unwrap());
            assert_eq!(written.as_deref(), expected, "{text}");
        }
        let is_whole = |text: &str| {
            let text = Template::parse(text).unwrap();
            text.write_whole(&mut Vec::new(), &exchange)
        };
        assert!(is_whole("$cookie_session-${group}x"));
        assert!(!is_whole("$cookie_none-$group") && !is_whole("x"));
        for bad in ["$", "$arg_", "$cookie_", "$Upper"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
