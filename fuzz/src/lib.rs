//! Bodies of the fuzz targets: a function a target, from bytes to a panic or nothing.

#[path = "../../tests/tests/scripts/calls.rs"]
mod calls;
mod guest;
pub mod host_calls;
mod lowered;
pub mod messages;
pub mod modules;
pub mod scripts;
mod site;
pub mod texts;
pub mod wasi;
