//! Pieces of bodies, as a receiver is given them.

use bytes::Bytes;

/// State of a body that is read, without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of the body; never empty.
    Data(Bytes),
    /// Nothing more has come yet.
    NeedMore,
    /// The body is complete.
    End,
}
