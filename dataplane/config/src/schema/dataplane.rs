//! Keys of `[dataplane]` and its tables of times.

use super::*;

/// The table.
pub const SECTION: Section = Section {
    header: "[dataplane]",
    meaning: "Cores, memory and ports of `weft-dataplane`. Read once, at its start.",
    keys: &[
        WORKERS,
        FLOWS,
        TOKENS,
        RUNTIME_DIR,
        HUGE_PAGES,
        MEMORY_MB,
        MBUFS,
        FILE_PREFIX,
        MAGLEV_SEED,
        TUNNEL_SOURCE,
        KEEP_TABLES,
        IDLE,
        EVICT,
        GUARD,
        PORT,
    ],
};
/// `workers`.
pub const WORKERS: Key = Key {
    name: "workers",
    kind: Kind::Integers { min: 0, max: 127 },
    default: Without::Otherwise("lcore 0 alone"),
    meaning: "The lcores (CPU numbers) that poll, each with one receive and one transmit queue on every port. \
              A worker takes its core whole.",
};
/// `flows`.
pub const FLOWS: Key = Key {
    name: "flows",
    kind: Kind::Integer { min: 1024, max: 1_000_000_000 },
    default: Without::Integer(1_000_000),
    meaning: "Entries the flow table is made for. Fixed at start; about 30 bytes each.",
};
/// `tokens`.
pub const TOKENS: Key = Key {
    name: "tokens",
    kind: Kind::Integer { min: 1024, max: 1_000_000_000 },
    default: Without::Integer(1_000_000),
    meaning: "Entries the token table is made for. Fixed at start; about 13 bytes each.",
};
/// `runtime_dir`.
pub const RUNTIME_DIR: Key = Key {
    name: "runtime_dir",
    kind: Kind::Text("an absolute path of at most 80 bytes"),
    default: Without::Text("/run/weft"),
    meaning: "Holds the shared segment, the tables' files, the lock files and the control plane's socket. \
              One directory for each Weft of a machine.",
};
/// `huge_pages`.
pub const HUGE_PAGES: Key = Key {
    name: "huge_pages",
    kind: Kind::Choice(&["auto", "on", "off"]),
    default: Without::Text("auto"),
    meaning: "`on` refuses to start without huge pages, `off` never asks for them, `auto` takes them where \
              there are any and says so.",
};
/// `memory_mb`.
pub const MEMORY_MB: Key = Key {
    name: "memory_mb",
    kind: Kind::Integer { min: 32, max: 1_048_576 },
    default: Without::Integer(256),
    meaning: "Memory for packet buffers, in MiB. The tables' memory comes on top.",
};
/// `mbufs`.
pub const MBUFS: Key = Key {
    name: "mbufs",
    kind: Kind::Integer { min: 1024, max: 100_000_000 },
    default: Without::Otherwise("as many as rings, caches and bursts hold"),
    meaning: "Packet buffers at least, where a device holds more than its rings: `net_pcap` with `infinite_rx` keeps \
              one for every packet of its file. Each takes about 2.4 KiB of `memory_mb`.",
};
/// `file_prefix`.
pub const FILE_PREFIX: Key = Key {
    name: "file_prefix",
    kind: Kind::Text("1 to 48 of a-z, A-Z, 0-9, `-` and `_`"),
    default: Without::Otherwise("derived from `runtime_dir`"),
    meaning: "Tells this DPDK program's files from those of others on the machine.",
};
/// `maglev_seed`.
pub const MAGLEV_SEED: Key = Key {
    name: "maglev_seed",
    kind: Kind::Integer { min: 0, max: i64::MAX as u64 },
    default: Without::Integer(0x7765_6674),
    meaning: "Seed of the public hash that chooses backends. Appliances that share VIPs must share it.",
};
/// `tunnel_source`.
pub const TUNNEL_SOURCE: Key = Key {
    name: "tunnel_source",
    kind: Kind::Texts("an IP address"),
    default: Without::Otherwise("the address of the port the packet leaves by"),
    meaning: "Outer source address of tunnelled packets (`forward = \"ipip\"` or `\"gue\"`), at most one of each \
              family.",
};
/// `keep_tables`.
pub const KEEP_TABLES: Key = Key {
    name: "keep_tables",
    kind: Kind::Flag,
    default: Without::Flag(true),
    meaning: "Whether the tables' file stays in `runtime_dir` when `weft-dataplane` ends, so that the next start knows \
              every flow and token. `false` removes it: the next start is empty. After a reboot tables start empty \
              in any case.",
};
/// `[dataplane.idle]`.
pub const IDLE: Key = Key {
    name: "idle",
    kind: Kind::Table(&idle::SECTION),
    default: Without::Otherwise("its defaults"),
    meaning: "When a silent flow is forgotten.",
};
/// `[dataplane.evict]`.
pub const EVICT: Key = Key {
    name: "evict",
    kind: Kind::Table(&evict::SECTION),
    default: Without::Otherwise("its defaults"),
    meaning: "Which flows give way to new ones when the flow table is full.",
};
/// `[dataplane.guard]`.
pub const GUARD: Key = Key {
    name: "guard",
    kind: Kind::Table(&guard::SECTION),
    default: Without::Otherwise("no bounds"),
    meaning: "How much one source network, and all together, may open.",
};
/// `[[dataplane.port]]`.
pub const PORT: Key = Key {
    name: "port",
    kind: Kind::Tables(&port::SECTION),
    default: Without::Otherwise("no ports; enough for `replay`, not for `run`"),
    meaning: "DPDK ports.",
};

/// Longest idle time, in seconds. Ages are told in 12 bits of ticks of 16 seconds (engine's `tick`).
pub const MAX_SECONDS: u64 = 64_000;

