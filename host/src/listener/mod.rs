//! Accepts connections on the sockets that the master has bound.

mod acceptor;
mod addresses;
mod admit;
mod proxied;
mod shed;
mod socket;
mod watch;

pub use acceptor::Acceptor;
pub use shed::Shedder;
pub use socket::ListeningSocket;
