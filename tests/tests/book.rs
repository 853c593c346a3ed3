//! The book of plugins: its chapters are in its summary, its links lead somewhere, and mdBook makes a book of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use castling_tests::tools::{run, tool};
use castling_tests::workspace_root;

fn book() -> PathBuf {
    workspace_root().join("docs/plugins")
}

/// Names of its chapters.
fn chapters() -> BTreeSet<String> {
    let entries = fs::read_dir(book()).expect("the book").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Text without what stands in backticks or fences, which has no links.
fn prose(text: &str) -> String {
    let fences = text.split("```").step_by(2);
    let spans = fences.map(|prose| {
        let single = prose.replace("``", "`");
        single
            .split('`')
            .step_by(2)
            .collect::<Vec<_>>()
            .join("code")
    });
    spans.collect::<Vec<_>>().join("\n")
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// Anchors of a chapter's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let words = heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .replace(' ', "-");
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn the_summary_has_each_chapter_once() {
    let listed = links(&read(&book().join("SUMMARY.md")));
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(
        once.len(),
        listed.len(),
        "a chapter is there twice: {listed:?}"
    );
    assert_eq!(once, chapters());
}

#[test]
fn each_link_leads_somewhere() {
    let mut broken = Vec::new();
    for chapter in chapters() {
        let text = read(&book().join(&chapter));
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => book().join(&chapter),
                file => book().join(file),
            };
            let leads = target.exists()
                && (anchor.is_empty()
                    || anchors(&read(&target)).iter().any(|known| known == anchor));
            if !leads {
                broken.push(format!("{chapter}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn mdbook_makes_a_book_of_it() {
    let Some(mut mdbook) = tool("mdbook") else {
        return;
    };
    let out = tempfile::tempdir().expect("a temporary folder");
    run(mdbook
        .arg("build")
        .arg("--dest-dir")
        .arg(out.path())
        .arg(book()));
    for chapter in chapters() {
        let page = chapter
            .replace("README.md", "index.html")
            .replace(".md", ".html");
        assert!(out.path().join(&page).exists(), "no {page}");
    }
}
