//! The modules of a crate, and which file uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::rust_text::{Kind, RustText, Token, closing};

/// A crate's modules. Those for tests only are left out.
#[derive(Debug, Default)]
pub(super) struct Modules {
    modules: Vec<Module>,
}

#[derive(Debug)]
struct Module {
    parent: Option<usize>,
    /// Relative to the crate's source folder, with `/`.
    file: String,
    children: BTreeMap<String, usize>,
    uses: Vec<Use>,
    /// Paths in code, in signatures and inside macros.
    paths: Vec<Vec<String>>,
    /// Names that are defined here.
    items: BTreeSet<String>,
}

/// A leaf of a `use` tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    path: Vec<String>,
    /// The name that it gets here; `*` for all names of a module.
    name: String,
}

/// An arrow between files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    pub(super) from: String,
    pub(super) to: String,
}

/// Whether a path ends at the module that it names or goes on to where that has its names from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReExports {
    Stop,
    Follow,
}

impl Modules {
    /// Reads a crate from its root file, `lib.rs` or `main.rs`, through the `mod` lines.
    pub(super) fn read(
        root: &str,
        source_of: &dyn Fn(&Path) -> Result<Option<String>>,
    ) -> Result<Self> {
        let mut modules = Self::default();
        modules.add_file(None, PathBuf::from(root), source_of)?;
        Ok(modules)
    }

    pub(super) fn files(&self) -> BTreeSet<String> {
        self.modules
            .iter()
            .map(|module| module.file.clone())
            .collect()
    }

    /// Arrows from each file to the modules that it names: a name that another module hands on counts for the module that the path names.
    pub(super) fn named(&self) -> BTreeSet<Arrow> {
        self.arrows(ReExports::Stop)
    }

    /// Arrows from each file to those whose definitions it uses: names that are handed on (`pub use`) are followed to their definition, and a module
    /// that is only named on the way does not count. Neither do arrows from a module to its own children: a folder's
    /// `mod.rs` puts its parts together, and they lean on what it defines.
    pub(super) fn used(&self) -> BTreeSet<Arrow> {
        self.arrows(ReExports::Follow)
    }

