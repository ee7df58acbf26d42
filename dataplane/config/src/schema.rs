//! Every key of weft.toml: its type, range, default and meaning. The one table behind parser and reference.

use ipc::limits;

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number in a range, both ends included.
    Integer {
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// Seconds from 0 to the number, or the word "never".
    SecondsOrNever(u64),
    /// A list of whole numbers, each in a range.
    Integers {
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// A string; the text says of what form.
    Text(&'static str),
    /// A string or a list of strings; the text says of what form.
    Texts(&'static str),
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A list of these strings.
    Choices(&'static [&'static str]),
    /// A port number, a list of them, or "any".
    Ports,
    /// A table of its own.
    Table(&'static Section),
    /// Any number of tables of their own.
    Tables(&'static Section),
}

/// What holds where a key is left out.
#[derive(Clone, Copy, Debug)]
pub enum Without {
    /// Nothing: the key must be given.
    Required,
    /// This number.
    Integer(u64),
    /// This truth.
    Flag(bool),
    /// This string; of [`Kind::SecondsOrNever`], this word.
    Text(&'static str),
    /// This list of one string.
    List(&'static str),
    /// Nothing, or something derived; the sentence says what.
    Otherwise(&'static str),
}

/// One key of one table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds without it.
    pub default: Without,
    /// What it does; one or two sentences of Markdown.
    pub meaning: &'static str,
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its header as written in the file; empty for the file itself.
    pub header: &'static str,
    /// What it is about, in Markdown.
    pub meaning: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

/// The file.
pub const FILE: Section = Section {
    header: "",
    meaning: "One file serves both processes. Unknown keys are errors. A file with any mistake is refused whole.",
    keys: &[DATAPLANE_KEY, POOL_KEY, VIP_KEY, AGENTS_KEY, METRICS_KEY],
};

/// `[dataplane]`.
pub const DATAPLANE_KEY: Key = Key {
    name: "dataplane",
    kind: Kind::Table(&dataplane::SECTION),
    default: Without::Otherwise("every key of it as by default; enough for `replay`"),
    meaning: "The fast process. Changes here need its restart.",
};

/// `[[pool]]`.
pub const POOL_KEY: Key = Key {
    name: "pool",
    kind: Kind::Tables(&pool::SECTION),
    default: Without::Otherwise("no pools but those of VIPs with backends of their own"),
    meaning: "Sets of backends.",
};

/// `[[vip]]`.
pub const VIP_KEY: Key = Key {
    name: "vip",
    kind: Kind::Tables(&vip::SECTION),
    default: Without::Otherwise("no VIPs: every packet is dropped as `not_vip`"),
    meaning: "What clients connect to.",
};

/// `[agents]`.
pub const AGENTS_KEY: Key = Key {
    name: "agents",
    kind: Kind::Table(&agents::SECTION),
    default: Without::Otherwise("no agents are listened to"),
    meaning: "Agents on backends.",
};

/// `[metrics]`.
pub const METRICS_KEY: Key = Key {
    name: "metrics",
    kind: Kind::Table(&metrics::SECTION),
    default: Without::Otherwise("served on the socket of `weftctl` alone"),
    meaning: "What is counted, for Prometheus.",
};

pub mod agents;
pub mod dataplane;
pub mod metrics;
pub mod port;

/// What a name may be; said by the reference.
pub const NAME_FORM: &str = "a name of 1 to 63 bytes without spaces or control characters";

const _: () = assert!(limits::MAX_NAME == 63, "NAME_FORM says 63");
const _: () = assert!(limits::MAX_WEIGHT == 1000, "the data plane refuses what the schema would allow");

/// Keys of `[[pool]]`.
pub mod pool {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[[pool]]",
        meaning: "A set of backends. VIPs name a pool, several may share one. A token belongs to a pool: a \
                  connection that began on one VIP may be joined on another VIP of its pool.",
        keys: &[NAME, BACKEND],
    };
    /// `name`.
    pub const NAME: Key = Key {
        name: "name",
        kind: Kind::Text(NAME_FORM),
        default: Without::Required,
        meaning: "Unique among pools.",
    };
    /// `[[pool.backend]]`.
    pub const BACKEND: Key = Key {
        name: "backend",
        kind: Kind::Tables(&backend::SECTION),
        default: Without::Required,
        meaning: "The pool's backends, at least one.",
    };
}

/// Keys of `[[pool.backend]]` and `[[vip.backend]]`.
pub mod backend {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[[pool.backend]]",
        meaning: "A machine that serves the pool's VIPs. `[[vip.backend]]` takes the same keys.",
        keys: &[NAME, ADDRESS, MAC, WEIGHT, NUMBER, ENDPOINT_PORT, ENDPOINT_ADDRESS],
    };
    /// `name`.
    pub const NAME: Key = Key {
        name: "name",
        kind: Kind::Text(NAME_FORM),
        default: Without::Required,
        meaning: "Unique in its pool. Maglev's choice depends on it, so a renamed backend is another backend.",
    };
    /// `address`.
    pub const ADDRESS: Key = Key {
        name: "address",
        kind: Kind::Texts("an IP address"),
        default: Without::Required,
        meaning: "The backend's own addresses, at most one of each family, not the VIP's. `l2dsr` needs a family in \
                  common with the VIP and an address on a port's network. `ipip` and `gue` go to the address of the \
                  packet's family, else to the other; outside the ports' networks by way of a port's `gateway`.",
    };
    /// `mac`.
    pub const MAC: Key = Key {
        name: "mac",
        kind: Kind::Text("six hexadecimal bytes with colons"),
        default: Without::Otherwise(
            "resolved by the control plane, the gateway's where the backend is behind one",
        ),
        meaning: "Where frames for the backend go: its own MAC address, or the next hop's for tunnels across a router.",
    };
    /// `weight`.
    pub const WEIGHT: Key = Key {
        name: "weight",
        kind: Kind::Integer { min: 0, max: 1000 },
        default: Without::Integer(100),
        meaning: "Share of new connections, relative to the other backends of the pool. 0 takes no new ones and \
                  keeps those it has.",
    };
    /// `number`.
    pub const NUMBER: Key = Key {
        name: "number",
        kind: Kind::Integer { min: 1, max: limits::MAX_NUMBER as u64 },
        default: Without::Otherwise("no number"),
        meaning: "What the backend is called in tokens that are encrypted, where the server puts it into every token it makes. \
                  Unique in its pool. Needed where a VIP of the pool has `token_map = \"cipher\"`, or steers by `\"chosen-key\"`: \
                  there it stands in the timestamps.",
    };
    /// `endpoint_port`.
    pub const ENDPOINT_PORT: Key = Key {
        name: "endpoint_port",
        kind: Kind::Integer { min: 1, max: 65_535 },
        default: Without::Otherwise("none"),
        meaning: "The backend's own port on the addresses of VIPs that steer by `\"endpoint\"`: joins to it go to this \
                  backend. The server announces it; `weftctl backend commands` prints how.",
    };
    /// `endpoint_address`.
    pub const ENDPOINT_ADDRESS: Key = Key {
        name: "endpoint_address",
        kind: Kind::Texts("an IP address"),
        default: Without::Otherwise("none"),
        meaning: "The backend's own addresses towards clients, at most one of each family, for VIPs that steer by \
                  `\"endpoint\"`: joins to them, at the VIP's ports, go to this backend. Routed to Weft as VIPs are, \
                  and borne by the backend alone. The backend's own `address` may stand here, too: joins then pass \
                  Weft by.",
    };
}

/// Keys of `[[vip]]`.
pub mod vip {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[[vip]]",
        meaning: "What clients connect to: addresses, ports, a protocol.",
        keys: &[NAME, ADDRESS, PORT, PROTOCOL, POOL, BACKEND, FORWARD, MPTCP],
    };
    /// `name`.
    pub const NAME: Key = Key {
        name: "name",
        kind: Kind::Text(NAME_FORM),
        default: Without::Required,
        meaning: "Unique among VIPs.",
    };
    /// `address`.
    pub const ADDRESS: Key = Key {
        name: "address",
        kind: Kind::Texts("an IP address"),
        default: Without::Required,
        meaning: "One or more addresses, of either family.",
    };
    /// `port`.
    pub const PORT: Key = Key {
        name: "port",
        kind: Kind::Ports,
        default: Without::Required,
        meaning: "Which ports. A VIP with a number goes before a VIP with `\"any\"` on the same address.",
    };
    /// `protocol`.
    pub const PROTOCOL: Key = Key {
        name: "protocol",
        kind: Kind::Choice(&["tcp", "udp"]),
        default: Without::Text("tcp"),
        meaning: "Which protocol. Multipath TCP is TCP.",
    };
    /// `pool`.
    pub const POOL: Key = Key {
        name: "pool",
        kind: Kind::Text("the name of a `[[pool]]`"),
        default: Without::Otherwise("the pool of the VIP's own `[[vip.backend]]`"),
        meaning: "Which backends serve the VIP.",
    };
    /// `[[vip.backend]]`.
    pub const BACKEND: Key = Key {
        name: "backend",
        kind: Kind::Tables(&VIP_BACKEND),
        default: Without::Otherwise("those of `pool`"),
        meaning: "In place of `pool`: backends of a pool of the VIP's own, which bears the VIP's name.",
    };
    /// `[[vip.backend]]` is `[[pool.backend]]` under another header.
    pub const VIP_BACKEND: Section = Section { header: "[[vip.backend]]", ..backend::SECTION };
    /// `forward`.
    pub const FORWARD: Key = Key {
        name: "forward",
        kind: Kind::Choice(&["l2dsr", "ipip", "gue"]),
        default: Without::Text("l2dsr"),
        meaning: "How packets reach a backend, which answers the client directly. `l2dsr` rewrites the destination MAC \
                  address: backends are on a port's network. `ipip` wraps the packet in IP, `gue` in IP, UDP (port \
                  6080) and GUE: backends may be anywhere, of either family, and unwrap it. Backends bear the VIP on \
                  a loopback interface in every mode.",
    };
    /// `[vip.mptcp]`.
    pub const MPTCP: Key = Key {
        name: "mptcp",
        kind: Kind::Table(&mptcp::SECTION),
        default: Without::Otherwise("its defaults"),
        meaning: "How Multipath TCP is steered. For `protocol = \"tcp\"`.",
    };
}

/// Keys of `[vip.mptcp]`.
pub mod mptcp {
    use super::*;

    /// The table.
    pub const SECTION: Section = Section {
        header: "[vip.mptcp]",
        meaning: "How joins (second subflows) find the backend that holds their connection.\n\n\
                  A secret stands here or, by a key that ends in `_file`, alone in a file of its own: hexadecimal digits, a \
                  line end after them allowed. A relative name is looked for beside weft.toml. The file is refused if \
                  others than its owner and group may read it, and is read again with every reload.",
        keys: &[
            STEERING,
            UNKNOWN_TOKEN,
            TOKEN_MAP,
            CIPHER_KEY_EVEN,
            CIPHER_KEY_EVEN_FILE,
            CIPHER_KEY_ODD,
            CIPHER_KEY_ODD_FILE,
            KEY_SECRET,
            KEY_SECRET_FILE,
            EXPLICIT_TOKENS,
            WRONG_ENDPOINT,
        ],
    };
    /// What keys that name a file with a secret have in common.
    const SECRET_FILE: Key =
        Key { name: "", kind: Kind::Text("a file's name"), default: Without::Otherwise("none"), meaning: "" };
    /// `steering`.
    pub const STEERING: Key = Key {
        name: "steering",
        kind: Kind::Choices(&["learn", "endpoint", "token-map", "agent", "chosen-key"]),
        default: Without::List("learn"),
        meaning: "In order of preference: what the first does not know, the next is asked. `\"learn\"` takes tokens from \
                  the handshakes that pass by. `\"agent\"` takes them from the agents on the backends (`[agents]`), also \
                  where the handshake passed another appliance. `\"token-map\"` reads the backend from the token itself, \
                  which servers choose so that it says who they are. `\"chosen-key\"`: Weft makes the server's key, sends \
                  it along in the GUE header, and knows later packets by their timestamps. `\"endpoint\"`: servers ask clients to join at a port \
                  or an address of their own (`endpoint_port`, `endpoint_address`). See steering.md. `[]` turns steering by token off: \
                  joins go where the hash of their own addresses says, and with several backends most are refused.",
    };
    /// `token_map`.
    pub const TOKEN_MAP: Key = Key {
        name: "token_map",
        kind: Kind::Choice(&["ranges", "cipher"]),
        default: Without::Text("ranges"),
        meaning: "How a token says who chose it, under `\"token-map\"`. `ranges`: the token space is split among the \
                  pool's backends by their names. `cipher`: the token is the backend's `number`, encrypted.",
    };
    /// `cipher_key_even`.
    pub const CIPHER_KEY_EVEN: Key = Key {
        name: "cipher_key_even",
        kind: Kind::Text("16 hexadecimal digits"),
        default: Without::Otherwise("none: even tokens name nobody"),
        meaning: "The key of even tokens, a secret of the servers and the balancers. Better in a file of its own, with \
                  `cipher_key_even_file`. To change keys: add the one of the other parity, let the servers use it, and remove the \
                  old one when its last connection is over.",
    };
    /// `cipher_key_even_file`.
    pub const CIPHER_KEY_EVEN_FILE: Key =
        Key { name: "cipher_key_even_file", meaning: "A file that holds `cipher_key_even`.", ..SECRET_FILE };
    /// `cipher_key_odd`.
    pub const CIPHER_KEY_ODD: Key = Key {
        name: "cipher_key_odd",
        kind: Kind::Text("16 hexadecimal digits"),
        default: Without::Otherwise("none: odd tokens name nobody"),
        meaning: "The key of odd tokens.",
    };
    /// `cipher_key_odd_file`.
    pub const CIPHER_KEY_ODD_FILE: Key =
        Key { name: "cipher_key_odd_file", meaning: "A file that holds `cipher_key_odd`.", ..SECRET_FILE };
    /// `key_secret`.
    pub const KEY_SECRET: Key = Key {
        name: "key_secret",
        kind: Kind::Text("32 hexadecimal digits"),
        default: Without::Otherwise("none; `\"chosen-key\"` needs it"),
        meaning: "What the keys of `\"chosen-key\"` are made of: a secret of the balancers, the same on all of them. \
                  Servers need not know it. Better in a file of its own, with `key_secret_file`.",
    };
    /// `key_secret_file`.
    pub const KEY_SECRET_FILE: Key =
        Key { name: "key_secret_file", meaning: "A file that holds `key_secret`.", ..SECRET_FILE };
    /// `explicit_tokens`.
    pub const EXPLICIT_TOKENS: Key = Key {
        name: "explicit_tokens",
        kind: Kind::Choices(&["G", "E"]),
        default: Without::Otherwise("none: only the handshakes of RFC 8684 and RFC 6824"),
        meaning: "Flags of MP_CAPABLE that mean: tokens stand in the handshake. `\"G\"`: keys from the application \
                  (draft-paasch-mptcp-application-authentication). `\"E\"`: external keys (draft-baerts-tcpm-mptcpext). \
                  A token that is only claimed costs no search: see steering.md.",
    };
    /// `unknown_token`.
    pub const UNKNOWN_TOKEN: Key = Key {
        name: "unknown_token",
        kind: Kind::Choice(&["drop", "reset", "hash"]),
        default: Without::Text("drop"),
        meaning: "What becomes of a join whose token is unknown or claimed by two backends: `drop` (TCP sends it \
                  again, and by then the token may be known), `reset` (the client is told at once), `hash` (it goes \
                  to the backend the hash chooses).",
    };
    /// `wrong_endpoint`.
    pub const WRONG_ENDPOINT: Key = Key {
        name: "wrong_endpoint",
        kind: Kind::Choice(&["reset", "drop", "forward"]),
        default: Without::Text("reset"),
        meaning: "What a SYN to a backend's own port or address gets that is no join, or a join whose connection is \
                  known to live elsewhere: `reset` (it is answered with RST), `drop`, `forward` (that backend judges).",
    };
}
