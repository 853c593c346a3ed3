//! `cargo xtask style`: how comments begin, how long functions and files are.
//!
//! A comment that begins with a pronoun or a fragment leaves its subject to the reader. The anchors of the field have 2 % of
//! such; more than the gate of a folder fails, and so do files and functions that are too long.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result};

use crate::command::say;
use crate::rust_text::{Comment, Kind, RustText, Token, closing};
use crate::workspace::Workspace;

/// Prints the counts of each folder, and where to begin mending. False when a gate does not hold.
pub(crate) fn run(workspace: &Workspace, list: bool) -> Result<bool> {
    let mut is_good = true;
    let mut functions = Vec::new();
    let mut files = Vec::new();
    for (folder, gate) in GATES {
        let counted = count(workspace, folder)?;
        println!("{folder:<8} {counted}, gate {gate} % (goal {GOAL_PERCENT} %)");
        let is_over = counted.percent() > gate;
        if is_over {
            say!("style: {folder} has more comments without a subject than its gate allows");
        }
        if list {
            print_starts(&counted, usize::MAX);
            print_by_folder(&counted);
        } else if is_over {
            print_starts(&counted, SHOWN);
        }
        is_good &= !is_over;
        functions.extend(counted.functions);
        files.extend(counted.files);
    }
    is_good &= are_short(&mut functions) & are_files_short(&files);
    Ok(is_good)
}

/// Folders of the repository with the share of comments without a subject, in per cent, that each may have. Lower it
/// where comments were mended; never raise it.
const GATES: [(&str, f64); 7] = [
    ("host", 1.0),
    ("sdk", 1.0),
    ("xtask", 1.0),
    ("bench", 1.0),
    ("tests", 1.0),
    ("plugins", 1.0),
    ("fuzz", 2.5),
];

/// Share that the gates are to come down to.
const GOAL_PERCENT: f64 = 5.0;

/// Comments that are shown of a folder, unless all are asked for.
const SHOWN: usize = 20;

/// Counts and findings of one folder.
struct Counted {
    blocks: usize,
    without_subject: Vec<Start>,
    functions: Vec<Function>,
    files: Vec<(PathBuf, usize)>,
}

/// The beginning of a comment without a subject.
struct Start {
    file: PathBuf,
    line: usize,
    text: String,
}

struct Function {
    file: PathBuf,
    line: usize,
    /// Without blank lines and comments.
    code_lines: usize,
}

impl Counted {
    fn percent(&self) -> f64 {
        percent(self.without_subject.len(), self.blocks)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>4} of {:>5} comments begin without a subject: {:4.1} %",
            self.without_subject.len(),
            self.blocks,
            self.percent()
        )
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn print_starts(counted: &Counted, limit: usize) {
    for start in counted.without_subject.iter().take(limit) {
        let (file, line, text) = (start.file.display(), start.line, &start.text);
        println!("  {file}:{line}: {text}");
    }
    let rest = counted.without_subject.len().saturating_sub(limit);
    if rest > 0 {
        println!("  and {rest} more: cargo xtask style --list");
    }
}

/// How many each folder of source has, the worst first.
fn print_by_folder(counted: &Counted) {
    let mut by_folder: BTreeMap<&Path, usize> = BTreeMap::new();
    for start in &counted.without_subject {
        let folder = start.file.parent().unwrap_or(Path::new(""));
        *by_folder.entry(folder).or_default() += 1;
    }
    let mut by_folder: Vec<_> = by_folder.into_iter().collect();
    by_folder.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (folder, count) in by_folder {
        println!("  {count:>4} {}", folder.display());
    }
}

fn are_short(functions: &mut [Function]) -> bool {
    functions.sort_by_key(|function| std::cmp::Reverse(function.code_lines));
    let is_long = |function: &&Function| function.code_lines > FUNCTION_LINES;
    let long: Vec<&Function> = functions.iter().filter(is_long).collect();
    let share = percent(long.len(), functions.len());
    println!(
        "{} of {} functions beside tests have more than {FUNCTION_LINES} lines of code: {share:.2} %, \
         gate {LONG_FUNCTIONS_PERCENT} % (goal {GOAL_LONG_FUNCTIONS_PERCENT} %)",
        long.len(),
        functions.len(),
    );
    for function in long {
        let (file, line) = (function.file.display(), function.line);
        println!("  {file}:{line}: {} lines", function.code_lines);
    }
    let is_good = share <= LONG_FUNCTIONS_PERCENT;
    if !is_good {
        say!("style: too many long functions");
    }
    is_good
}

const FUNCTION_LINES: usize = 60;

/// Lower it where functions became shorter; never raise it.
const LONG_FUNCTIONS_PERCENT: f64 = 0.3;
const GOAL_LONG_FUNCTIONS_PERCENT: f64 = 0.3;

fn are_files_short(files: &[(PathBuf, usize)]) -> bool {
    let mut is_good = true;
    for (file, lines) in files.iter().filter(|(_, lines)| *lines > FILE_LINES) {
        say!(
            "style: {} has {lines} lines, more than {FILE_LINES}",
            file.display()
        );
        is_good = false;
    }
    let longest = files.iter().map(|(_, lines)| *lines).max().unwrap_or(0);
    println!("{} files, the longest of {longest} lines", files.len());
    is_good
}

