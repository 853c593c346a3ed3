//! Report about certificates that are ordered, for `castling status`.

use serde::{Deserialize, Serialize};

/// Certificate that the gateway orders itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcmeReport {
    pub names: Vec<String>,
    /// `held`, `none`, or `ordering` while an order is under way.
    pub state: String,
    /// Time up to which the one that is held is good, RFC 3339 in UTC.
    pub not_after: Option<String>,
    /// Time of the next order, RFC 3339 in UTC.
    pub next_order: Option<String>,
    /// Orders that have failed since the last success.
    pub failures: u32,
    pub last_error: Option<String>,
}
