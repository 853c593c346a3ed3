//! Guests on the hook stack: they leave it to others when they compute, and it is free again however a call ends.

use std::rc::Rc;
use std::time::Duration;

use castling_abi::Hook;
use wasmtime::{Linker, Module};

use super::code::Code;
use super::engine::Engine;
use super::hook_call::HookCall;
use super::hook_error::HookError;
use super::hook_stack::HookStack;
use super::host_io::{CallIo, NoIo};
use super::instance::Instance;
use super::instance_guard::PinnedInstances;
use super::instance_template::InstanceTemplate;
use crate::exchange::Exchange;

/// `(module (memory (export "memory") 1) (func (export "castling_configure") (result i32) i32.const 0)
/// (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
/// (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) i32.const 0))`: counts down from its first
/// argument.
const COUNTING: &[u8] =
    b"\0asm\x01\0\0\0\x01\x0c\x02\x60\0\x01\x7f\x60\x03\x7f\x7f\x7f\x01\x7f\x03\x03\x02\0\x01\x05\x03\x01\0\x01\
    \x07\x36\x03\x06memory\x02\0\x12castling_configure\0\0\x14castling_hook_access\0\x01\
    \x0a\x17\x02\x04\0\x41\0\x0b\x10\0\x03\x40\x20\0\x41\x01\x6b\x22\0\x0d\0\x0b\x41\0\x0b";

/// A tenth of a second and more of computing.
const LONG: u32 = 300_000_000;

async fn counting(engine: &Engine, cpu_limit: Duration) -> Box<Instance> {
    let module = Module::new(&engine.wasmtime, COUNTING).unwrap();
    let linker = Linker::new(&engine.wasmtime);
    let pre = linker.instantiate_pre(&module).unwrap();
    let template = InstanceTemplate {
        hooks: vec![Hook::Access],
        cpu_limit,
        ..InstanceTemplate::of_test()
    };
    let code = Rc::new(Code::new(pre, &template.hooks, false).unwrap());
    Instance::new(engine, &code, &template).await.unwrap()
}

async fn count(
    instance: &mut Instance,
    hook_stack: Option<&HookStack>,
    exchange: &mut Box<Exchange>,
    from: u32,
) -> Result<i32, HookError> {
    let call = HookCall::with(Hook::Access, (from, 0, 0));
    let Some(hook_stack) = hook_stack else {
        let pinned = &mut PinnedInstances::default();
        let io = &mut NoIo;
        let mut io = CallIo { io, pinned };
        let called = instance.call(call, exchange, &mut io);
        let result = called.await.expect("nothing is waited for");
        return instance.end_call(result);
    };
    let result = hook_stack.run(|| instance.call_on_stack(call, exchange));
    let result = result.await;
    instance.end_call(result)
}

#[tokio::test]
async fn guests_that_compute_leave_the_lane_to_others_and_go_on() {
    let engine = Engine::for_worker(64 << 10, 8).unwrap();
    let hook_stack = &engine.hook_stack;
    let minute = Duration::from_secs(60);
    let (mut one, mut two, mut quick) = (
        counting(&engine, minute).await,
        counting(&engine, minute).await,
        counting(&engine, minute).await,
    );
    let mut exchanges = [(); 3].map(|()| Exchange::idle());
    let [for_one, for_two, for_quick] = &mut exchanges;
    let others = async {
        let two = count(&mut two, None, for_two, LONG);
        let quick = async {
            for _ in 0..10 {
                assert!(!hook_stack.is_free(), "`one` has it");
                let counted = count(&mut quick, None, for_quick, 1).await;
                assert_eq!(counted.unwrap(), 0);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(two, quick).0
    };
    let one = count(&mut one, Some(hook_stack), for_one, LONG);
    // Polled in this order: it is the first to compute.
    let (one, two) = tokio::join!(biased; one, others);
    assert_eq!((one.unwrap(), two.unwrap()), (0, 0));
    assert!(hook_stack.is_free());
    let counted = count(&mut quick, Some(hook_stack), for_quick, 1).await;
    assert_eq!(counted.unwrap(), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_lane_and_exchange_back() {
    let engine = Engine::for_worker(64 << 10, 8).unwrap();
    let mut instance = counting(&engine, Duration::from_secs(60)).await;
    let mut exchange = Exchange::idle();
    exchange.context_mut().depth = 7;
    tokio::select! {
        biased;
        counted = count(&mut instance, Some(&engine.hook_stack), &mut exchange, 0) => panic!("{counted:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert!(instance.is_suspended());
    assert_eq!(exchange.context().depth, 7);
    let mut next = counting(&engine, Duration::from_secs(60)).await;
    let counted = count(&mut next, Some(&engine.hook_stack), &mut exchange, 1).await;
    assert_eq!(counted.unwrap(), 0);
}

#[tokio::test]
async fn the_limit_of_cpu_time_holds_on_the_lane() {
    let engine = Engine::for_worker(64 << 10, 8).unwrap();
    let mut instance = counting(&engine, Duration::from_millis(5)).await;
    let mut exchange = Exchange::idle();
    let counted = count(&mut instance, Some(&engine.hook_stack), &mut exchange, 0);
    let HookError::Trapped(why) = counted.await.unwrap_err() else {
        panic!("it was not ended by a trap")
    };
    assert!(why.starts_with("limits.cpu of 5 ms reached"), "{why}");
    assert!(why.contains("wasm backtrace"), "{why}");
    assert!(engine.hook_stack.is_free());
}
