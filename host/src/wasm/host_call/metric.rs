//! Metrics that a plugin defines when it is configured, and counts in its hooks.

use castling_abi::{IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::metrics::InstanceMetrics;
use crate::wasm::guest::{Guest, bytes, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::METRIC_DEFINE, metric_define)?
        .func_wrap(IMPORT_MODULE, imports::METRIC_SERIES, metric_series)?
        .func_wrap(IMPORT_MODULE, imports::METRIC_ADD, metric_add)?
        .func_wrap(IMPORT_MODULE, imports::METRIC_SET, metric_set)?
        .func_wrap(IMPORT_MODULE, imports::METRIC_OBSERVE, metric_observe)?;
    Ok(())
}

fn metric_define(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let definition = bytes(memory, ptr, len)?;
    if !guest.may(&rules::METRIC_DEFINE) {
        return refuse(rules::METRIC_DEFINE.refused);
    }
    let defined = guest.metrics.define(definition);
    if defined.is_ok() {
        guest.note_repeatable();
    }
    numbered(defined)
}

fn metric_series(mut caller: Caller<'_, Guest>, metric: u32, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let values = bytes(memory, ptr, len)?;
    let series = guest.metrics.series(metric, values);
    if series.is_ok() {
        guest.note_repeatable();
    }
    numbered(series)
}

fn metric_add(mut caller: Caller<'_, Guest>, series: u32, value: f64) -> Result<i32> {
    change(&mut caller, |metrics| metrics.add(series, value))
}

fn metric_set(mut caller: Caller<'_, Guest>, series: u32, value: f64) -> Result<i32> {
    change(&mut caller, |metrics| metrics.set(series, value))
}

fn metric_observe(mut caller: Caller<'_, Guest>, series: u32, value: f64) -> Result<i32> {
    change(&mut caller, |metrics| metrics.observe(series, value))
}

fn change(
    caller: &mut Caller<'_, Guest>,
    change: impl FnOnce(&InstanceMetrics) -> Result<(), Status>,
) -> Result<i32> {
    let guest = caller.data_mut();
    guest.count_host_call()?;
    match change(&guest.metrics) {
        Ok(()) => Ok(DONE),
        Err(status) => refuse(status),
    }
}

fn numbered(result: Result<u32, Status>) -> Result<i32> {
    match result.map(i32::try_from) {
        Ok(Ok(number)) => Ok(number),
        Ok(Err(_)) => refuse(Status::Limit),
        Err(status) => refuse(status),
    }
}
