//! Reader of what callgrind writes (its manual, "Callgrind Format Specification").

use std::collections::HashMap;

/// Counts of one dump.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Profile {
    pub(super) instructions: u64,
    /// Calls of the functions that allocate.
    pub(super) allocations: u64,
    /// Instructions that each function took itself.
    pub(super) functions: HashMap<String, u64>,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.lines().any(|line| line == "events: Ir") {
            return Err("it does not count instructions".to_owned());
        }
        let mut profile = Self::default();
        let mut names: HashMap<&str, String> = HashMap::new();
        let (mut function, mut called) = (String::new(), String::new());
        let mut of_a_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = full_name(name, &mut names);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = full_name(name, &mut names);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                if ALLOCATORS.contains(&called.as_str()) {
                    let calls = calls.split(' ').next().and_then(|n| n.parse().ok());
                    profile.allocations += calls.unwrap_or(0_u64);
                }
                of_a_call = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                // The line behind `calls=` has what the called function took, which is counted there.
                if !std::mem::take(&mut of_a_call) {
                    let cost = line.split(' ').nth(1).and_then(|n| n.parse().ok());
                    let cost: u64 = cost.unwrap_or(0);
                    profile.instructions += cost;
                    *profile.functions.entry(function.clone()).or_default() += cost;
                }
            }
        }
        match profile.instructions {
            0 => Err("it has no instructions".to_owned()),
            _ => Ok(profile),
        }
    }
}

/// `(7) name` says what `(7)` is called from then on.
fn full_name<'a>(text: &'a str, names: &mut HashMap<&'a str, String>) -> String {
    let Some((number, name)) = text.strip_prefix('(').and_then(|text| text.split_once(')')) else {
        return plain(text);
    };
    match name.trim_start() {
        "" => names.get(number).cloned().unwrap_or_default(),
        name => {
            let name = plain(name);
            names.insert(number, name.clone());
            name
        }
    }
}

/// Without what is another in each build: the hash of a symbol, the number of a recursion, the address of code that has
/// no symbol, which is a plugin's.
fn plain(name: &str) -> String {
    if name.starts_with("0x") || name == "???" {
        return "(code of plugins)".to_owned();
    }
    let name = match name.rsplit_once('\'') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => name,
    };
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            quotable(path)
        }
        Some(_) | None => quotable(name),
    }
}

/// Name as it can stand between single quotes in TOML.
fn quotable(name: &str) -> String {
    name.replace('\'', "`")
}

/// Allocating functions of glibc, mimalloc and jemalloc.
const ALLOCATORS: [&str; 14] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
    "_rjem_malloc",
    "_rjem_mallocx",
    "_rjem_calloc",
];

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "# callgrind format
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 1000

ob=(1) /usr/bin/castling
fl=(1) ???
fn=(1) castling::flow::run::h0123456789abcdef
0 100
cob=(2) /lib/libc.so.6
cfi=(2) ???
cfn=(2) malloc
calls=3 0
0 600
+3 40

fn=(2)
0 600
fn=(3) castling::flow::run'2
0 10
fn=(4) 0x00000000040018a0
* 7
";

    #[test]
    fn a_functions_own_instructions_are_added_up() {
        let profile = Profile::parse(DUMP).unwrap();
        assert_eq!((profile.instructions, profile.allocations), (757, 3));
        let mut functions: Vec<_> = profile.functions.into_iter().collect();
        functions.sort();
        let functions: Vec<(&str, u64)> = functions.iter().map(|(f, n)| (f.as_str(), *n)).collect();
        assert_eq!(
            functions,
            [
                ("(code of plugins)", 7),
                ("castling::flow::run", 150),
                ("malloc", 600)
            ]
        );
    }

    #[test]
    fn what_is_no_profile_is_an_error() {
        assert!(Profile::parse("").is_err());
        assert!(Profile::parse("events: Ir\n").is_err());
        assert!(Profile::parse("events: Cy\nfn=x\n0 1\n").is_err());
    }
}