    fn arrows(&self, re_exports: ReExports) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (at, module) in self.modules.iter().enumerate() {
            let uses = module
                .uses
                .iter()
                .map(|used| (&used.path, used.name == "*"));
            let paths = module.paths.iter().map(|path| (path, false));
            for (path, is_glob) in uses.chain(paths) {
                let Some((target, ends_at_module)) = self.resolve(at, path, re_exports, 0) else {
                    continue;
                };
                let is_name_of_module =
                    ends_at_module && !is_glob && re_exports == ReExports::Follow;
                let to = &self.modules[target].file;
                let is_own_child = re_exports == ReExports::Follow && self.is_below(target, at);
                if !is_name_of_module && !is_own_child && *to != module.file {
                    arrows.insert(Arrow {
                        from: module.file.clone(),
                        to: to.clone(),
                    });
                }
            }
        }
        arrows
    }

    fn is_below(&self, mut module: usize, ancestor: usize) -> bool {
        while let Some(parent) = self.modules[module].parent {
            if parent == ancestor {
                return true;
            }
            module = parent;
        }
        false
    }

    /// The module that a path leads to from this one, and whether the path ends there. None for other crates.
    fn resolve(
        &self,
        from: usize,
        path: &[String],
        re_exports: ReExports,
        depth: usize,
    ) -> Option<(usize, bool)> {
        // A name that is handed on in a circle does not compile, but imports of other crates' names may look like it.
        if depth > MAX_HOPS {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => self.modules[from].parent?,
            name => match self.modules[from].children.get(name) {
                Some(&child) => child,
                None => {
                    let import = self.import(from, name)?;
                    let whole: Vec<String> = import.path.iter().chain(rest).cloned().collect();
                    return self.resolve(from, &whole, re_exports, depth + 1);
                }
            },
        };
        self.walk(start, rest, re_exports, depth)
    }

    fn walk(
        &self,
        mut at: usize,
        path: &[String],
        re_exports: ReExports,
        depth: usize,
    ) -> Option<(usize, bool)> {
        for (passed, name) in path.iter().enumerate() {
            let is_last = passed + 1 == path.len();
            if name == "super" {
                at = self.modules[at].parent?;
            } else if is_last
                && re_exports == ReExports::Follow
                && let Some(found) = self.namesake(at, name, depth)
            {
                return Some(found);
            } else if let Some(&child) = self.modules[at].children.get(name) {
                at = child;
            } else {
                if re_exports == ReExports::Follow && !self.modules[at].items.contains(name) {
                    let rest = &path[passed..];
                    if let Some(found) = self.handed_on(at, rest, depth) {
                        return Some(found);
                    }
                }
                return Some((at, false));
            }
        }
        Some((at, true))
    }

    /// Target of a name that a module hands on under the name of one of its children: `pub use reply::reply`.
    fn namesake(&self, at: usize, name: &str, depth: usize) -> Option<(usize, bool)> {
        let module = &self.modules[at];
        module.children.get(name)?;
        let is_it = |used: &&Use| used.name == name && used.path.len() > 1;
        let used = module.uses.iter().find(is_it)?;
        let found = self.resolve(at, &used.path, ReExports::Follow, depth + 1)?;
        Some((found.0, false))
    }

    /// Where a module has a name from that it does not define.
    fn handed_on(&self, at: usize, path: &[String], depth: usize) -> Option<(usize, bool)> {
        let (name, rest) = path.split_first()?;
        if let Some(import) = self.import(at, name) {
            let whole: Vec<String> = import.path.iter().chain(rest).cloned().collect();
            return self.resolve(at, &whole, ReExports::Follow, depth + 1);
        }
        let globs = self.modules[at].uses.iter().filter(|used| used.name == "*");
        globs
            .filter_map(|glob| self.resolve(at, &glob.path, ReExports::Follow, depth + 1))
            .find(|(target, _)| self.modules[*target].items.contains(name))
            .map(|(target, _)| (target, false))
    }

    /// The `use` that brings this name. One whose path begins with the same name is of another crate.
    fn import(&self, at: usize, name: &str) -> Option<&Use> {
        self.modules[at]
            .uses
            .iter()
            .find(|used| used.name == name && used.path[0] != name)
    }

    fn add_file(
        &mut self,
        parent: Option<usize>,
        file: PathBuf,
        source_of: &dyn Fn(&Path) -> Result<Option<String>>,
    ) -> Result<Option<usize>> {
        let source = source_of(&file)?.with_context(|| format!("no file {}", file.display()))?;
        let text = RustText::read(&source).without_tests();
        if text.tokens.is_empty() && !source.trim().is_empty() && parent.is_some() {
            return Ok(None);
        }
        let at = self.add(parent, &file);
        self.read_items(at, &text.tokens, &Place::of(&file), source_of)?;
        Ok(Some(at))
    }

    fn add(&mut self, parent: Option<usize>, file: &Path) -> usize {
        self.modules.push(Module {
            parent,
            file: file.to_string_lossy().into_owned(),
            children: BTreeMap::new(),
            uses: Vec::new(),
            paths: Vec::new(),
            items: BTreeSet::new(),
        });
        self.modules.len() - 1
    }

    fn read_items(
        &mut self,
        module: usize,
        tokens: &[Token],
        place: &Place,
        source_of: &dyn Fn(&Path) -> Result<Option<String>>,
    ) -> Result<()> {
        let mut at = 0;
        let mut depth = 0usize;
        while at < tokens.len() {
            let next = tokens.get(at + 1);
            match &tokens[at].kind {
                Kind::Punct('{') => depth += 1,
                Kind::Punct('}') => depth = depth.saturating_sub(1),
                // The path says who may see it, not what is used.
                Kind::Punct('(') if next.is_some_and(|next| next.is_word("in")) => {
                    at = closing(tokens, at);
                }
                Kind::Word(word) if word == "mod" => {
                    at = self.read_mod(module, tokens, at, place, source_of)?;
                    continue;
                }
                Kind::Word(word) if word == "use" && !next.is_some_and(|next| next.is('<')) => {
                    let end = end_of_use(tokens, at);
                    read_use_tree(&tokens[at + 1..end], &[], &mut self.modules[module].uses);
                    at = end;
                }
                Kind::Word(word) => {
                    if depth == 0 && DEFINING.contains(&word.as_str()) {
                        let name = next.and_then(Token::word).map(str::to_owned);
                        self.modules[module].items.extend(name);
                    }
                    let (path, end) = path_at(tokens, at);
                    if path.len() > 1 {
                        self.modules[module].paths.push(path);
                        at = end;
                        continue;
                    }
                }
                Kind::PathSep | Kind::Punct(_) | Kind::Text(_) | Kind::Other => {}
            }
            at += 1;
        }
        Ok(())
    }

    /// A `mod` line or an inline module. Returns where to go on.
    fn read_mod(
        &mut self,
        parent: usize,
        tokens: &[Token],
        at: usize,
        place: &Place,
        source_of: &dyn Fn(&Path) -> Result<Option<String>>,
    ) -> Result<usize> {
        let (Some(name), Some(after)) =
            (tokens.get(at + 1).and_then(Token::word), tokens.get(at + 2))
        else {
            return Ok(at + 1);
        };
        let name = name.to_owned();
        if after.is('{') {
            let end = closing(tokens, at + 2);
            let file = PathBuf::from(&self.modules[parent].file);
            let child = self.add(Some(parent), &file);
            self.modules[parent].children.insert(name.clone(), child);
            self.read_items(child, &tokens[at + 3..end], &place.inside(&name), source_of)?;
            return Ok(end + 1);
        }
        let file = match path_attribute(tokens, at) {
            Some(path) => place.beside.join(path),
            None => {
                let flat = place.below.join(format!("{name}.rs"));
                match source_of(&flat)? {
                    Some(_) => flat,
                    None => place.below.join(&name).join("mod.rs"),
                }
            }
        };
        if let Some(child) = self.add_file(Some(parent), file, source_of)? {
            self.modules[parent].children.insert(name, child);
        }
        Ok(at + 3)
    }
}

