//! Health of peers: what their requests say (`passive`), and what the gateway's own say (`active`).

pub(super) mod active;
mod grpc;
mod passive;

pub use passive::PassiveHealth;
