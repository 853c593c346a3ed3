//! The access log's format: parsed at load, written for each exchange.

use std::io::Write;

use crate::config::{self, AccessLogFormat};
use crate::exchange::{Exchange, Variable};

/// A parsed format.
pub enum Format {
    Text(Vec<FormatPart>),
    /// Keys in their order, each with the pieces of its value.
    Json(Vec<(String, Vec<FormatPart>)>),
}

pub enum FormatPart {
    Literal(String),
    Time(Time),
    Variable(Variable),
}

/// A form of the time.
#[derive(Clone, Copy)]
pub enum Time {
    Local,
    Iso8601,
}

/// The time as the log writes it, made once a second.
#[derive(Default)]
pub struct Times {
    pub local: String,
    pub iso8601: String,
}

impl Times {
    fn text(&self, form: Time) -> &[u8] {
        match form {
            Time::Local => self.local.as_bytes(),
            Time::Iso8601 => self.iso8601.as_bytes(),
        }
    }
}

impl Format {
    /// The error says what is wrong with it, for a person.
    pub fn parse(format: &AccessLogFormat) -> Result<Self, String> {
        match format {
            AccessLogFormat::Text(text) => parse(text).map(Self::Text),
            AccessLogFormat::Json(fields) => {
                let parsed = fields
                    .iter()
                    .map(|(key, text)| Ok((key.clone(), parse(text)?)));
                parsed.collect::<Result<_, String>>().map(Self::Json)
            }
        }
    }

    /// Whether a variable of plugins stands in it.
    pub fn shows(&self, variable: &str) -> bool {
        let is_it = |piece: &FormatPart| matches!(piece, FormatPart::Variable(Variable::Set(name)) if name == variable);
        match self {
            Self::Text(pieces) => pieces.iter().any(is_it),
            Self::Json(fields) => fields.iter().any(|(_, pieces)| pieces.iter().any(is_it)),
        }
    }

    /// Appends one line.
    pub fn write(&self, line: &mut Vec<u8>, exchange: &Exchange, times: &Times) {
        match self {
            Self::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        FormatPart::Literal(text) => line.extend_from_slice(text.as_bytes()),
                        FormatPart::Time(form) => line.extend_from_slice(times.text(*form)),
                        FormatPart::Variable(variable) => {
                            let start = line.len();
                            match variable.write(line, exchange) {
                                true => escape_from(line, start),
                                false => line.push(b'-'),
                            }
                        }
                    }
                }
            }
            Self::Json(fields) => {
                let mut value = Vec::with_capacity(64);
                line.push(b'{');
                for (idx, (key, pieces)) in fields.iter().enumerate() {
                    if idx > 0 {
                        line.push(b',');
                    }
                    write_json_string(line, key.as_bytes());
                    line.push(b':');
                    write_json_value(line, &mut value, pieces, exchange, times);
                }
                line.push(b'}');
            }
        }
        line.push(b'\n');
    }
}

/// A number where the value is one numeric variable, `null` where the one variable has no value, else a string.
fn write_json_value(
    line: &mut Vec<u8>,
    value: &mut Vec<u8>,
    pieces: &[FormatPart],
    exchange: &Exchange,
    times: &Times,
) {
    value.clear();
    if let [FormatPart::Variable(variable)] = pieces {
        match variable.write(value, exchange) {
            false => line.extend_from_slice(b"null"),
            true if variable.is_number() => line.extend_from_slice(value),
            true => write_json_string(line, value),
        }
        return;
    }
    for piece in pieces {
        match piece {
            FormatPart::Literal(text) => value.extend_from_slice(text.as_bytes()),
            FormatPart::Time(form) => value.extend_from_slice(times.text(*form)),
            FormatPart::Variable(variable) => {
                variable.write(value, exchange);
            }
        }
    }
    write_json_string(line, value);
}

fn write_json_string(line: &mut Vec<u8>, value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(line, &*text);
}

/// Escapes what was written from there on, as nginx: what could end a field or a line, and what is not ASCII, becomes
/// `\xHH`.
fn escape_from(line: &mut Vec<u8>, start: usize) {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    // The loop has no early end, so that the compiler looks at many bytes at once.
    if line[start..]
        .iter()
        .fold(true, |all, &byte| all & is_plain(byte))
    {
        return;
    }
    for byte in line.split_off(start) {
        match is_plain(byte) {
            true => line.push(byte),
            // Writing to a Vec cannot fail.
            false => drop(write!(line, "\\x{byte:02X}")),
        }
    }
}

fn parse(text: &str) -> Result<Vec<FormatPart>, String> {
    let piece = |piece| {
        Ok(match piece {
            config::TemplatePart::Literal(text) => FormatPart::Literal(text.to_owned()),
            config::TemplatePart::Variable("time_local") => FormatPart::Time(Time::Local),
            config::TemplatePart::Variable("time_iso8601") => FormatPart::Time(Time::Iso8601),
            config::TemplatePart::Variable(name) => {
                let variable = Variable::parse(name);
                FormatPart::Variable(
                    variable.ok_or_else(|| format!("`${name}` is no variable's name"))?,
                )
            }
        })
    };
    config::template_parts(text)?
        .into_iter()
        .map(piece)
        .collect()
}

#[cfg(test)]
mod tests {
    use castling_abi::variable::OWN_VARIABLES;

    use super::*;
    use crate::exchange::Stage;

    fn line(format: &AccessLogFormat) -> String {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Log);
        exchange.context_mut().vars.set("user", b"a\"b\n");
        exchange.stats_mut().body_bytes_sent = 5;
        let mut line = Vec::new();
        let times = Times {
            local: "now".to_owned(),
            iso8601: "then".to_owned(),
        };
        Format::parse(format)
            .unwrap()
            .write(&mut line, &exchange, &times);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text_is_escaped_and_what_is_missing_is_a_dash() {
        let format = AccessLogFormat::Text(
            "$$ ${user}x $peer [$time_local] $body_bytes_sent $http_x_a".to_owned(),
        );
        assert_eq!(line(&format), "$ a\\x22b\\x0Ax - [now] 5 -\n");
    }

    #[test]
    fn json_has_numbers_strings_and_nulls() {
        let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let fields = vec![
            field("n", "$body_bytes_sent"),
            field("u", "$user"),
            field("p", "$peer"),
            field("m", "<$peer>"),
        ];
        let line = line(&AccessLogFormat::Json(fields));
        assert_eq!(
            line,
            "{\"n\":5,\"u\":\"a\\\"b\\n\",\"p\":null,\"m\":\"<>\"}\n"
        );
    }

    #[test]
    fn names_of_the_gateways_own_are_no_plugins() {
        let own = OWN_VARIABLES.iter().filter(|own| !own.is_family);
        for name in own
            .map(|own| own.name)
            .chain(["time_local", "time_iso8601"])
        {
            let parts = parse(&format!("${name}")).unwrap();
            let is_set = matches!(&parts[..], [FormatPart::Variable(Variable::Set(_))]);
            assert!(!is_set && parts.len() == 1, "{name}");
        }
    }

    #[test]
    fn a_bad_name_is_told() {
        let parse = |text: &str| {
            Format::parse(&AccessLogFormat::Text(text.to_owned()))
                .err()
                .unwrap_or_default()
        };
        assert!(parse("a ${b").contains("without `}`"));
        assert!(parse("a $ b").contains("`$`"));
        assert!(parse("$User").contains("`$User`"));
    }
}
