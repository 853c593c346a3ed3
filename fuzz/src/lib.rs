//! Bodies of the fuzz targets: a function a target, from bytes to a panic or nothing.

mod guest;
pub mod host_calls;
pub mod messages;
pub mod modules;
mod site;
pub mod texts;
pub mod wasi;
