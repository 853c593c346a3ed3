//! The rooms as a drawing in text, for the docs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::arrows::rooms::FLOORS;

/// The rooms that have files, the highest floor first, each with what it holds.
pub(super) fn draw(rooms: &BTreeMap<String, usize>) -> String {
    let mut lines = vec![border('┌', '┐')];
    for (idx, floor) in FLOORS.iter().enumerate() {
        if idx > 0 {
            lines.push(border('├', '┤'));
        }
        lines.push(line(&floor.name.to_uppercase()));
        for (room, holds) in floor.rooms {
            if rooms.contains_key(*room) {
                lines.push(line(&format!("  {room:<12} {holds}")));
            }
        }
    }
    lines.push(border('└', '┘'));
    lines.join("\n")
}

/// The page with the drawing of today between its marks.
pub(super) fn replaced(page: &str, rooms: &BTreeMap<String, usize>) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("the page has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("the page has no line {END}"))?;
    let drawing = draw(rooms);
    Ok(format!(
        "{before}{BEGIN}\n```text\n{drawing}\n```\n{END}{after}"
    ))
}

const BEGIN: &str = "<!-- rooms: made by `cargo xtask arrows --draw` -->";
const END: &str = "<!-- end of rooms -->";

fn line(text: &str) -> String {
    format!("│ {text:<WIDTH$} │")
}

fn border(left: char, right: char) -> String {
    format!("{left}{}{right}", "─".repeat(WIDTH + 2))
}

/// Characters of a line inside its frame.
const WIDTH: usize = 108;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_one_width() {
        let all = FLOORS.iter().flat_map(|floor| floor.rooms);
        let rooms = all.map(|(name, _)| ((*name).to_owned(), 1)).collect();
        for line in draw(&rooms).lines() {
            assert_eq!(line.chars().count(), WIDTH + 4, "{line}");
        }
    }

    #[test]
    fn a_page_is_changed_between_its_marks_only() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let rooms = BTreeMap::new();
        let new = replaced(&page, &rooms).unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n") && !new.contains("old"));
        assert_eq!(replaced(&new, &rooms).unwrap(), new);
        assert!(replaced("no marks", &rooms).is_err());
    }
}
