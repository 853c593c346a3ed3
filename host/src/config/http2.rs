//! `http2` of a listener.

use super::Http2Settings;
use super::table::Value;
use super::tree::NodeKind;

/// `true`, `false`, or a table that says more.
pub(super) fn http2(value: Value<'_>) -> Option<Option<Http2Settings>> {
    if let NodeKind::Boolean(is_on) = value.kind() {
        return Some(is_on.then(Http2Settings::default));
    }
    let NodeKind::Table(_) = value.kind() else {
        return value.expected("true, false or { max_concurrent_streams = 128 }");
    };
    let mut table = value.table()?;
    let usual = Http2Settings::default();
    let streams = table.or(
        "max_concurrent_streams",
        usual.max_concurrent_streams,
        |value| value.integer(1..=10_000),
    );
    let stream_window = table.or("stream_window", usual.stream_window_bytes, |value| {
        value.size(1 << 10..=(1 << 31) - 1)
    });
    let of_all = Http2Settings::with(streams, stream_window);
    let http2 = Http2Settings {
        connection_window_bytes: table.or(
            "connection_window",
            of_all.connection_window_bytes,
            |value| value.size(65_535..=(1 << 31) - 1),
        ),
        ..of_all
    };
    table.finish();
    Some(Some(http2))
}
