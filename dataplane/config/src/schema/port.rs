//! Keys of `[[dataplane.port]]`.

use super::*;

/// The table.
pub const SECTION: Section = Section {
    header: "[[dataplane.port]]",
    meaning: "A DPDK port. `replay` needs none.",
    keys: &[DEVICE, MAC, ADDRESS, GATEWAY, EXCEPTION, MTU, PROMISCUOUS, RX_DESCRIPTORS, TX_DESCRIPTORS],
};
/// `device`.
pub const DEVICE: Key = Key {
    name: "device",
    kind: Kind::Text("a PCI address such as `0000:3b:00.0`, or a vdev string as DPDK takes it"),
    default: Without::Required,
    meaning: "Which device.",
};
/// `mac`.
pub const MAC: Key = Key {
    name: "mac",
    kind: Kind::Text("six hexadecimal bytes with colons"),
    default: Without::Otherwise("what the device reports"),
    meaning: "The port's MAC address: frames to it are taken, frames from Weft bear it. Must be given for \
              af_packet, where it is that of the kernel's interface.",
};
/// `address`.
pub const ADDRESS: Key = Key {
    name: "address",
    kind: Kind::Texts("an IP address with its prefix length, such as `10.0.1.254/24`"),
    default: Without::Otherwise("none"),
    meaning: "The port's own addresses: ARP requests and neighbour solicitations for them are answered, \
              tunnels start from them, and their prefixes say which backends the port reaches.",
};
/// `gateway`.
pub const GATEWAY: Key = Key {
    name: "gateway",
    kind: Kind::Texts("an IP address"),
    default: Without::Otherwise("none: every backend is on a port's network, or has its next hop's `mac`"),
    meaning: "The next hop for tunnelled packets to backends outside the ports' networks, at most one of each family, \
              each in a prefix of `address`. The control plane resolves its MAC address.",
};
/// `exception`.
pub const EXCEPTION: Key = Key {
    name: "exception",
    kind: Kind::Text("a name for a kernel interface, 1 to 15 of a-z, A-Z, 0-9, `.`, `_` and `-`"),
    default: Without::Otherwise("none: what is not Weft's is dropped"),
    meaning: "A TAP interface of this name that `weft-dataplane` makes beside the port: what is not Weft's (BGP, SSH, \
              neighbour discovery) goes to the kernel there, and what the kernel sends leaves by the port. For NICs \
              whose kernel driver gave them up.",
};
/// `mtu`.
pub const MTU: Key = Key {
    name: "mtu",
    kind: Kind::Integer { min: 1280, max: 9600 },
    default: Without::Integer(1500),
    meaning: "Largest IP packet in bytes. Tunnels add to a client's packet: `ipip` 20 bytes over IPv4 and 40 over \
              IPv6, `gue` 32 and 52. So 1600 carries clients' 1500 whole.",
};
/// `promiscuous`.
pub const PROMISCUOUS: Key = Key {
    name: "promiscuous",
    kind: Kind::Flag,
    default: Without::Flag(false),
    meaning: "Whether the device takes frames to other MAC addresses, too. Weft drops those as `not_our_mac`.",
};
/// `rx_descriptors`.
pub const RX_DESCRIPTORS: Key = Key {
    name: "rx_descriptors",
    kind: Kind::Integer { min: 64, max: 32_768 },
    default: Without::Integer(1024),
    meaning: "Frames a receive queue holds before the device drops.",
};
/// `tx_descriptors`.
pub const TX_DESCRIPTORS: Key = Key {
    name: "tx_descriptors",
    kind: Kind::Integer { min: 64, max: 32_768 },
    default: Without::Integer(1024),
    meaning: "Frames a transmit queue holds before Weft drops.",
};
