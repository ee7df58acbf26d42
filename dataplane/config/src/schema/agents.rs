//! Keys of `[agents]`.

use super::*;

/// The table.
pub const SECTION: Section = Section {
    header: "[agents]",
    meaning: "Where `weft-ctrlplane` listens for agents on backends, for VIPs whose `steering` has `\"agent\"`. The files \
              are read again with every reload; other changes here need the restart of `weft-ctrlplane`. docs/operating.md \
              says how to make the certificates.",
    keys: &[LISTEN, AUTHORITY, CERTIFICATE, KEY, REVOKED, TOKENS, REPORTS],
};
/// `listen`.
pub const LISTEN: Key = Key {
    name: "listen",
    kind: Kind::Text("an IP address and a port, such as `10.0.1.254:7443`"),
    default: Without::Required,
    meaning: "An address of this machine that backends reach and clients do not. Without certificates it must be a \
              loopback address: then whoever connects is believed which backend it is.",
};
/// `authority`.
pub const AUTHORITY: Key = Key {
    name: "authority",
    kind: Kind::Text("the path of a PEM file"),
    default: Without::Otherwise("none: `listen` must be a loopback address"),
    meaning: "Certificates of the authorities that agents' certificates must come from.",
};
/// `certificate`.
pub const CERTIFICATE: Key = Key {
    name: "certificate",
    kind: Kind::Text("the path of a PEM file"),
    default: Without::Otherwise("none, as `authority`"),
    meaning: "The control plane's certificate, for the name or address that agents connect to.",
};
/// `key`.
pub const KEY: Key = Key {
    name: "key",
    kind: Kind::Text("the path of a PEM file"),
    default: Without::Otherwise("none, as `authority`"),
    meaning: "The certificate's key.",
};
/// `revoked`.
pub const REVOKED: Key = Key {
    name: "revoked",
    kind: Kind::Text("the path of a PEM file"),
    default: Without::Otherwise("none: a certificate is good until it expires"),
    meaning: "Lists of revoked certificates (CRL), one of each authority; certificates of an authority without a list here \
              are refused. A reload closes the connections of agents whose certificate is on a list now. \
              `scripts/certificates --revoke` makes it.",
};
/// `tokens`.
pub const TOKENS: Key = Key {
    name: "tokens",
    kind: Kind::Integer { min: 1, max: 100_000_000 },
    default: Without::Integer(1_000_000),
    meaning: "Connections that one backend's agent may have reported at a time. Twice as many subflows. What goes \
              beyond is refused and counted. An agent that lies holds so many tokens that give way to none: for all agents \
              together, less than `tokens` of `[dataplane]`.",
};
/// `reports_per_second`.
pub const REPORTS: Key = Key {
    name: "reports_per_second",
    kind: Kind::Integer { min: 100, max: 1_000_000 },
    default: Without::Integer(50_000),
    meaning: "Reports taken from one agent. A faster one waits, and reports anew what it could not keep.",
};
