//! Scripts at random: few names and values, so that calls meet, and wrong ones among them.

use std::collections::BTreeMap;

use castling_sdk::script::Call;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use script::{End, Script, Steps};

use crate::calls::call;

/// A request and what plugins do with it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) method: &'static str,
    pub(crate) target: &'static str,
    pub(crate) body: &'static str,
    pub(crate) script: Script,
}

const HOOKS: [&str; 11] = [
    "post_read",
    "rewrite",
    "preaccess",
    "access",
    "content",
    "balance",
    "peer_done",
    "request_body",
    "response_headers",
    "response_body",
    "log",
];

/// Scripts of two plugins. Keys of zones have the case's number in them, as zones outlive cases.
pub(crate) fn case(number: u32) -> impl Strategy<Value = Case> {
    let request = select(vec![("GET", ""), ("POST", "hello body"), ("PUT", "x")]);
    let target = select(vec!["/", "/a?b=1", "/a/b%2Fc"]);
    let script = [0, 1].map(|index| plugin(number, index).boxed());
    let script = script.to_vec();
    (request, target, script).prop_map(|((method, body), target, script)| Case {
        method,
        target,
        body,
        script,
    })
}

fn plugin(number: u32, index: usize) -> impl Strategy<Value = BTreeMap<String, Steps>> {
    let hooks: Vec<_> = HOOKS
        .iter()
        .map(|hook| steps(hook, number, index))
        .collect();
    hooks.prop_map(|steps| {
        let named = HOOKS.iter().map(|hook| (*hook).to_owned()).zip(steps);
        named.collect()
    })
}

fn steps(hook: &'static str, number: u32, index: usize) -> impl Strategy<Value = Steps> {
    let end = match hook {
        "post_read" | "rewrite" | "preaccess" | "access" | "content" | "response_headers" => {
            prop_oneof![
                30 => Just(End::Continue),
                1 => (select(vec![200, 204, 404, 599]), 0..20_usize).prop_map(|(s, b)| End::Answer(s, b)),
                1 => Just(End::Answer(100, 0)),
                1 => Just(End::Fail),
            ]
            .boxed()
        }
        _ => Just(End::Continue).boxed(),
    };
    // A part of a chunk goes through later filters while the hook waits, in the fake host when it has returned: so that the last
    // filter alone, after which there are none, sends any.
    let may_emit = match hook {
        "request_body" => index == 1,
        "response_body" => index == 0,
        _ => true,
    };
    let is_kept = move |call: &Call| may_emit || !matches!(call, Call::ChunkEmit(_));
    (vec(call(number, index), 0..12), end).prop_map(move |(mut calls, end)| {
        calls.retain(is_kept);
        Steps { calls, end }
    })
}
