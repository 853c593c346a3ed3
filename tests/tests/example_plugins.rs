//! The plugins below `examples/`, as their files' heads say that they are configured.

#[path = "example_plugins/bodies.rs"]
mod bodies;
#[path = "example_plugins/caching.rs"]
mod caching;
#[path = "example_plugins/login.rs"]
mod login;
#[path = "example_plugins/shedding.rs"]
mod shedding;
#[path = "example_plugins/waf.rs"]
mod waf;
