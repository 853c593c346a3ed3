//! `[access_log]`.

use std::time::Duration;

use super::table::{Table, Value};
use super::tree::NodeKind;
use super::variables::{TemplatePart, set_cookie, template_parts};
use super::{AccessLog, AccessLogFormat, AccessLogTarget};

pub(super) fn resolve(table: Option<Table<'_>>) -> AccessLog {
    let mut log = AccessLog {
        target: AccessLogTarget::Stdout,
        format: combined(),
        flush: Duration::from_millis(100),
    };
    if let Some(mut table) = table {
        log = AccessLog {
            target: table.or("file", log.target, target),
            format: table.or("format", log.format, format),
            flush: table.or("flush", log.flush, |value| {
                value.duration(Duration::ZERO..=Duration::from_secs(60))
            }),
        };
        table.finish();
    }
    log
}

fn target(value: Value<'_>) -> Option<AccessLogTarget> {
    match value.plain_text("\"stdout\", \"off\" or a path")? {
        "stdout" => Some(AccessLogTarget::Stdout),
        "off" => Some(AccessLogTarget::Off),
        _ => value.placed_path().map(AccessLogTarget::File),
    }
}

fn format(value: Value<'_>) -> Option<AccessLogFormat> {
    if let NodeKind::Table(_) = value.kind() {
        let mut table = value.table()?;
        let fields = table.required(
            "json",
            "a table of keys and texts with $variables",
            json_fields,
        );
        table.finish();
        return fields.map(AccessLogFormat::Json);
    }
    match value.plain_text(FORMAT_RULE)? {
        "combined" => Some(combined()),
        "json" => Some(json()),
        // A line that is always the same is a misspelt name.
        text if !text.contains('$') => value.expected(FORMAT_RULE),
        text => variables_known(value, text).map(AccessLogFormat::Text),
    }
}

/// The text, when every `$name` in it can be that of a variable that has a value here.
fn variables_known(value: Value<'_>, text: &str) -> Option<String> {
    let parts = match template_parts(text) {
        Ok(parts) => parts,
        Err(reason) => return value.refuse(format_args!("access_log.format: {reason}")),
    };
    let unknown = parts.iter().find_map(|part| match part {
        TemplatePart::Variable(name) => set_cookie(name).map(|_| name),
        TemplatePart::Literal(_) => None,
    });
    match unknown {
        None => Some(text.to_owned()),
        Some(name) => value.refuse(format_args!(
            "access_log.format: ${name} is for sticky.learn alone: expected \"$sent_http_set_cookie\", which is what the \
             client was sent"
        )),
    }
}

fn json_fields(value: Value<'_>) -> Option<Vec<(String, String)>> {
    let fields: Vec<_> = value
        .table()?
        .values()
        .filter_map(|field| {
            Some((
                field.key().to_owned(),
                variables_known(field, field.text()?)?,
            ))
        })
        .collect();
    if value.node().entries().is_empty() {
        value.expected("at least one key")
    } else {
        Some(fields)
    }
}

/// Format `combined`, as nginx has it.
fn combined() -> AccessLogFormat {
    let line = r#"$client_address - - [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#;
    AccessLogFormat::Text(line.to_owned())
}

fn json() -> AccessLogFormat {
    AccessLogFormat::Json(
        JSON_FIELDS
            .iter()
            .map(|(key, variable)| ((*key).to_owned(), (*variable).to_owned()))
            .collect(),
    )
}

const JSON_FIELDS: [(&str, &str); 17] = [
    ("time", "$time_iso8601"),
    ("client_address", "$client_address"),
    ("method", "$method"),
    ("host", "$host"),
    ("path", "$path"),
    ("query", "$query"),
    ("protocol", "$protocol"),
    ("status", "$status"),
    ("body_bytes_sent", "$body_bytes_sent"),
    ("cut_by", "$cut_by"),
    ("duration", "$duration"),
    ("upstream", "$upstream"),
    ("peer", "$peer"),
    ("upstream_duration", "$upstream_duration"),
    ("route", "$route"),
    ("referer", "$http_referer"),
    ("user_agent", "$http_user_agent"),
];

const FORMAT_RULE: &str =
    "\"combined\", \"json\", one line with $variables or { json = { key = \"$variable\" } }";
