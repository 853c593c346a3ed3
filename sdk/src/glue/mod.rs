//! Functions that the code of `#[plugin]` calls: between the exported functions and the plugin's own.
//!
//! Public for that code only; no part of the SDK's interface.

mod action;
mod returns;
mod slot;
mod state;

use std::time::Duration;

#[cfg(not(target_arch = "wasm32"))]
pub use castling_abi::Hook as HookId;
use castling_abi::{
    Action, BALANCE_DECLINED, BALANCE_FAILED, Hook, MAX_MESSAGE_BYTES, PeerOutcome, Status,
};

pub use returns::{
    IntoChoice, IntoPlugin, IntoUnit, IntoValue, IntoVerdict, choice, plugin, unit, value, verdict,
};
#[cfg(not(target_arch = "wasm32"))]
pub use returns::{decided, ran};
pub use slot::{
    Access, Slot, config, configure, in_instance, in_request, in_request_plain, no_config,
    state_reset, stateless,
};
#[cfg(not(target_arch = "wasm32"))]
pub use slot::{Loaded, load, swap};
pub use std::result::Result::Ok;

use crate::balance::Peers;
use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::host;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::response::{Reply, Verdict};
use crate::variables;
use action::{act, done, fail, settle};

/// Writes the function of a hook whose only parameter is the request and whose result is a verdict.
macro_rules! phase_hooks {
    ($($name:ident = $hook:expr;)+) => {
        $(pub fn $name<A: Access>(
            slot: A,
            _: [u32; 3],
            call: impl FnOnce(&mut A::Plugin, &mut A::State, &mut Request) -> Result<Verdict>,
        ) -> i32 {
            act($hook, slot.run(|plugin, state| call(plugin, state, &mut Request::new())))
        })+
    };
}

phase_hooks! {
    post_read = Hook::PostRead;
    rewrite = Hook::Rewrite;
    preaccess = Hook::Preaccess;
    access = Hook::Access;
    content = Hook::Content;
}

pub fn response_headers<A: Access>(
    slot: A,
    _: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &mut Reply) -> Result<Verdict>,
) -> i32 {
    let verdict = slot.run(|plugin, state| call(plugin, state, &Request::new(), &mut Reply::new()));
    act(Hook::ResponseHeaders, verdict)
}

pub fn response_body<A: Access>(
    slot: A,
    [len, last, _]: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &mut Chunk) -> Result<()>,
) -> i32 {
    let mut chunk = Chunk::new(usize::try_from(len).unwrap_or(usize::MAX), last != 0);
    done(slot.run(|plugin, state| call(plugin, state, &Request::new(), &mut chunk)))
}

pub fn request_body<A: Access>(
    slot: A,
    [len, last, _]: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &mut Chunk) -> Result<Verdict>,
) -> i32 {
    let mut chunk = Chunk::new(usize::try_from(len).unwrap_or(usize::MAX), last != 0);
    let verdict = slot.run(|plugin, state| call(plugin, state, &Request::new(), &mut chunk));
    act(Hook::RequestBody, verdict)
}

pub fn variable<A: Access>(
    slot: A,
    [index, _, _]: [u32; 3],
    names: &[&str],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &str) -> Result<Option<Vec<u8>>>,
) -> i32 {
    let named = usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index));
    let declared = match named {
        Some(_) => None,
        None => variables::declared(index),
    };
    let Some(name) = named.copied().or(declared.as_deref()) else {
        let error = Error::msg(format_args!("there is no variable {index}"));
        return fail(&error, Action::Failed as i32);
    };
    let request = Request::new();
    done(slot.run(|plugin, state| {
        if let Some(value) = call(plugin, state, &request, name)? {
            request.set_var(name, value);
        }
        Ok(())
    }))
}

pub fn timer<A: Access>(
    slot: A,
    _: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State) -> Result<()>,
) -> i32 {
    done(slot.run(|plugin, state| call(plugin, state)))
}

pub fn message<A: Access>(
    slot: A,
    [topic, len, _]: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &str, &[u8]) -> Result<()>,
) -> i32 {
    let unread = |status: Status| Error::msg(format_args!("a message: {}", status.name()));
    done(slot.run(|plugin, state| {
        let name = Buffer::read(0, |out| host::topic_name(topic, out)).map_err(unread)?;
        let len = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(MAX_MESSAGE_BYTES);
        let message = Buffer::read(len, host::message_get).map_err(unread)?;
        call(plugin, state, &String::from_utf8_lossy(&name), &message)
    }))
}

