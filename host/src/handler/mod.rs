//! Content that the gateway makes itself.

pub mod acme_challenge;
pub mod metrics_page;
pub mod redirect;