const FILE_LINES: usize = 600;

fn count(workspace: &Workspace, folder: &str) -> Result<Counted> {
    let mut counted = Counted {
        blocks: 0,
        without_subject: Vec::new(),
        functions: Vec::new(),
        files: Vec::new(),
    };
    let mut paths = Vec::new();
    rust_files(&workspace.root.join(folder), &mut paths)?;
    paths.sort();
    for path in paths {
        let source =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = path.strip_prefix(&workspace.root).unwrap_or(&path);
        let text = RustText::read(&source);
        for block in blocks(&text.comments) {
            counted.blocks += 1;
            if lacks_subject(&block.text) {
                counted.without_subject.push(Start {
                    file: file.to_owned(),
                    line: block.line,
                    text: block.text.lines().next().unwrap_or_default().to_owned(),
                });
            }
        }
        if !is_of_tests(file) {
            counted
                .functions
                .extend(functions(file, &text.without_tests().tokens));
        }
        counted
            .files
            .push((file.to_owned(), source.lines().count()));
    }
    Ok(counted)
}

/// Whether a file holds tests alone, whose long functions are mostly tables of cases.
fn is_of_tests(file: &Path) -> bool {
    let name = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let is_folder = file.iter().any(|part| part == "tests");
    is_folder
        || file
            .file_stem()
            .map(name)
            .is_some_and(|stem| stem.ends_with("tests"))
}

/// All below a folder, but for what cargo has put there.
fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, into)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// The first comment of each block: lines of one kind, one below the other.
fn blocks(comments: &[Comment]) -> impl Iterator<Item = &Comment> {
    let first = |(idx, comment): &(usize, &Comment)| {
        let before = idx.checked_sub(1).map(|before| &comments[before]);
        let goes_on = |before: &Comment| {
            !comment.is_trailing
                && before.mark == comment.mark
                && before.last_line + 1 == comment.line
        };
        !before.is_some_and(goes_on)
    };
    comments
        .iter()
        .enumerate()
        .filter(first)
        .map(|(_, comment)| comment)
}

/// Whether the first word is a pronoun, or begins what is no sentence of its own.
fn lacks_subject(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '\'';
    let mut words = text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let begins_with_it = text.starts_with(first);
    let is_same = first == "The" && words.next() == Some("same");
    begins_with_it && (is_same || WITHOUT_SUBJECT.contains(&first))
}

const WITHOUT_SUBJECT: [&str; 25] = [
    "As",
    "Everybody",
    "However",
    "It",
    "It's",
    "Its",
    "Nobody",
    "Of",
    "One",
    "Ones",
    "She",
    "He",
    "So",
    "Somebody",
    "Such",
    "That",
    "Their",
    "Them",
    "They",
    "Those",
    "What",
    "Whatever",
    "Who",
    "Whoever",
    "Whose",
];

/// The functions that have a body.
fn functions(file: &Path, tokens: &[Token]) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_named = tokens.get(at + 1).is_some_and(|next| next.word().is_some());
        if !token.is_word("fn") || !is_named {
            continue;
        }
        let Some(open) = body(tokens, at) else {
            continue;
        };
        let end = closing(tokens, open);
        let mut lines: Vec<usize> = tokens[at..=end].iter().map(|token| token.line).collect();
        lines.dedup();
        found.push(Function {
            file: file.to_owned(),
            line: token.line,
            code_lines: lines.len(),
        });
    }
    found
}

/// Where the body of the function begins whose `fn` is at this place.
fn body(tokens: &[Token], mut at: usize) -> Option<usize> {
    loop {
        match tokens.get(at)?.kind {
            Kind::Punct('{') => return Some(at),
            Kind::Punct(';') => return None,
            Kind::Punct('(' | '[') => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_without_a_subject_are_known() {
        for text in [
            "It ends.",
            "The same, twice",
            "Of this thread.",
            "One of them",
            "As it is",
        ] {
            assert!(lacks_subject(text), "{text}");
        }
        for text in [
            "Items end.",
            "The samples",
            "`It` ends",
            "Oneself",
            "SAFETY: it is",
            "",
        ] {
            assert!(!lacks_subject(text), "{text}");
        }
    }

    #[test]
    fn lines_of_one_kind_are_one_block() {
        let source = "//! a\n//! b\n\n//! c\n/// d\n/// e\nfn f() {} // g\n// h\nlet x; // i\n";
        let text = RustText::read(source);
        let starts: Vec<_> = blocks(&text.comments).map(|c| c.text.as_str()).collect();
        assert_eq!(starts, ["a", "c", "d", "g", "i"]);
    }

    #[test]
    fn lines_of_code_are_counted_without_comments() {
        let source = "fn a(x: [u8; 3]) -> u8 {\n\n    // b\n    c\n}\ntrait T { fn d(); }\n";
        let text = RustText::read(source);
        let found = functions(Path::new("x.rs"), &text.tokens);
        let lines: Vec<_> = found.iter().map(|f| (f.line, f.code_lines)).collect();
        assert_eq!(lines, [(1, 3)]);
    }
}
