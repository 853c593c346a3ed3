//! The peers' config files: a base, the logic that goes into it, and what a run fills in.

use std::fs;
use std::path::{Path, PathBuf};

/// Values that stand for `@name@`.
pub(super) type Values = Vec<(&'static str, String)>;

/// The base with the sections of other files in the places that bear their names, in the order of the files, and the values
/// filled in. A section that has no place is an error, a place without a section is left empty.
pub(super) fn render(base: &Path, files: &[PathBuf], values: &Values) -> Result<String, String> {
    let read =
        |file: &Path| fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()));
    let texts = files.iter().map(|file| read(file));
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let sections: Vec<_> = texts.iter().flat_map(|text| sections(text)).collect();
    let about = |error| {
        format!(
            "{}: {error}",
            files.last().map_or(base, PathBuf::as_path).display()
        )
    };
    let whole = place(&read(base)?, &sections).map_err(about)?;
    fill(&whole, values).map_err(about)
}

/// `#: name` begins a section. What stands above the first is a comment.
fn sections(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#: ") {
            sections.push((name.trim(), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections
}

/// A place is a line with nothing but `@name@` and the indent that its section gets. One in lower case that is no
/// section is left for [`fill`].
fn place(base: &str, sections: &[(&str, Vec<&str>)]) -> Result<String, String> {
    let mut whole = String::new();
    let mut placed = Vec::new();
    for line in base.lines() {
        let name = line
            .trim()
            .strip_prefix('@')
            .and_then(|l| l.strip_suffix('@'));
        match name {
            Some(name) if PLACES.contains(&name) => {
                placed.push(name);
                let indent = &line[..line.len() - line.trim_start().len()];
                let section = sections.iter().filter(|(section, _)| *section == name);
                for line in section.flat_map(|(_, lines)| lines) {
                    whole.push_str(indent);
                    whole.push_str(line);
                    whole.push('\n');
                }
            }
            Some(_) | None => {
                whole.push_str(line);
                whole.push('\n');
            }
        }
    }
    match sections.iter().find(|(name, _)| !placed.contains(name)) {
        Some((name, _)) => Err(format!("section {name}: the base has no line @{name}@")),
        None => Ok(whole),
    }
}

fn fill(text: &str, values: &Values) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        filled.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name_len = after
            .find(|c: char| !(c.is_ascii_lowercase() || c == '_'))
            .unwrap_or(after.len());
        if name_len > 0 && after[name_len..].starts_with('@') {
            let name = &after[..name_len];
            let value = values.iter().find(|(known, _)| *known == name);
            let (_, value) = value.ok_or_else(|| format!("@{name}@: nothing is known by it"))?;
            filled.push_str(value);
            rest = &after[name_len + 1..];
        } else {
            filled.push('@'); // one that stands for itself, as in "@type"
            rest = after;
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The names of sections.
const PLACES: [&str; 12] = [
    "main",
    "http",
    "location",
    "frontend",
    "filter",
    "upstream",
    "route",
    "plugins",
    "listen",
    "server",
    "transport",
    "cluster",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_indent_of_its_place() {
        let sections = sections("# why\n#: http\na;\nb;\n#: location\nc;\n");
        let base = "@main@\nhttp {\n    @http@\n    location {\n        @location@\n    }\n}\n";
        assert_eq!(
            place(base, &sections).unwrap(),
            "http {\n    a;\n    b;\n    location {\n        c;\n    }\n}\n"
        );
    }

    #[test]
    fn a_section_without_a_place_is_an_error() {
        let error = place("http {}\n", &sections("#: http\na;\n")).unwrap_err();
        assert_eq!(error, "section http: the base has no line @http@");
    }

    #[test]
    fn values_are_filled_in_and_a_lone_at_stays() {
        let values = vec![("port", "80".to_owned())];
        assert_eq!(
            fill("\"@type\": a@b:@port@", &values).unwrap(),
            "\"@type\": a@b:80"
        );
        assert_eq!(
            fill("@other@", &values).unwrap_err(),
            "@other@: nothing is known by it"
        );
    }
}
