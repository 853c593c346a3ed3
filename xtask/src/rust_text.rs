//! Rust source as tokens and comments, as far as `arrows` and `style` need it.
//!
//! A parser crate would throw comments away, and takes what stands inside macros for opaque; both commands count them.

use std::ops::RangeInclusive;

/// Tokens and comments of one file.
#[derive(Debug, Default)]
pub(crate) struct RustText {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Line of its first character, from 1.
    pub(crate) line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Identifiers and keywords.
    Word(String),
    /// `::`
    PathSep,
    Punct(char),
    /// The text between the quotes, escapes as they are written.
    Text(String),
    /// Numbers, characters, lifetimes.
    Other,
}

/// A line comment, or a whole block comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Without the marks before it.
    pub(crate) text: String,
    pub(crate) mark: Mark,
    pub(crate) line: usize,
    pub(crate) last_line: usize,
    /// Whether code stands before it on its line.
    pub(crate) is_trailing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// `//`, `/* */`
    Plain,
    /// `///`, `/** */`
    Doc,
    /// `//!`, `/*! */`
    InnerDoc,
}

impl Token {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(w) if w == word)
    }

    pub(crate) fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }
}

impl RustText {
    pub(crate) fn read(source: &str) -> Self {
        let mut lexer = Lexer {
            rest: source,
            line: 1,
            into: Self::default(),
        };
        while lexer.step() {}
        lexer.into
    }

    /// Takes out what is compiled for tests only: items under `#[cfg(test)]`, or all of a file that says so of itself.
    pub(crate) fn without_tests(mut self) -> Self {
        let mut kept = Vec::with_capacity(self.tokens.len());
        let mut dropped: Vec<RangeInclusive<usize>> = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let Some((attribute_end, is_inner)) = test_attribute(&self.tokens, at) else {
                kept.push(self.tokens[at].clone());
                at += 1;
                continue;
            };
            if is_inner {
                return Self::default();
            }
            let end = end_of_item(&self.tokens, attribute_end);
            let last = self.tokens[end.min(self.tokens.len()) - 1].line;
            dropped.push(self.tokens[at].line..=last);
            at = end;
        }
        self.tokens = kept;
        self.comments
            .retain(|comment| !dropped.iter().any(|lines| lines.contains(&comment.line)));
        self
    }
}

/// Whether `#[cfg(test)]` or a kin of it begins here: where it ends, and whether it is about the whole file.
fn test_attribute(tokens: &[Token], at: usize) -> Option<(usize, bool)> {
    if !tokens[at].is('#') {
        return None;
    }
    let is_inner = tokens.get(at + 1)?.is('!');
    let open = at + 1 + usize::from(is_inner);
    if !tokens.get(open)?.is('[') || !tokens.get(open + 1)?.is_word("cfg") {
        return None;
    }
    let end = closing(tokens, open) + 1;
    let inside = &tokens[open..end.min(tokens.len())];
    let says = |word| inside.iter().any(|token| token.is_word(word));
    (says("test") && !says("not") && !says("any")).then_some((end, is_inner))
}

/// Where the item ends that begins at `at`: behind its `;` or its block, or behind the comma of a field.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.is('#')) {
        at = closing(tokens, at + 1) + 1;
    }
    let first = tokens.get(at).and_then(Token::word).unwrap_or_default();
    let is_use = tokens[at..]
        .iter()
        .take_while(|token| !token.is(';') && !token.is('{'))
        .any(|token| token.is_word("use"));
    let is_item = ITEM_WORDS.contains(&first);
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punct(';') => return at + 1,
            Kind::Punct(',') if !is_item => return at + 1,
            Kind::Punct('}' | ')' | ']') => return at,
            Kind::Punct('{') if !is_use => return closing(tokens, at) + 1,
            Kind::Punct('{' | '(' | '[') => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
    at
}

const ITEM_WORDS: [&str; 15] = [
    "pub", "fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "trait",
    "unsafe", "async", "extern", "let",
];

/// The index of the bracket that closes the one at `open`; the last token's when none does.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    into: RustText,
}

