//! The access log's format: parsed at load, written for each exchange.

use std::io::Write;
use std::time::Duration;

use castling_abi::TlsFact;
use http::HeaderName;

use crate::config::{self, AccessLogFormat};
use crate::exchange::{Exchange, Stage};
use crate::message::KnownHeader;

/// A parsed format.
pub enum Format {
    Text(Vec<FormatPart>),
    /// Keys in their order, each with the pieces of its value.
    Json(Vec<(String, Vec<FormatPart>)>),
}

pub enum FormatPart {
    Literal(String),
    Variable(Variable),
}

/// Variable that a `$name` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    ClientPort,
    Method,
    Host,
    /// Path at the end; plugins may have changed it.
    Path,
    Query,
    /// The request line as the client sent it.
    Request,
    Protocol,
    /// `X-Request-Id` as peers get it.
    RequestId,
    Listener,
    Route,
    Upstream,
    Peer,
    Status,
    BodyBytesSent,
    BodyBytesReceived,
    /// Seconds with milliseconds.
    Duration,
    UpstreamDuration,
    Tries,
    /// Party to blame for a response that ended before its end: `client`, `upstream` or `plugin`.
    CutBy,
    TimeLocal,
    TimeIso8601,
    Pid,
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    Tls(TlsFact),
    /// Set by a plugin.
    Plugin(String),
}

/// The time as the log writes it, made once a second.
#[derive(Default)]
pub struct Times {
    pub local: String,
    pub iso8601: String,
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
        let is_it = |piece: &FormatPart| matches!(piece, FormatPart::Variable(Variable::Plugin(name)) if name == variable);
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
                        FormatPart::Variable(variable) => {
                            let start = line.len();
                            match variable.write(line, exchange, times) {
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
        match variable.write(value, exchange, times) {
            false => line.extend_from_slice(b"null"),
            true if variable.is_number() => line.extend_from_slice(value),
            true => write_json_string(line, value),
        }
        return;
    }
    for piece in pieces {
        match piece {
            FormatPart::Literal(text) => value.extend_from_slice(text.as_bytes()),
            FormatPart::Variable(variable) => {
                variable.write(value, exchange, times);
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

/// True, for the callers' sake.
fn write_number(out: &mut Vec<u8>, number: u64) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    true
}

/// Writes seconds with milliseconds, rounded. Always true, for the callers' sake.
fn write_seconds(out: &mut Vec<u8>, took: Duration) -> bool {
    let millis = (took + Duration::from_micros(500)).as_millis();
    let [thousands, rest] = [millis / 1000, millis % 1000].map(|n| u64::try_from(n).unwrap_or(0));
    write_number(out, thousands);
    out.push(b'.');
    for divisor in [100, 10, 1] {
        out.push(b"0123456789"[(rest / divisor % 10) as usize]);
    }
    true
}

fn parse(text: &str) -> Result<Vec<FormatPart>, String> {
    let piece = |piece| {
        Ok(match piece {
            config::TemplatePart::Literal(text) => FormatPart::Literal(text.to_owned()),
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

impl Variable {
    fn parse(name: &str) -> Option<Self> {
        let header = |name: &str| name.replace('_', "-").parse::<HeaderName>().ok();
        Some(match name {
            "client_address" => Self::ClientAddress,
            "client_port" => Self::ClientPort,
            "method" => Self::Method,
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "request" => Self::Request,
            "protocol" => Self::Protocol,
            "request_id" => Self::RequestId,
            "listener" => Self::Listener,
            "route" => Self::Route,
            "upstream" => Self::Upstream,
            "peer" => Self::Peer,
            "status" => Self::Status,
            "body_bytes_sent" => Self::BodyBytesSent,
            "body_bytes_received" => Self::BodyBytesReceived,
            "duration" => Self::Duration,
            "upstream_duration" => Self::UpstreamDuration,
            "tries" => Self::Tries,
            "cut_by" => Self::CutBy,
            "time_local" => Self::TimeLocal,
            "time_iso8601" => Self::TimeIso8601,
            "pid" => Self::Pid,
            _ => {
                if let Some(name) = name.strip_prefix("http_") {
                    Self::RequestHeader(header(name)?)
                } else if let Some(name) = name.strip_prefix("sent_http_") {
                    Self::ResponseHeader(header(name)?)
                } else if let Some(fact) = TlsFact::from_name(name) {
                    Self::Tls(fact)
                } else {
                    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    let is_name = matches!(name.len(), 1..=64) && name.chars().all(valid);
                    is_name.then(|| Self::Plugin(name.to_owned()))?
                }
            }
        })
    }

    fn is_number(&self) -> bool {
        matches!(
            self,
            Self::ClientPort
                | Self::Status
                | Self::BodyBytesSent
                | Self::BodyBytesReceived
                | Self::Duration
                | Self::UpstreamDuration
                | Self::Tries
                | Self::Pid
        )
    }

    /// Whether the variable has no value where no request could be read.
    fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::Method | Self::Host | Self::Path | Self::Query | Self::Request | Self::Protocol
        )
    }

    /// Appends its value; false when it has none.
    fn write(&self, out: &mut Vec<u8>, exchange: &Exchange, times: &Times) -> bool {
        if exchange.stage() == Stage::Idle && self.is_of_request() {
            return false;
        }
        let request = exchange.request();
        let stats = &exchange.stats();
        let value: Option<&[u8]> = match self {
            Self::ClientAddress => {
                out.extend_from_slice(exchange.context().client.host().bytes());
                return true;
            }
            Self::ClientPort => {
                let port = exchange.context().client.port();
                return port.is_some_and(|port| write_number(out, port.into()));
            }
            Self::Status => return write_number(out, exchange.reply().status.as_u16().into()),
            Self::BodyBytesSent => return write_number(out, stats.body_bytes_sent),
            Self::BodyBytesReceived => return write_number(out, stats.body_bytes_received),
            Self::Duration => return write_seconds(out, stats.started.elapsed()),
            Self::UpstreamDuration => {
                return stats
                    .upstream_took()
                    .is_some_and(|took| write_seconds(out, took));
            }
            Self::Tries => return write_number(out, stats.tries.into()),
            Self::Pid => return write_number(out, std::process::id().into()),
            Self::Request => return exchange.write_request_line(out),
            Self::Method => Some(request.method.as_str().as_bytes()),
            Self::Host => request.headers.get(KnownHeader::Host),
            Self::Path => Some(request.target.path().as_bytes()),
            Self::Query => request.target.query().map(str::as_bytes),
            Self::Protocol => Some(exchange.request().protocol.as_str().as_bytes()),
            Self::RequestId => request.headers.get(KnownHeader::XRequestId),
            Self::Listener => Some(exchange.context().listener.as_bytes()),
            Self::Route => exchange.route().map(str::as_bytes),
            Self::Upstream => exchange.context().upstream.as_deref().map(str::as_bytes),
            Self::Peer => exchange.context().peer.as_deref().map(str::as_bytes),
            Self::CutBy => stats.cut_by.map(str::as_bytes),
            Self::TimeLocal => Some(times.local.as_bytes()),
            Self::TimeIso8601 => Some(times.iso8601.as_bytes()),
            Self::RequestHeader(name) => request.headers.get(name),
            Self::ResponseHeader(name) => exchange.reply().headers.get(name),
            Self::Tls(fact) => {
                let tls = exchange.context().tls.as_ref();
                tls.and_then(|tls| tls.fact(*fact)).map(str::as_bytes)
            }
            Self::Plugin(name) => exchange.context().vars.get(name),
        };
        match value {
            Some(value) => {
                out.extend_from_slice(value);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

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
