//! Content that the gateway makes itself.

pub mod metrics_page;
pub mod redirect;
