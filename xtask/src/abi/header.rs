//! The header for C, made of the ABI.

use super::source::{Abi, Function, Parameter};

/// Text of `sdk/c/castling.h`.
pub(super) fn of(abi: &Abi) -> String {
    let mut text = HEAD.to_owned();
    for ids in &abi.ids {
        let name = snake(&ids.name);
        text.push_str(&format!("\nenum castling_{} {{\n", name.to_lowercase()));
        for (variant, value) in &ids.variants {
            text.push_str(&format!(
                "    CASTLING_{name}_{} = {value},\n",
                snake(variant)
            ));
        }
        text.push_str("};\n");
    }
    text.push('\n');
    for (name, value) in &abi.constants {
        if let Some(value) = number(value) {
            let name = name.replace("::", "_").to_uppercase();
            text.push_str(&format!("#define CASTLING_{name} {value}\n"));
        }
    }
    for function in &abi.functions {
        text.push('\n');
        text.push_str(&declaration(function));
    }
    text.push_str("\n#endif\n");
    text
}

fn declaration(function: &Function) -> String {
    let Function {
        name,
        parameters,
        result,
        contract,
    } = function;
    let list: Vec<String> = parameters
        .iter()
        .map(|parameter| declared(name, parameter))
        .collect();
    let list = if list.is_empty() {
        "void".to_owned()
    } else {
        list.join(", ")
    };
    let result = match result {
        None => "void",
        Some("i64") => "int64_t",
        Some("f64") => "double",
        Some(_) => "int32_t",
    };
    let contract = folded(&contract.replace("crate::", ""));
    format!("{contract}CASTLING_IMPORT({name})\n{result} castling_{name}({list});\n")
}

/// Parameter of the function of this name: what is a pointer, its name says.
fn declared(function: &str, Parameter { name, ty }: &Parameter) -> String {
    let fills = function == "random_get";
    let is_pointer = name == "ptr" || name.ends_with("_ptr");
    match *ty {
        "i64" => format!("int64_t {name}"),
        "f64" => format!("double {name}"),
        _ if name == "out" || name.ends_with("_out") || is_pointer && fills => {
            format!("void *{name}")
        }
        _ if is_pointer => format!("const void *{name}"),
        _ => format!("uint32_t {name}"),
    }
}

/// A comment of lines that are not long. Nothing for an empty text.
fn folded(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].len() + word.len() > 110 {
            lines.push(String::new());
        }
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    format!("/* {} */\n", lines.join("\n * "))
}

/// `NOT_FOUND` of `NotFound`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}

/// Number in C; none for a text or what is computed from other constants.
fn number(value: &str) -> Option<String> {
    let plain = value.replace('_', "");
    match plain.as_str() {
        "u32::MAX" => Some("0xffffffffu".to_owned()),
        plain
            if plain
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b" -*<".contains(&byte)) =>
        {
            Some(format!("({plain})"))
        }
        _ => None,
    }
}

const HEAD: &str = r##"/* The ABI of Castling for plugins in C. Written by `cargo xtask abi` from sdk/abi; docs/plugins/languages.md says how it is used.
 *
 * Pointers and lengths name bytes of the plugin's memory; those outside of it trap. A call that hands out bytes takes (out, cap) and returns
 * their length: where that is larger than cap, nothing was written, and the plugin calls again with more room. A negative result is an
 * enum castling_status. */
#ifndef CASTLING_H
#define CASTLING_H

#include <stdint.h>

#define CASTLING_IMPORT(name) __attribute__((import_module("castling"), import_name(#name)))
#define CASTLING_EXPORT(name) __attribute__((export_name(#name)))

/* Begins a hook: CASTLING_HOOK(access) { ... }. It returns an enum castling_action; what a, b and c are, sdk/abi says. */
#define CASTLING_HOOK(name)                    \
    CASTLING_EXPORT(castling_hook_##name)      \
    int32_t castling_hook_##name(uint32_t a, uint32_t b, uint32_t c)

/* Begins what is called once, before any hook. */
#define CASTLING_CONFIGURE CASTLING_EXPORT(castling_configure) int32_t castling_configure(void)

/* The manifest, a string of JSON; once a module. */
#define CASTLING_MANIFEST(json) \
    __asm__(".section .custom_section.castling.manifest,\"\",@\n.ascii " #json "\n.text\n")
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_c() {
        assert_eq!(snake("NotFound"), "NOT_FOUND");
        assert_eq!(number("16 << 20").as_deref(), Some("(16 << 20)"));
        assert_eq!(number("-1").as_deref(), Some("(-1)"));
        assert_eq!(number("60_000").as_deref(), Some("(60000)"));
        assert_eq!(number("4 + PEER_RECORD_BYTES"), None);
        assert_eq!(number("\"castling\""), None);
    }
}
