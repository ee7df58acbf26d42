//! Keys of `[metrics]`.

use super::*;

/// The table.
pub const SECTION: Section = Section {
    header: "[metrics]",
    meaning: "Where `weft-ctrlplane` serves `/metrics` for Prometheus: every counter and reason by worker, tables, ports, VIPs, \
              backends, agents. Changes here need its restart.",
    keys: &[LISTEN],
};
/// `listen`.
pub const LISTEN: Key = Key {
    name: "listen",
    kind: Kind::Text("an IP address and a port, such as `127.0.0.1:9464`"),
    default: Without::Required,
    meaning: "Whoever reaches it reads names of VIPs and backends and how busy they are, without TLS and without a \
              password: a loopback address, or one of the management network.",
};
