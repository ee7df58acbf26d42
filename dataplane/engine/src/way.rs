//! Ways: the ports, and by which of them a packet reaches a backend.
//!
//! A backend is *on link* where one of its addresses lies in a port's prefix: its frames go out there, to its own MAC
//! address. What lies elsewhere is reached through a gateway: the frame goes out of the port that has a gateway of
//! the address's family, to the gateway's MAC address. Either way the MAC address is the one the control plane
//! resolved for the backend. A backend has one: where both of its addresses are used, they must have it in common.
//!
//! All of this is worked out when a snapshot is built; the packet path only reads it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::id::PortId;
use packet::{Address, Family};

/// A port as the packet path sees it.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// Its MAC address. `None` only in `replay` without a port: then every destination MAC is taken for ours,
    /// and the source MAC of what is sent is the input's destination MAC.
    pub mac: Option<[u8; 6]>,
    /// Its own addresses with prefix lengths: answered by ARP and ND, and telling what is on-link.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its gateway for IPv4, if it has one: tunnels to off-link IPv4 addresses leave here.
    pub gateway4: Option<Ipv4Addr>,
    /// The same, IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Largest IP packet that may leave. `None` sets no limit (`replay` without a port).
    pub mtu: Option<u16>,
    /// The kernel has every frame of this port already (net_af_packet): what is not Weft's is its business, not a
    /// drop, and it answers for the port's own addresses.
    pub kernel_sees_frames: bool,
    /// The port has an exception path: the kernel gets what is not Weft's through it, and answers for the port's own
    /// addresses.
    pub exception: bool,
}

impl Port {
    /// The port's first address of a family: the outer source of its tunnels.
    pub(crate) fn tunnel_source(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|(address, _)| *address).find(|address| family_of(*address) == family)
    }

    /// Whether `address` is one of the port's own.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// Whether `address` lies in one of the port's prefixes.
    pub(crate) fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, prefix)| same_prefix(*own, address, *prefix))
    }

    /// Whether the kernel answers for the port's own addresses and gets what is not Weft's.
    pub(crate) fn has_kernel(&self) -> bool {
        self.kernel_sees_frames || self.exception
    }

    fn has_gateway(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.gateway4.is_some(),
            Family::V6 => self.gateway6.is_some(),
        }
    }
}

/// The end of a tunnel to a backend, and where its packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The outer destination: an address of the backend.
    pub destination: Address,
    /// The outer family.
    pub family: Family,
    /// The port; `None` sends out of the port the packet came from.
    pub port: Option<PortId>,
}

/// The ways to a backend, for packets of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    /// The port for the packet as it is; `None` sends out of the port it came from.
    pub(crate) link: Option<PortId>,
    /// The tunnel: to the backend's address of the packet's own family if it has one, else to the other.
    pub(crate) tunnel: Option<Tunnel>,
}

impl Ways {
    /// The ways for packets of the family of `own`; `other` is the backend's address of the other family.
    pub(crate) fn find(ports: &[Port], own: Option<IpAddr>, other: Option<IpAddr>) -> Self {
        let link = [own, other].into_iter().flatten().find_map(|address| on_link(ports, address));
        let tunnel = own.or(other).map(|address| {
            let family = family_of(address);
            let gateway = || first(ports, |port| port.has_gateway(family));
            let port = on_link(ports, address).or_else(gateway);
            Tunnel { destination: Address::from(address), family, port }
        });
        Self { link, tunnel }
    }
}

/// The port whose prefix holds an address.
fn on_link(ports: &[Port], address: IpAddr) -> Option<PortId> {
    first(ports, |port| port.is_on_link(address))
}

fn first(ports: &[Port], is_it: impl Fn(&Port) -> bool) -> Option<PortId> {
    let index = ports.iter().position(is_it)?;
    u8::try_from(index).ok().map(PortId)
}

/// An address's family.
pub(crate) const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The one of a pair that is a family's; IPv4 comes first.
#[inline]
pub(crate) fn of_family<T>([v4, v6]: &[T; 2], family: Family) -> &T {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// Whether two addresses of one family agree in their first `prefix` bits.
fn same_prefix(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let (a, b, bits) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let ignored = u32::from(bits - prefix.min(bits));
    (a ^ b).checked_shr(ignored).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn port(addresses: &[(&str, u8)], gateway4: Option<&str>, gateway6: Option<&str>) -> Port {
        Port {
            addresses: addresses.iter().map(|(text, prefix)| (text.parse().unwrap(), *prefix)).collect(),
            gateway4: gateway4.map(|text| text.parse().unwrap()),
            gateway6: gateway6.map(|text| text.parse().unwrap()),
            ..Port::default()
        }
    }

    #[test]
    fn a_prefix_of_zero_bits_holds_every_address_of_its_family() {
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        assert!(same_prefix(a, b, 0));
        assert!(!same_prefix(a, b, 1));
        assert!(!same_prefix(a, "fd00::1".parse().unwrap(), 0));
        assert!(same_prefix("fd00::1".parse().unwrap(), "2001::1".parse().unwrap(), 0));
    }

    #[test]
    fn a_tunnel_leaves_on_link_else_by_a_gateway_of_its_outer_family_else_where_it_came_from() {
        let ports = [
            port(&[("10.0.1.254", 24), ("fd00:1::254", 64)], None, None),
            port(&[("10.0.2.254", 24)], Some("10.0.2.1"), None),
            port(&[("fd00:3::254", 64)], None, Some("fd00:3::1")),
        ];
        let way = |own, other| Ways::find(&ports, ip(own), ip(other)).tunnel.unwrap();
        // On link on two ports, by family.
        assert_eq!(way("10.0.2.9", "fd00:1::9").port, Some(PortId(1)));
        assert_eq!(way("fd00:1::9", "10.0.2.9").port, Some(PortId(0)));
        // Off link.
        assert_eq!(way("192.0.2.9", "fd00:1::9").port, Some(PortId(1)));
        assert_eq!(way("2001:db8::9", "10.0.2.9").port, Some(PortId(2)));
        // The other family where there is none of the packet's own.
        let only6 = Ways::find(&ports, None, ip("2001:db8::9")).tunnel.unwrap();
        assert_eq!((only6.family, only6.port), (Family::V6, Some(PortId(2))));
        let nowhere = Ways::find(&ports[..1], ip("192.0.2.9"), None);
        assert_eq!((nowhere.link, nowhere.tunnel.unwrap().port), (None, None));
    }

    #[test]
    fn a_frame_without_a_tunnel_leaves_by_the_port_of_the_packets_family_else_of_the_other() {
        let ports = [port(&[("10.0.1.254", 24)], None, None), port(&[("fd00:2::254", 64)], None, None)];
        let link = |own, other| Ways::find(&ports, own, other).link;
        let (v4, v6) = (ip("10.0.1.9"), ip("fd00:2::9"));
        assert_eq!(link(v4, v6), Some(PortId(0)));
        assert_eq!(link(v6, v4), Some(PortId(1)));
        assert_eq!(link(None, v4), Some(PortId(0)));
        assert_eq!(link(ip("192.0.2.9"), None), None);
    }
}
