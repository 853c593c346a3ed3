//! Runs plugins: modules in, hook calls through.
//!
//! This part knows no step of a request. It is lent an [`Exchange`](crate::exchange::Exchange), runs one hook of one
//! plugin against it and says what the hook asked for; what that means is the flow's business.

mod bulk;
mod clock;
mod code;
pub mod compile;
mod cpu;
mod engine;
mod granted_file;
mod guest;
mod hook_call;
mod hook_error;
mod hook_stack;
#[cfg(test)]
mod hook_stack_tests;
mod host_call;
mod host_io;
mod instance;
mod instance_guard;
mod instance_template;
mod io_request;
mod limit;
mod manifest;
mod mapped;
mod module_state;
pub mod module_text;
mod output;
mod plugin;
mod quarantine;
mod share;
mod snapshot;

pub use engine::{Engine, instances};
pub use granted_file::{FileVersion, GrantedFile, GrantedFiles};
pub use hook_call::HookCall;
pub use hook_error::HookError;
pub use hook_stack::MaybeFuture;
pub use host_call::PLUGIN_FIELDS;
pub use host_call::wasi::{MODULE as WASI_MODULE, SIGNATURES as WASI_FUNCTIONS};
pub use host_io::{HostIo, NoIo};
pub use instance_guard::{PinnedInstances, PolicyInstance};
pub use io_request::{
    BodyRefused, Call, CallFailure, CallResponse, CallResult, Destination, FlightRequest, Flown,
    HostName, IoRequest, IoResult, PasswordWork, Performing, RawDone, RawWork, StreamHead,
    StreamedDone, StreamedWork,
};
pub use manifest::{Capability, Manifest, TimerOn};
pub use plugin::{AfterResponseCall, Module, Plugin, PluginStatus, PolicyResult};
