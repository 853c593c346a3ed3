//! Arguments in the parentheses of `#[plugin(...)]`.

use std::fmt::Write;
use std::time::Duration;

use castling_abi::Hook;
use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Error, LitStr, Result, Token, Type, bracketed};

/// `#[plugin]`, `#[plugin(state = Type, state_in = "instance", state_as = "plain", variables = ["a", "b"], timer = "5s", timer_on = "one_worker")]`.
#[derive(Default)]
pub(crate) struct Arguments {
    /// Per-request state.
    pub(crate) state: Option<Type>,
    /// Where it is kept; the request, by default.
    state_in: Option<LitStr>,
    /// How the host keeps it; encoded, by default.
    state_as: Option<LitStr>,
    /// Names that the `variable` hook computes.
    pub(crate) variables: Vec<LitStr>,
    /// `configure` names them.
    are_declared: bool,
    timer: Option<Duration>,
    timer_on: Option<LitStr>,
}

const EXPECTED: &str = "expected `state = Type`, `state_in = \"instance\"`, `state_as = \"plain\"`, `variables = [\"name\"]`, `timer = \"5s\"` or `timer_on = \"one_worker\"`";

/// A timer that comes more often would keep the worker from its requests; one that comes more seldom is cron's.
const PERIODS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);

impl Arguments {
    pub(crate) fn parse(arguments: TokenStream) -> Result<Self> {
        let mut parsed = Self::default();
        let parser = syn::meta::parser(|meta| {
            let name = meta.path.get_ident().map(ToString::to_string);
            match name.as_deref() {
                Some("state") => parsed.state = Some(meta.value()?.parse()?),
                Some("state_in") => parsed.state_in = Some(home(meta.value()?.parse()?)?),
                Some("state_as") => parsed.state_as = Some(form(meta.value()?.parse()?)?),
                Some("variables") => {
                    let value = meta.value()?;
                    match value.peek(LitStr) {
                        true => parsed.are_declared = declared(value.parse()?)?,
                        false => parsed.variables = names(value)?,
                    }
                }
                Some("timer") => parsed.timer = Some(period(meta.value()?.parse()?)?),
                Some("timer_on") => parsed.timer_on = Some(place(meta.value()?.parse()?)?),
                _ => return Err(meta.error(EXPECTED)),
            }
            Ok(())
        });
        syn::parse::Parser::parse2(parser, arguments)?;
        Ok(parsed)
    }

    /// Arguments that a hook needs must be there, and none for a hook that is not.
    pub(crate) fn check_against(&self, hooks: &[&str], plugin: &Type) -> Result<()> {
        let has = |hook: Hook| hooks.contains(&hook.name());
        let has_names = self.are_declared || !self.variables.is_empty();
        let text = match (has(Hook::Variable), has_names) {
            (true, false) => Some(
                "the `variable` hook needs the names that it computes: `#[plugin(variables = [\"name\"])]`",
            ),
            (false, true) => Some("`variables` are named, but there is no `variable` hook"),
            _ => None,
        };
        let text = text.or(match (has(Hook::Timer), self.timer.is_some()) {
            (true, false) => Some("the `timer` hook needs its period: `#[plugin(timer = \"5s\")]`"),
            (false, true) => Some("`timer` is set, but there is no `timer` hook"),
            (false, false) if self.timer_on.is_some() => {
                Some("`timer_on` is set, but there is no `timer` hook")
            }
            _ => None,
        });
        let text = text.or(match (&self.state, &self.state_in, &self.state_as) {
            (None, Some(_), _) => Some("`state_in` is set, but there is no `state`"),
            (None, _, Some(_)) => Some("`state_as` is set, but there is no `state`"),
            (_, _, Some(_)) if self.keeps_instance() => Some(
                "`state_as` is for a state that the host keeps, and this one lies in the instance",
            ),
            _ => None,
        });
        match text {
            Some(text) => Err(Error::new_spanned(plugin, text)),
            None => Ok(()),
        }
    }

    /// The state lies in the instance, which is kept for the request.
    pub(crate) fn keeps_instance(&self) -> bool {
        let home = self.state_in.as_ref().map(LitStr::value);
        self.state.is_some() && home.as_deref() == Some("instance")
    }

    /// The state is kept as it lies in memory.
    pub(crate) fn is_plain(&self) -> bool {
        self.state_as
            .as_ref()
            .is_some_and(|form| form.value() == "plain")
    }

    /// Members of the manifest's object, each with its comma before it.
    pub(crate) fn manifest(&self) -> String {
        let mut text = String::new();
        if !self.variables.is_empty() {
            let names: Vec<_> = self
                .variables
                .iter()
                .map(|name| format!("\"{}\"", name.value()))
                .collect();
            // Writing to a String cannot fail.
            let _ = write!(text, ",\"variables\":[{}]", names.join(","));
        }
        if let Some(every) = self.timer {
            let on = self
                .timer_on
                .as_ref()
                .map_or("workers".to_owned(), LitStr::value);
            let _ = write!(
                text,
                ",\"timer\":{{\"every_ms\":{},\"on\":\"{on}\"}}",
                every.as_millis()
            );
        }
        text
    }
}

fn names(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let list;
    bracketed!(list in input);
    let names = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?;
    let mut seen = Vec::new();
    for name in &names {
        let text = name.value();
        let valid = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !valid {
            return Err(Error::new_spanned(
                name,
                "a variable's name is of `a-z`, `0-9` and `_`, 1 to 64 bytes",
            ));
        }
        if seen.contains(&text) {
            return Err(Error::new_spanned(name, "named twice"));
        }
        seen.push(text);
    }
    Ok(names.into_iter().collect())
}

fn declared(text: LitStr) -> Result<bool> {
    match text.value().as_str() {
        "declared" => Ok(true),
        _ => Err(Error::new_spanned(
            text.to_token_stream(),
            "expected a list of names, or \"declared\" (`configure` names them, by `variables::declare`)",
        )),
    }
}

fn period(text: LitStr) -> Result<Duration> {
    match humantime::parse_duration(&text.value()) {
        Ok(every) if PERIODS.contains(&every) => Ok(every),
        _ => Err(Error::new_spanned(
            &text,
            "expected a duration from \"10ms\" to \"1day\", such as \"5s\"",
        )),
    }
}

fn home(text: LitStr) -> Result<LitStr> {
    match text.value().as_str() {
        "request" | "instance" => Ok(text),
        _ => Err(Error::new_spanned(
            text.to_token_stream(),
            "expected \"request\" (the host keeps it as bytes, the default) or \"instance\" (the instance serves no other request meanwhile)",
        )),
    }
}

fn form(text: LitStr) -> Result<LitStr> {
    match text.value().as_str() {
        "encoded" | "plain" => Ok(text),
        _ => Err(Error::new_spanned(
            text.to_token_stream(),
            "expected \"encoded\" (by serde and postcard, the default) or \"plain\" (as it lies in memory: a `bytemuck::Pod`)",
        )),
    }
}

fn place(text: LitStr) -> Result<LitStr> {
    match text.value().as_str() {
        "workers" | "one_worker" => Ok(text),
        _ => Err(Error::new_spanned(
            text.to_token_stream(),
            "expected \"workers\" (each of them, the default) or \"one_worker\" of the generation",
        )),
    }
}
