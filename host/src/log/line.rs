//! How an event of `tracing` becomes a line, in both formats. A plugin's own fields come as one field, a JSON object, and are fields
//! of the line like the others.

use std::fmt::{self, Debug};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::wasm::PLUGIN_FIELDS;

/// Fields as text: `slow answer plugin="auth" user="Ada L." wait_ms=250`.
pub struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = Apart {
            others: DefaultVisitor::new(writer.by_ref(), true),
            of_plugin: None,
        };
        fields.record(&mut visitor);
        let Apart { others, of_plugin } = visitor;
        others.finish()?;
        for (key, value) in of_plugin.iter().flatten() {
            match value.as_str() {
                Some(text) if is_plain(text) => write!(writer, " {key}={text}")?,
                _ => write!(writer, " {key}={value}")?,
            }
        }
        Ok(())
    }
}

/// A value that needs no quotes to be told from what follows.
fn is_plain(text: &str) -> bool {
    let ends_a_value =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
    !text.is_empty() && !text.contains(ends_a_value)
}

/// Passes on all fields but those of a plugin.
struct Apart<'writer> {
    others: DefaultVisitor<'writer>,
    of_plugin: Option<Map<String, Value>>,
}

impl Visit for Apart<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            PLUGIN_FIELDS => self.of_plugin = of_plugin(value),
            _ => self.others.record_debug(field, value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.others.record_error(field, value);
    }
}

fn of_plugin(value: &dyn Debug) -> Option<Map<String, Value>> {
    serde_json::from_str(&format!("{value:?}")).ok()
}

/// A line that is a JSON object: time, level, message and fields, in this order.
pub struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Object(String::from("{"));
        line.add("timestamp", &time);
        line.add("level", event.metadata().level().as_str());
        event.record(&mut line);
        writeln!(writer, "{}}}", line.0)
    }
}

/// A JSON object without its end.
struct Object(String);

impl Object {
    fn add(&mut self, key: &str, value: impl Serialize) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Neither a text nor a number can fail.
        self.0 += &serde_json::to_string(key).unwrap_or_default();
        self.0.push(':');
        self.0 += &serde_json::to_string(&value).unwrap_or_default();
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != PLUGIN_FIELDS {
            return self.add(field.name(), format!("{value:?}"));
        }
        for (key, value) in of_plugin(value).unwrap_or_default() {
            match GATEWAYS_OWN.contains(&key.as_str()) {
                true => self.add(&format!("plugin.{key}"), value),
                false => self.add(&key, value),
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }
}

/// Keys of the gateway, which a plugin's line has, too: a plugin's own of that name are `plugin.NAME`.
const GATEWAYS_OWN: [&str; 4] = ["timestamp", "level", "message", "plugin"];