/// Where the files of a module's children are.
struct Place {
    /// The folder of the file itself: what `#[path]` counts from.
    beside: PathBuf,
    below: PathBuf,
}

impl Place {
    fn of(file: &Path) -> Self {
        let beside = file.parent().unwrap_or(Path::new("")).to_owned();
        let stem = file.file_stem().unwrap_or_default();
        let is_root = ["mod", "lib", "main"].iter().any(|root| stem == *root);
        let below = match is_root {
            true => beside.clone(),
            false => beside.join(stem),
        };
        Self { beside, below }
    }

    fn inside(&self, module: &str) -> Self {
        Self {
            beside: self.below.join(module),
            below: self.below.join(module),
        }
    }
}

/// The text of `#[path = ".."]` before the `mod` at this place.
fn path_attribute(tokens: &[Token], at: usize) -> Option<&str> {
    let before = tokens.get(at.checked_sub(5)?..at)?;
    match (&before[1].kind, &before[3].kind) {
        (Kind::Word(word), Kind::Text(path)) if word == "path" && before[2].is('=') => Some(path),
        _ => None,
    }
}

/// The path that begins with this word, and where it ends. A word behind `::` or `.` begins none.
fn path_at(tokens: &[Token], at: usize) -> (Vec<String>, usize) {
    let before = at.checked_sub(1).map(|before| &tokens[before]);
    let goes_on = |token: &Token| token.kind == Kind::PathSep || token.is('.');
    if before.is_some_and(goes_on) {
        return (Vec::new(), at);
    }
    let mut path = Vec::new();
    let mut end = at;
    while let Some(word) = tokens.get(end).and_then(Token::word) {
        path.push(word.to_owned());
        end += 1;
        match tokens.get(end) {
            Some(token) if token.kind == Kind::PathSep => end += 1,
            _ => break,
        }
    }
    (path, end)
}

fn end_of_use(tokens: &[Token], at: usize) -> usize {
    let len = tokens[at..].iter().position(|token| token.is(';'));
    len.map_or(tokens.len(), |len| at + len)
}

