//! The key of a client's address (nginx `ip_hash`).

use std::net::IpAddr;

/// First three octets of an IPv4 address, and the whole of an IPv6 one: clients of one small network stay together.
pub(super) struct IpKey {
    octets: [u8; 16],
    count: usize,
}

impl IpKey {
    pub(super) fn new(client: IpAddr) -> Self {
        let mut octets = [0; 16];
        // A client of IPv4 that was accepted on a socket of both families is the same one.
        let count = match client.to_canonical() {
            IpAddr::V4(client) => {
                octets[..3].copy_from_slice(&client.octets()[..3]);
                3
            }
            IpAddr::V6(client) => {
                octets = client.octets();
                16
            }
        };
        Self { octets, count }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_small_network_stay_together() {
        let key = |client: &str| IpKey::new(client.parse().unwrap()).as_bytes().to_vec();
        assert_eq!(key("192.0.2.7"), [192, 0, 2]);
        assert_eq!(key("192.0.2.9"), key("::ffff:192.0.2.200"));
        assert_ne!(key("192.0.2.9"), key("192.0.3.9"));
        assert_eq!(key("2001:db8::1").len(), 16);
        assert_ne!(key("2001:db8::1"), key("2001:db8::2"));
    }
}
