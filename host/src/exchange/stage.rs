//! Stages of an exchange.

/// Stage of an exchange, which decides what a guest may change. Hooks run at one after the other, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No request: the instance is being configured, or lent to nobody.
    Idle,
    /// The request's head may be read and changed.
    Request,
    /// A peer is being chosen or judged; nothing may be changed.
    Balance,
    /// The response's head may be changed too.
    Reply,
    /// Chunks of the response's body pass by.
    Body,
    /// All is over.
    Log,
}
