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
        let mut has_value = false;
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    let start = out.len();
                    has_value |= variable.write(out, exchange) && out.len() > start;
                }
            }
        }
        has_value
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
        for bad in ["$", "$arg_", "$cookie_", "$Upper"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