pub fn log<A: Access>(
    slot: A,
    _: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &Outcome) -> Result<()>,
) -> i32 {
    done(slot.run(|plugin, state| call(plugin, state, &Request::new(), &Outcome::new())))
}

pub fn after_response<A: Access>(
    slot: A,
    args: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &Outcome) -> Result<()>,
) -> i32 {
    log(slot, args, call)
}

pub fn balance<A: Access>(
    slot: A,
    [count, tries, _]: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, &Request, &Peers) -> Result<Option<usize>>,
) -> i32 {
    let peers = Peers::new(count, tries);
    let chosen = slot.run(|plugin, state| call(plugin, state, &Request::new(), &peers));
    match settle(chosen) {
        Ok(Some(peer)) => match i32::try_from(peer).ok().filter(|_| peer < peers.len()) {
            Some(index) => index,
            None => {
                let error =
                    Error::msg(format_args!("balance chose peer {peer} of {}", peers.len()));
                fail(&error, BALANCE_FAILED)
            }
        },
        Ok(None) => BALANCE_DECLINED,
        Err(error) => fail(&error, BALANCE_FAILED),
    }
}

pub fn peer_done<A: Access>(
    slot: A,
    [peer, outcome, micros]: [u32; 3],
    call: impl FnOnce(&mut A::Plugin, &mut A::State, usize, PeerOutcome, Duration) -> Result<()>,
) -> i32 {
    let Some(outcome) = PeerOutcome::from_raw(outcome) else {
        // A newer host's: nothing that this plugin could judge.
        return Action::Continue as i32;
    };
    let peer = usize::try_from(peer).unwrap_or(usize::MAX);
    let latency = Duration::from_micros(u64::from(micros));
    done(slot.run(|plugin, state| call(plugin, state, peer, outcome, latency)))
}