/// A token lives at least so long after its last subflow ended: a client that changes networks may be between two.
const LEAST_CLOSING_MPTCP: u64 = 60;

/// Keys of `[dataplane.idle]`.
pub mod idle {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[dataplane.idle]",
        meaning: "How long a flow may be silent before it is forgotten, in seconds, by where it stands. Weft sees only \
                  the client's packets and counts in ticks of 16 seconds: a time is rounded up to whole ticks.",
        keys: &[HALF_OPEN, ESTABLISHED, CLOSING, CLOSING_MPTCP, ADOPTED, UDP],
    };

    const fn key(name: &'static str, min: u64, default: u64, meaning: &'static str) -> Key {
        let kind = Kind::Integer { min, max: MAX_SECONDS };
        Key { name, kind, default: Without::Integer(default), meaning }
    }

    /// `half_open`.
    pub const HALF_OPEN: Key = key("half_open", 1, 64, "After a SYN that nothing followed.");
    /// `established`.
    pub const ESTABLISHED: Key = key(
        "established",
        1,
        MAX_SECONDS,
        "Connections that carry data or could. 64000 s are 17.7 hours. A Multipath TCP connection's token lives as \
         long as one of its subflows.",
    );
    /// `closing`.
    pub const CLOSING: Key =
        key("closing", 1, 64, "After a FIN or RST, on a connection without Multipath TCP's token.");
    /// `closing_mptcp`.
    pub const CLOSING_MPTCP: Key = key(
        "closing_mptcp",
        LEAST_CLOSING_MPTCP,
        128,
        "After a FIN or RST on a subflow, and of the token after its last subflow. A token that went sooner would \
         break connections whose client is between two networks.",
    );
    /// `adopted`.
    pub const ADOPTED: Key = key(
        "adopted",
        1,
        320,
        "Flows first seen in their middle, so that nobody knows whether they are real.",
    );
    /// `udp`.
    pub const UDP: Key = key("udp", 1, 128, "UDP flows.");
}

/// Keys of `[dataplane.evict]`.
pub mod evict {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[dataplane.evict]",
        meaning: "How long a flow must have been silent, in seconds, before it may give way to a new one in a full \
                  table; `\"never\"` keeps it until its idle time. Of several the first class in this order goes first. \
                  A new flow that finds no place is balanced by Maglev without an entry.",
        keys: &[HALF_OPEN, ADOPTED, CLOSING, OWN, KEPT],
    };

    const fn key(name: &'static str, default: Without, meaning: &'static str) -> Key {
        Key { name, kind: Kind::SecondsOrNever(MAX_SECONDS), default, meaning }
    }

    /// `half_open`.
    pub const HALF_OPEN: Key = key(
        "half_open",
        Without::Integer(0),
        "A SYN that nothing followed: what SYN floods are made of; also joins that only their own token placed, until \
         they last (ADR 0007).",
    );
    /// `adopted`.
    pub const ADOPTED: Key =
        key("adopted", Without::Integer(0), "Flows first seen in their middle, and UDP.");
    /// `closing`.
    pub const CLOSING: Key = key("closing", Without::Integer(0), "Flows after a FIN or RST.");
    /// `own`.
    pub const OWN: Key = key(
        "own",
        Without::Integer(64),
        "Established flows whose backend is Maglev's own answer: without their entry they go on to the same backend \
         as long as the pool does not change.",
    );
    /// `kept`.
    pub const KEPT: Key = key(
        "kept",
        Without::Text("never"),
        "Established flows whose backend is another: joined subflows, and flows from before a change of their pool. \
         Without their entry they break.",
    );
}

/// Keys of `[dataplane.guard]`.
pub mod guard {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[dataplane.guard]",
        meaning: "Bounds on what SYNs open, against floods of forged handshakes. Beyond them a connection is balanced by \
                  Maglev and works, but without an entry (it breaks when its pool changes), or without its token (its \
                  joins are unknown, unless agents tell); a join that only its own token places (`token-map`) is dropped. Counted as `flow_over_share`, `flow_over_rate`, \
                  `token_over_share` and `token_over_rate`. What the bounds cannot do: docs/threat-model.md.",
        keys: &[PREFIX4, PREFIX6, FLOW_SHARE, TOKEN_SHARE, NEW_FLOWS, NEW_TOKENS],
    };

    const fn key(name: &'static str, (min, max): (u64, u64), default: u64, meaning: &'static str) -> Key {
        Key { name, kind: Kind::Integer { min, max }, default: Without::Integer(default), meaning }
    }

    /// `prefix4`.
    pub const PREFIX4: Key =
        key("prefix4", (8, 32), 24, "Bits of an IPv4 source address that are one network.");
    /// `prefix6`.
    pub const PREFIX6: Key =
        key("prefix6", (16, 64), 48, "Bits of an IPv6 source address that are one network.");
    /// `flow_share`.
    pub const FLOW_SHARE: Key = key(
        "flow_share",
        (1, 100),
        100,
        "Percent of the flow table that half-open flows of one network may take; 100 is no bound.",
    );
    /// `token_share`.
    pub const TOKEN_SHARE: Key = key(
        "token_share",
        (1, 100),
        100,
        "Percent of the token table that tokens of one network may take before traffic confirms them; 100 is no bound.",
    );
    /// `new_flows`.
    pub const NEW_FLOWS: Key = key(
        "new_flows",
        (0, 1_000_000_000),
        0,
        "New TCP flows a second, for each worker, that get an entry; 0 is no bound. Joins of known tokens do not count.",
    );
    /// `new_tokens`.
    pub const NEW_TOKENS: Key = key(
        "new_tokens",
        (0, 1_000_000_000),
        0,
        "New Multipath TCP connections a second, for each worker, whose token is learned; 0 is no bound.",
    );
}
