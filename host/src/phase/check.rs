//! Checks of the gateway's own, before the plugins of a listener or a route.

use crate::error::Error;
use crate::exchange::Exchange;

/// A check that a request passes, or fails with an error. Where none is needed, which is known at load, there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The connection's client was verified as those of the request's host are. First of a listener whose servers differ in that.
    RightHost,
    /// The client has shown a certificate. First of a route that requires one.
    ClientCertificate,
}

impl Check {
    pub(super) fn run(self, exchange: &Exchange) -> Result<(), Error> {
        let tls = exchange.context().tls.as_ref();
        match self {
            // A sub-request is a plugin's: no client has chosen a connection for it.
            Self::RightHost if exchange.context().depth > 0 => Ok(()),
            Self::RightHost => {
                let host = exchange.request().host_name();
                // RFC 9110 §15.5.20: the client may ask again on a connection for this host.
                match tls.is_some_and(|tls| tls.is_misdirected(host.as_deref())) {
                    true => Err(Error::Misdirected),
                    false => Ok(()),
                }
            }
            Self::ClientCertificate => match tls.is_some_and(|tls| tls.has_client_certificate()) {
                true => Ok(()),
                false => Err(Error::NoClientCertificate),
            },
        }
    }
}
