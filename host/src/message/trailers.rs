//! Fields after a body.

use castling_abi::rules::check;
use http::header::HeaderName;

/// Whether the field may follow a body: [`check::may_be_trailer`].
pub fn may_be_trailer(name: &HeaderName) -> bool {
    check::may_be_trailer(name.as_str().as_bytes())
}