impl<'s> Lexer<'s> {
    /// Reads a token, a comment or white space. False at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        if first.is_whitespace() {
            let len = self
                .rest
                .find(|c: char| !c.is_whitespace())
                .unwrap_or(self.rest.len());
            self.take(len);
        } else if self.rest.starts_with("//") {
            self.line_comment();
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if let Some(hashes) = raw_string(self.rest) {
            self.raw_string(hashes);
        } else if let Some(quote) = quote_after_prefix(self.rest) {
            self.take(quote);
            self.quoted();
        } else if first == '_' || first.is_alphabetic() {
            self.word();
        } else if first.is_ascii_digit() {
            let is_digit = |c: char| c == '_' || c.is_alphanumeric();
            let len = self.rest.find(|c| !is_digit(c));
            self.push(len.unwrap_or(self.rest.len()), Kind::Other);
        } else if first == '\'' {
            self.character_or_lifetime();
        } else if self.rest.starts_with("::") {
            self.push(2, Kind::PathSep);
        } else {
            self.push(first.len_utf8(), Kind::Punct(first));
        }
        true
    }

    /// Goes on by so many bytes.
    fn take(&mut self, len: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(len);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn push(&mut self, len: usize, kind: Kind) {
        let line = self.line;
        self.take(len);
        self.into.tokens.push(Token { kind, line });
    }

    fn line_comment(&mut self) {
        let text = self.rest.lines().next().unwrap_or_default();
        self.comment(text.len(), "//", '/', text.len());
    }

    fn block_comment(&mut self) {
        let (mut depth, mut end) = (0usize, self.rest.len());
        for (at, _) in self.rest.char_indices() {
            if self.rest[at..].starts_with("/*") {
                depth += 1;
            } else if self.rest[..at].ends_with("*/") {
                depth -= 1;
                if depth == 0 {
                    end = at;
                    break;
                }
            }
        }
        self.comment(end, "/*", '*', end.saturating_sub(2));
    }

    /// A comment of `len` bytes, whose text ends at `text_end`.
    fn comment(&mut self, len: usize, open: &str, doc: char, text_end: usize) {
        let last = self.into.tokens.last();
        let (line, is_trailing) = (self.line, last.is_some_and(|token| token.line == self.line));
        let text = self.take(len);
        let inside = &text[open.len()..text_end.max(open.len())];
        let (mark, inside) = match inside.chars().next() {
            Some('!') => (Mark::InnerDoc, &inside[1..]),
            // A rule of slashes or stars is no doc comment.
            Some(c) if c == doc && !inside[1..].starts_with(doc) => (Mark::Doc, &inside[1..]),
            _ => (Mark::Plain, inside),
        };
        self.into.comments.push(Comment {
            text: inside.trim().to_owned(),
            mark,
            line,
            last_line: self.line,
            is_trailing,
        });
    }

    fn raw_string(&mut self, hashes: usize) {
        let open = self.rest.find('"').map_or(self.rest.len(), |at| at + 1);
        let close = format!("\"{}", "#".repeat(hashes));
        let len = self.rest[open..].find(&close);
        let text = self.rest[open..][..len.unwrap_or(self.rest.len() - open)].to_owned();
        let end = (open + text.len() + close.len()).min(self.rest.len());
        self.push(end, Kind::Text(text));
    }

    /// At the opening quote.
    fn quoted(&mut self) {
        let end = end_of_quoted(&self.rest[1..], '"');
        let text = self.rest[1..][..end].to_owned();
        self.push((end + 2).min(self.rest.len()), Kind::Text(text));
    }

    fn word(&mut self) {
        let raw = if self.rest.starts_with("r#") { 2 } else { 0 };
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let len = self.rest[raw..].find(|c| !is_part(c));
        let end = len.map_or(self.rest.len(), |len| raw + len);
        let word = self.rest[raw..end].to_owned();
        // b'x': the prefix of a byte.
        if word == "b" && self.rest[1..].starts_with('\'') {
            self.take(1);
            return self.character_or_lifetime();
        }
        self.push(end, Kind::Word(word));
    }

    fn character_or_lifetime(&mut self) {
        let inside = &self.rest[1..];
        let second = inside.char_indices().nth(1);
        let is_character =
            inside.starts_with('\\') || second.is_some_and(|(_, second)| second == '\'');
        let len = if is_character {
            1 + end_of_quoted(inside, '\'') + 1
        } else {
            let is_part = |c: char| c == '_' || c.is_alphanumeric();
            1 + inside.find(|c| !is_part(c)).unwrap_or(inside.len())
        };
        self.push(len.min(self.rest.len()), Kind::Other);
    }
}

/// Where the text ends whose first character has just been passed: the index of its closing quote.
fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at,
            _ => {}
        }
    }
    text.len()
}

/// The number of hashes when a raw string begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Where the quote is when a string begins here.
fn quote_after_prefix(text: &str) -> Option<usize> {
    let strip = text.strip_prefix(['b', 'c']).unwrap_or(text);
    strip.starts_with('"').then_some(text.len() - strip.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let text = RustText::read(source);
        let words = text.tokens.iter().filter_map(Token::word);
        words.map(str::to_owned).collect()
    }

    #[test]
    fn words_inside_texts_and_comments_are_none() {
        let source = r##"let a = "x \" y"; let b = r#"z " w"#; // v
            /* u /* t */ s */ let c = b'q'; let d = '\''; fn f<'l>(x: &'l str) {} b"k" "##;
        let expected = "let a let b let c let d fn f x str";
        assert_eq!(words(source).join(" "), expected);
    }

    #[test]
    fn comments_know_their_mark_and_line() {
        let text = RustText::read("//! One\n/// Two\nfn f() {} // three\n//// rule\n/* a\nb */\n");
        let seen: Vec<_> = text
            .comments
            .iter()
            .map(|c| (c.text.as_str(), c.mark, c.line, c.last_line, c.is_trailing))
            .collect();
        assert_eq!(
            seen,
            [
                ("One", Mark::InnerDoc, 1, 1, false),
                ("Two", Mark::Doc, 2, 2, false),
                ("three", Mark::Plain, 3, 3, true),
                ("// rule", Mark::Plain, 4, 4, false),
                ("a\nb", Mark::Plain, 5, 6, false),
            ]
        );
    }

    #[test]
    fn what_is_for_tests_only_is_taken_out() {
        let source = "use a; #[cfg(test)] use b::{c}; #[cfg(not(test))] use d;
            struct S { #[cfg(test)] e: u8, f: u8 }
            #[cfg(test)] #[allow(g)] fn h<I, J>(k: L) { m }
            #[cfg(test)]
            mod tests {
                // gone
                use n;
            }
            // kept
            fn o() {}";
        let text = RustText::read(source).without_tests();
        let words: Vec<_> = text.tokens.iter().filter_map(Token::word).collect();
        let expected = "use a cfg not test use d struct S f u8 fn o";
        assert_eq!(words.join(" "), expected);
        assert_eq!(text.comments.len(), 1);
        assert!(
            RustText::read("#![cfg(test)] fn f() {}")
                .without_tests()
                .tokens
                .is_empty()
        );
    }
}
