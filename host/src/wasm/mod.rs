//! Runs plugins: modules in, hook calls through.
//!
//! This part knows no step of a request. It is lent an [`Exchange`](crate::exchange::Exchange), runs one hook of one
//! plugin against it and says what the hook asked for; what that means is the flow's business.

mod bulk;
mod chunks;
mod clock;
mod code;
pub mod compile;
mod cpu;
mod demand;
mod engine;
mod guest;
mod host_call;
mod image;
mod instance;
mod lane;
#[cfg(test)]
mod lane_tests;
mod limit;
mod manifest;
mod mapped;
mod plugin;
mod quarantine;
pub mod said;
mod state;
mod step;
mod taken;

pub use chunks::{Chunks, Passed};
pub use demand::{
    BodyRefused, Call, CallResponse, Demand, Destination, NoSupplier, Supplier, Supply,
};
pub use engine::{Engine, MAX_INSTANCES, instances};
pub use host_call::PLUGIN_FIELDS;
pub use host_call::SIGNATURES;
pub use manifest::{Capability, Manifest, TimerOn};
pub use plugin::{HookError, Judged, Module, Opinion, Plugin, PluginStatus};
pub use step::{Going, Next, Step, Way};
pub use taken::{Judge, PinnedInstances};
