//! Which addresses tenants may have connections opened to: public ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be reached.
#[derive(Clone, Copy)]
pub struct Policy {
    allow_private: bool,
}

impl Policy {
    /// All public addresses, and with `allow_private` all but the unspecified, multicast and broadcast ones.
    pub const fn new(allow_private: bool) -> Self {
        Self { allow_private }
    }

    /// Whether this address may be reached.
    pub fn allows(self, ip: IpAddr) -> bool {
        let embedded = match ip {
            IpAddr::V4(_) => [None, None],
            IpAddr::V6(ip) => embedded(ip),
        };
        match embedded {
            [None, None] => self.allows_itself(ip),
            embedded => embedded.into_iter().flatten().all(|ip| self.allows_itself(ip.into())),
        }
    }

    fn allows_itself(self, ip: IpAddr) -> bool {
        if self.allow_private {
            !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
        } else {
            match ip {
                IpAddr::V4(ip) => {
                    let within = |(net, length): &(Ipv4Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (32 - length) == 0;
                    !NOT_PUBLIC_V4.iter().any(within)
                }
                IpAddr::V6(ip) => {
                    let within =
                        |(net, length): &(Ipv6Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (128 - length) == 0;
                    within(&GLOBAL_V6) && !NOT_PUBLIC_V6.iter().any(within)
                }
            }
        }
    }
}

/// The IPv4 addresses that packets to this address end at, where it is one of the forms that carry such.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        // Compatible (::a.b.c.d; :: and ::1 come out as 0.0.0.0 and 0.0.0.1, which are judged alike), mapped
        // (::ffff:a.b.c.d), translated (::ffff:0:a.b.c.d), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, a, b]
        | [0, 0, 0, 0, 0, 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => [v4(a, b), None],
        // 6to4 (RFC 3056).
        [0x2002, a, b, ..] => [v4(a, b), None],
        // Teredo (RFC 4380): the server's address, and the client's with its bits inverted.
        [0x2001, 0, a, b, _, _, c, d] => [v4(a, b), v4(!c, !d)],
        _ => [None, None],
    }
}

/// What is not public in IPv4 (IANA's special-purpose registry), as networks and prefix lengths.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's metadata service
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, other clouds' metadata services
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// All public addresses of IPv6 begin with these three bits. Loopback, unique local (fc00::/7), link-local (fe80::/10),
/// site-local (fec0::/10), multicast (ff00::/8), discard (100::/64) and local NAT64 (64:ff9b:1::/48) don't.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within [`GLOBAL_V6`].
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];