/// The manifest as a static's bytes.
pub const fn section<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = text[i];
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::response::Response;
    use crate::testing::{Exchange, FakePeer, with_world};

    #[derive(Default, Deserialize, Serialize)]
    struct Tail(u32, String);

    std::thread_local! {
        static PLUGIN: Slot<&'static str, ()> = const { Slot::new() };
        static PINNED: Slot<&'static str, Tail> = const { Slot::new() };
    }

    fn configured() {
        assert_eq!(
            configure(&PLUGIN, |_| Ok("plugin")),
            Action::Continue as i32
        );
    }

    fn failure() -> Option<String> {
        with_world(|world| world.failure.take())
    }

    #[test]
    fn a_config_that_does_not_fit_fails_with_the_key() {
        with_world(|world| world.config = String::from(r#"{"ports": [80, "x"]}"#));
        let code = configure(&PLUGIN, |text| {
            config::<std::collections::BTreeMap<String, Vec<u16>>>(text)?;
            Ok("plugin")
        });
        assert_eq!(code, Action::Failed as i32);
        let text = failure().unwrap();
        assert!(
            text.starts_with("config.ports[1]: invalid type: string"),
            "{text}"
        );
    }

    #[test]
    fn a_hook_before_configure_fails() {
        let code = access(stateless(&PLUGIN), [0; 3], |_, _, _| Ok(Verdict::Continue));
        assert_eq!(code, Action::Failed as i32);
        assert_eq!(failure().unwrap(), "a hook was called before configure");
    }

    #[test]
    fn an_answer_is_handed_over() {
        configured();
        let mut exchange = Exchange::get("/");
        exchange.request();
        let answer = || Ok(Response::status(401).header("a", "b").body("no").into());
        assert_eq!(
            access(stateless(&PLUGIN), [0; 3], |_, _, _| answer()),
            Action::Answer as i32
        );
        let expected = Some((401, b"\x01\0\x01\0\0\0ab".to_vec(), b"no".to_vec()));
        assert_eq!(exchange.answer(), expected);
    }

    #[test]
    fn an_answer_that_cannot_be_sent_fails() {
        configured();
        for (response, text) in [
            (
                Response::status(99),
                "answer with status 99 and 0 bytes: bad argument: expected a status of 200 to 599",
            ),
            (
                Response::status(200).header("a", "b\r\nc"),
                r#"Response::header("a", "b\r\nc"): bad argument: expected a value without control characters"#,
            ),
        ] {
            let code = content(stateless(&PLUGIN), [0; 3], |_, _, _| Ok(response.into()));
            assert_eq!(code, Action::Failed as i32);
            assert_eq!(failure().unwrap(), text);
        }
    }

    #[test]
    fn a_refused_change_fails_the_hook() {
        configured();
        let mut exchange = Exchange::get("/");
        exchange.request();
        let code = rewrite(stateless(&PLUGIN), [0; 3], |_, _, request| {
            request.set_path("no-slash");
            request.set_header("x", "later");
            Ok(Verdict::Continue)
        });
        assert_eq!(code, Action::Failed as i32);
        let told = r#"set_path("no-slash"): bad argument: expected a path that begins with /"#;
        assert!(failure().unwrap().starts_with(told));
        assert_eq!(
            access(stateless(&PLUGIN), [0; 3], |_, _, _| Ok(Verdict::Continue)),
            Action::Continue as i32
        );
    }

    #[test]
    fn only_rewrite_may_reroute() {
        configured();
        assert_eq!(
            rewrite(stateless(&PLUGIN), [0; 3], |_, _, _| Ok(Verdict::Reroute)),
            Action::Reroute as i32
        );
        assert_eq!(
            access(stateless(&PLUGIN), [0; 3], |_, _, _| Ok(Verdict::Reroute)),
            Action::Failed as i32
        );
        assert_eq!(
            failure().unwrap(),
            "access returned Verdict::Reroute, which is for rewrite"
        );
    }

    #[test]
    fn balance_returns_an_index_that_exists() {
        configured();
        let mut exchange = Exchange::get("/")
            .peer(FakePeer::at("a:1"))
            .peer(FakePeer::at("b:2").tried());
        exchange.request();
        let choose = |choice: Option<usize>| {
            balance(stateless(&PLUGIN), [2, 1, 0], |_, _, _, peers| {
                assert_eq!(peers.tries(), 1);
                assert_eq!(
                    peers.iter().map(|peer| peer.tried).collect::<Vec<_>>(),
                    [false, true]
                );
                assert_eq!(peers.get(1).unwrap().address(), "b:2");
                Ok(choice)
            })
        };
        assert_eq!(choose(Some(1)), 1);
        assert_eq!(choose(None), BALANCE_DECLINED);
        assert_eq!(choose(Some(2)), BALANCE_FAILED);
        assert_eq!(failure().unwrap(), "balance chose peer 2 of 2");
    }

    #[test]
    fn state_goes_with_its_request() {
        configured();
        let adds = |text: &str| {
            let mut seen = None;
            let code = log(in_request::<_, Tail>(&PLUGIN), [0; 3], |_, tail, _, _| {
                tail.0 += 1;
                tail.1.push_str(text);
                seen = Some((tail.0, tail.1.len()));
                Ok(())
            });
            assert_eq!(code, Action::Continue as i32);
            seen.unwrap()
        };
        let mut one = Exchange::get("/");
        one.request();
        assert_eq!(adds("a"), (1, 1));
        assert_eq!(adds(&"b".repeat(300)), (2, 301));
        assert_eq!(adds("c"), (3, 302));
        let mut other = Exchange::get("/");
        other.request();
        assert_eq!(adds("a"), (1, 1));
    }

    #[test]
    fn state_stays_where_a_hook_fails_and_is_refused_where_it_is_none() {
        configured();
        let mut exchange = Exchange::get("/");
        exchange.request();
        let fails = |tail: &mut Tail| {
            tail.0 += 7;
            Err(Error::msg("no"))
        };
        let code = log(in_request::<_, Tail>(&PLUGIN), [0; 3], |_, tail, _, _| {
            fails(tail)
        });
        assert_eq!(code, Action::Failed as i32);
        log(in_request::<_, Tail>(&PLUGIN), [0; 3], |_, tail, _, _| {
            assert_eq!(tail.0, 7);
            Ok(())
        });
        // Another type's bytes.
        let code = log(
            in_request::<_, String>(&PLUGIN),
            [0; 3],
            |_, _, _, _| Ok(()),
        );
        assert_eq!(code, Action::Failed as i32);
        assert!(failure().unwrap().starts_with("the request's state: "));
    }

    #[test]
    fn state_lives_until_it_is_reset() {
        configure(&PINNED, |_| Ok("plugin"));
        let count = || {
            let mut seen = 0;
            log(in_instance(&PINNED), [0; 3], |_, tail, _, _| {
                tail.0 += 1;
                seen = tail.0;
                Ok(())
            });
            seen
        };
        assert_eq!([count(), count()], [1, 2]);
        state_reset(&PINNED);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_chunk_is_replaced() {
        configured();
        let mut exchange = Exchange::get("/").response(200);
        let out = exchange.pass_chunk("abc", true, |_, chunk| {
            assert_eq!((chunk.data(), chunk.is_last()), (&b"abc"[..], true));
            chunk.replace("defg");
            assert_eq!(chunk.data(), b"abc");
        });
        assert_eq!(out, b"defg");
    }
}
