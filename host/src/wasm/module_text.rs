//! Text that comes from a module: names of its functions, imports and exports, its manifest, its log lines and panics. It is
//! escaped and cut here, and nowhere else, before it meets a log or a terminal.

use serde::{Deserialize, Deserializer};

/// Name of something of a module's, escaped: at most [`MAX_NAME_BYTES`] of it.
pub fn name(name: &str) -> String {
    escaped(name, MAX_NAME_BYTES)
}

/// Log line, error or panic message, escaped: at most [`MAX_TEXT_BYTES`] of it.
pub fn text(text: &str) -> String {
    escaped(text, MAX_TEXT_BYTES)
}

/// First names of a list, divided by spaces, which a name cannot have; and how many more there are.
pub fn list(names: &[String]) -> String {
    let first = names.iter().take(MAX_NAMES);
    let mut text: Vec<String> = first.map(|n| name(n).replace(' ', "\\u{20}")).collect();
    if let more @ 1.. = names.len().saturating_sub(MAX_NAMES) {
        text.push(format!("and {more} more"));
    }
    text.join(" ")
}

/// Frames of a backtrace, a line each.
pub(super) fn backtrace(backtrace: &wasmtime::WasmBacktrace) -> String {
    let frames = backtrace.frames();
    let is_plain = |name: Option<&str>| name.is_none_or(|name| !name.contains(is_escaped));
    let are_plain = frames.iter().all(|frame| {
        let mut symbols = frame.symbols().iter();
        is_plain(frame.func_name())
            && is_plain(frame.module().name())
            && symbols.all(|symbol| is_plain(symbol.name()) && is_plain(symbol.file()))
    });
    // wasmtime demangles names, but writes them as they are: only where none could begin a line. A demangled name can have no
    // line break that the mangled one has not; other characters are escaped after.
    if are_plain {
        let text = backtrace.to_string();
        let lines: Vec<String> = text
            .lines()
            .map(|line| escaped(line, MAX_LINE_BYTES))
            .collect();
        return lines.join("\n");
    }
    let mut text = "error while executing at wasm backtrace:".to_owned();
    for (idx, frame) in frames.iter().enumerate() {
        let (offset, index) = (
            frame.module_offset().unwrap_or_default(),
            frame.func_index(),
        );
        let name = frame.func_name().map(name).unwrap_or_default();
        text.push_str(&format!(
            "\n  {idx:>3}: {offset:#8x} - function {index} {name}"
        ));
    }
    text
}

/// Text of a manifest, from a module or from the helper that has read it.
pub(super) fn of_manifest<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(name(&String::deserialize(from)?))
}

/// List of a manifest's, the same way.
pub(super) fn of_manifest_list<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    Ok(names.iter().map(|n| name(n)).collect())
}

/// Bytes of a guest, as far as they are UTF-8; at most [`MAX_TEXT_BYTES`] of them are looked at.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    let mut text = escaped(&String::from_utf8_lossy(cut), usize::MAX);
    if cut.len() < bytes.len() {
        text.push_str(CUT);
    }
    text
}

fn escaped(text: &str, most_bytes: usize) -> String {
    let cut = &text[..text.floor_char_boundary(most_bytes)];
    let mut escaped = match cut.contains(is_escaped) {
        false => cut.to_owned(),
        true => cut.chars().fold(String::new(), |mut escaped, c| {
            match is_escaped(c) {
                true => escaped.extend(c.escape_default()),
                false => escaped.push(c),
            }
            escaped
        }),
    };
    if cut.len() < text.len() {
        escaped.push_str(CUT);
    }
    escaped
}

/// Whether a character could begin a line, command a terminal, or make text look like other text: control characters (C0, DEL,
/// C1), separators of lines, and those without a width or that change the direction of writing.
fn is_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

const CUT: &str = " [cut]";

/// Longest name of a module's that is told.
const MAX_NAME_BYTES: usize = 128;

/// Longest text of a module's that is told.
pub(super) const MAX_TEXT_BYTES: usize = 4096;

/// Longest line of a backtrace: a demangled name and what stands before it.
const MAX_LINE_BYTES: usize = 512;

/// Most names of one list that are told.
const MAX_NAMES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_begins_a_line_or_commands_a_terminal() {
        assert_eq!(name("a\nERROR b\u{1b}[31m"), "a\\nERROR b\\u{1b}[31m");
        assert_eq!(text("\u{9b}2J\u{7f}\u{202e}"), "\\u{9b}2J\\u{7f}\\u{202e}");
        assert_eq!(bytes(b"\r\xff"), "\\r\u{fffd}");
        assert_eq!(text("plain, Größe \\n"), "plain, Größe \\n");
    }

    #[test]
    fn what_is_said_is_cut() {
        assert_eq!(name(&"n".repeat(129)), "n".repeat(128) + CUT);
        assert_eq!(name(&"n".repeat(128)), "n".repeat(128));
        assert_eq!(name(&"é".repeat(65)), "é".repeat(64) + CUT);
        assert_eq!(bytes(&[b'a'; 5000]), "a".repeat(4096) + CUT);
        let names = vec!["n".to_owned(); 502];
        assert!(list(&names).ends_with("n n and 2 more"));
        assert_eq!(list(&["a b".to_owned()]), "a\\u{20}b");
    }
}
