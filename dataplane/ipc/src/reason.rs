//! Why a packet went where it went: the one list of reasons, shared by verdicts, counters, `weftctl drops`,
//! the JSON of `replay` and docs/packet-path.md (a test holds the page to this list).

use crate::names;

names! {
    /// The reason of a verdict. The first forward, [`Reason::is_drop`] tells the drops.
    pub enum Reason {
        /// The packet belongs to a 5-tuple already in the flow table.
        Flow = "flow",
        /// Weighted Maglev chose the backend from the public hash of the 5-tuple.
        Hash = "hash",
        /// A SYN with MP_JOIN followed its token to the backend that owns the connection.
        Token = "token",
        /// A SYN with MP_JOIN went to the backend that its token itself names, by range or encrypted number.
        TokenMap = "token_map",
        /// A SYN with MP_CAPABLE went to the backend that the token of the key chosen for it names, with that key.
        ChosenKey = "chosen_key",
        /// A packet went to the backend whose number is in the timestamp it echoes, without state.
        Timestamp = "timestamp",
        /// An ICMP error that quotes a packet of a VIP's flow went to that flow's backend.
        Related = "related",
        /// A UDP fragment: Maglev chose by addresses and protocol alone, so that all fragments of a datagram meet.
        Fragment = "fragment",
        /// What comes to a port or address of one backend's own went to that backend, without state.
        Endpoint = "endpoint",
        /// An ARP request for an address of the port, or of a VIP in its networks, was answered.
        Arp = "arp",
        /// A neighbour solicitation for an address of the port, or of a VIP in its networks, was answered.
        Neighbour = "neighbour",
        /// A SYN with MP_JOIN of an unknown token was answered with RST, as the VIP's policy asks.
        TokenReset = "token_reset",
        /// A SYN that is wrong at a backend's own port or address was answered with RST, as the VIP's policy asks.
        EndpointReset = "endpoint_reset",
        /// An ICMP echo request to a VIP, or to the port, was answered.
        Echo = "echo",
        /// The packet was larger than the port's MTU once encapsulated: its sender was told the size that fits.
        TooBigTold = "too_big_told",

        /// No configuration was committed yet.
        NoConfig = "no_config",
        /// The destination MAC address is not the port's: a copy meant for somebody else.
        NotOurMac = "not_our_mac",
        /// The frame ends before the header it announces.
        Truncated = "truncated",
        /// The Ethernet type is neither IPv4, IPv6 nor ARP.
        OtherEthertype = "other_ethertype",
        /// The IPv4 header contradicts itself: version, header length or total length.
        BadIpv4 = "bad_ipv4",
        /// The IPv6 header or its chain of extension headers contradicts itself or is too long to follow.
        BadIpv6 = "bad_ipv6",
        /// The TCP data offset is below 5 or points past the packet.
        BadTcp = "bad_tcp",
        /// The UDP length is shorter than its header or longer than the packet.
        BadUdp = "bad_udp",
        /// A fragment of a TCP packet: its options cannot be trusted and its ports may be missing.
        TcpFragment = "tcp_fragment",
        /// A fragment of anything but TCP and UDP, or of UDP to an address whose UDP VIPs send different ways.
        OtherFragment = "other_fragment",
        /// A protocol that is not balanced, or an ICMP message that is nobody's here.
        OtherProtocol = "other_protocol",
        /// ARP that asks for an address that is neither the port's nor an on-link VIP's, or that is no request.
        ArpNotOurs = "arp_not_ours",
        /// No VIP has this destination address, port and protocol.
        NotVip = "not_vip",
        /// The VIP's pool has no backend that may be chosen.
        NoBackend = "no_backend",
        /// The backend has no MAC address yet: none configured and none resolved.
        NoNeighbour = "no_neighbour",
        /// The port a tunnel leaves by has no address of the outer family, and no tunnel source is configured.
        NoTunnelAddress = "no_tunnel_address",
        /// A SYN with MP_JOIN whose token no connection taught; TCP sends it again, and by then it may be known.
        UnknownToken = "unknown_token",
        /// A SYN with MP_JOIN whose token two backends claim with equal right.
        AmbiguousToken = "ambiguous_token",
        /// A SYN to a backend's own port or address that is no join, or a join whose connection is known to be elsewhere.
        WrongEndpoint = "wrong_endpoint",
        /// A SYN with MP_JOIN of a token with too many joins within a tick, or of a made-up one beyond the guard's bounds.
        JoinRate = "join_rate",
        /// A SYN with MP_JOIN whose 5-tuple was another backend's flow within half a minute; TCP sends it again.
        FlowInUse = "flow_in_use",
        /// An ICMP error to a VIP that names no flow of it, or an echo request that is damaged or cannot be answered.
        BadIcmp = "bad_icmp",
        /// The packet is larger than the port's MTU once encapsulated; its sender allows fragments, or was told enough.
        TooBig = "too_big",
        /// The buffer has no room in front for the outer header.
        NoHeadroom = "no_headroom",
    }
}

impl Reason {
    /// Whether a verdict with this reason drops the packet.
    #[inline]
    pub const fn is_drop(self) -> bool {
        self.index() >= Self::NoConfig.index()
    }
}