/// Flattens `a::{b, c as d, self, *}`.
fn read_use_tree(tokens: &[Token], before: &[String], into: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            Kind::Word(word) if word == "as" => {
                name = tokens.get(at + 1).and_then(Token::word).map(str::to_owned);
                break;
            }
            Kind::Word(word) if word == "self" && !path.is_empty() => {}
            Kind::Word(word) => path.push(word.clone()),
            Kind::Punct('*') => name = Some("*".to_owned()),
            Kind::Punct('{') => {
                let inside = &tokens[at + 1..closing(tokens, at)];
                for branch in split_at_commas(inside) {
                    read_use_tree(branch, &path, into);
                }
                return;
            }
            Kind::PathSep | Kind::Punct(_) | Kind::Text(_) | Kind::Other => {}
        }
        at += 1;
    }
    if let Some(last) = path.last() {
        let name = name.unwrap_or_else(|| last.clone());
        into.push(Use { path, name });
    }
}

fn split_at_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0usize;
    tokens
        .split(|token| {
            match token.kind {
                Kind::Punct('{') => depth += 1,
                Kind::Punct('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.is(',')
        })
        .filter(|branch| !branch.is_empty())
        .collect()
}

/// Words that stand before a name that a module defines.
const DEFINING: [&str; 8] = [
    "fn", "struct", "enum", "union", "trait", "type", "const", "static",
];

/// Modules that a name may pass through on its way to its user.
const MAX_HOPS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        let source_of = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            Ok(found.map(|(_, source)| (*source).to_owned()))
        };
        Modules::read("lib.rs", &source_of).unwrap()
    }

    fn shown(arrows: &BTreeSet<Arrow>) -> Vec<String> {
        arrows
            .iter()
            .map(|arrow| format!("{} -> {}", arrow.from, arrow.to))
            .collect()
    }

    #[test]
    fn names_that_are_handed_on_are_followed_to_their_definition() {
        let crate_ = modules(&[
            ("lib.rs", "mod a; mod b; pub use a::run;"),
            (
                "a.rs",
                "use crate::b::{self, Two}; pub fn run() { b::three(); }",
            ),
            (
                "b/mod.rs",
                "mod two; mod three; pub use two::*; pub(crate) use self::three::three;",
            ),
            ("b/two.rs", "pub struct Two;"),
            ("b/three.rs", "pub fn three() -> super::Two {}"),
        ]);
        assert_eq!(
            shown(&crate_.used()),
            [
                "a.rs -> b/three.rs",
                "a.rs -> b/two.rs",
                "b/three.rs -> b/two.rs",
            ]
        );
        assert!(shown(&crate_.named()).contains(&"a.rs -> b/mod.rs".to_owned()));
    }

    #[test]
    fn paths_in_code_and_macros_count_and_tests_do_not() {
        let crate_ = modules(&[
            ("lib.rs", "mod a; mod b; mod c; mod d; #[cfg(test)] mod e;"),
            (
                "a.rs",
                "fn f() { log!(x = crate::b::g()); pub(in crate::c) fn h() {} }",
            ),
            ("b.rs", "pub fn g() { let x: super::d::D = y.a::<u8>(); }"),
            (
                "c.rs",
                "#[cfg(test)] mod tests { use crate::a::f; } mod inner { use super::super::b; fn i() { b::g() } }",
            ),
            (
                "d.rs",
                "#[cfg(test)] #[path = \"d_tests.rs\"] mod tests; pub struct D; use http::a;",
            ),
        ]);
        assert_eq!(
            shown(&crate_.used()),
            ["a.rs -> b.rs", "b.rs -> d.rs", "c.rs -> b.rs"]
        );
    }

    #[test]
    fn a_use_tree_is_flattened() {
        let text = RustText::read("a::{b::{self, c as d}, e::*, f}");
        let mut uses = Vec::new();
        read_use_tree(&text.tokens, &[], &mut uses);
        let shown: Vec<_> = uses
            .iter()
            .map(|used| format!("{} as {}", used.path.join("::"), used.name))
            .collect();
        assert_eq!(
            shown,
            ["a::b as b", "a::b::c as d", "a::e as *", "a::f as f"]
        );
    }
}
