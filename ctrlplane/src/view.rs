//! What the API says, as values: served as JSON by [`crate::api`], printed by [`crate::print`]. The field
//! names are the JSON's and are stable.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the control plane.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration file.
    pub config: String,
    /// The data plane.
    pub dataplane: DataplaneStatus,
    /// What is wrong now, or went wrong a moment ago: a sentence for each that says what to do.
    pub problems: Vec<String>,
    /// One sentence for each change made at run time that the file does not have.
    pub drift: Vec<String>,
    /// Backends without a MAC address, `pool/name`: the data plane drops what is for them.
    pub unresolved: Vec<String>,
    /// Why the last reload changed nothing, if it failed.
    pub reload_problem: Option<String>,
}

/// How it stands with the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// Whether it runs and answers.
    pub attached: bool,
    /// Why not; empty if it does.
    pub message: String,
    /// Generation of the configuration it has.
    pub generation: u64,
    /// Whether that is what it should have.
    pub in_sync: bool,
    /// Why it refused the last change, if it did.
    pub refused: Option<String>,
    /// Workers that poll.
    pub workers: u64,
    /// Its tables.
    pub tables: Tables,
    /// Packet buffers (mbufs) there are.
    pub mbuf_capacity: u64,
    /// Packet buffers in use.
    pub mbufs_in_use: u64,
    /// Its ports.
    pub ports: Vec<PortRow>,
    /// Its counters that are not zero, by name.
    pub counters: Vec<CounterRow>,
}

/// Sizes and fill of the tables, at the last sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// Flow entries.
    pub flows: u64,
    /// Flow entries the table was made for.
    pub flow_capacity: u64,
    /// Token entries.
    pub tokens: u64,
    /// Token entries the table was made for.
    pub token_capacity: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Pages under them.
    pub pages: Option<String>,
    /// Whether they are those of the data plane before.
    pub kept: bool,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// The device.
    pub device: String,
    /// Its MAC address.
    pub mac: String,
    /// Largest IP packet.
    pub mtu: u64,
    /// Whether the link is up.
    pub link_up: bool,
    /// How often the link went down.
    pub link_downs: u64,
    /// Packets dropped because no worker took them.
    pub rx_missed: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets lost because no buffer was free.
    pub rx_no_mbuf: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// A counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub meaning: String,
    /// How much.
    pub count: u64,
}

/// `GET /v1/vips`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipRow {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub address: Vec<String>,
    /// Its ports; 0 is any.
    pub port: Vec<u16>,
    /// Its protocol.
    pub protocol: String,
    /// Its pool.
    pub pool: String,
    /// How packets reach the backends.
    pub forward: String,
    /// How joins are steered.
    pub steering: Vec<String>,
    /// How a token says who chose it, under `token-map`: `ranges` or `cipher`.
    #[serde(default)]
    pub token_map: String,
    /// The parities of tokens there is a key for, under `cipher`: `even`, `odd`.
    #[serde(default)]
    pub cipher_keys: Vec<String>,
    /// What joins of unknown tokens get.
    pub unknown_token: String,
    /// Packets so far; null without a data plane.
    pub packets: Option<u64>,
    /// Bytes so far; null without a data plane.
    pub bytes: Option<u64>,
}

/// `GET /v1/backends`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRow {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub address: Vec<String>,
    /// Where its frames go; null while unresolved.
    pub mac: Option<String>,
    /// Whether that is from the kernel's neighbour table.
    pub mac_resolved: bool,
    /// The gateway whose MAC that is, where the backend is behind one.
    pub via: Option<String>,
    /// Its number in encrypted tokens and in timestamps.
    #[serde(default)]
    pub number: Option<u16>,
    /// Its own port on the addresses of VIPs, for joins.
    pub endpoint_port: Option<u16>,
    /// Its own addresses towards clients, for joins.
    pub endpoint_address: Vec<String>,
    /// Share of new connections.
    pub weight: u32,
    /// `active`, `draining` or `down`; `removed` (its connections keep it) or `deleted` (nothing reaches it, its
    /// entries are being cleared). Null without a data plane, or when that does not have it.
    pub state: Option<String>,
    /// Seconds until a removed one is deleted, if it has a deadline.
    pub deadline_seconds: Option<u32>,
    /// Whether it was added at run time.
    pub added: bool,
    /// Flow entries that hold it, at the last sweep.
    pub flows: Option<u64>,
    /// Token entries that hold it, at the last sweep.
    pub tokens: Option<u64>,
    /// Packets forwarded to it.
    pub packets: Option<u64>,
    /// Bytes forwarded to it.
    pub bytes: Option<u64>,
}

/// `GET /v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSummary {
    /// Token entries, at the last sweep.
    pub tokens: u64,
    /// Token entries the table was made for.
    pub token_capacity: u64,
    /// What was counted about tokens, keys and joins, zeroes included.
    pub counters: Vec<CounterRow>,
    /// Joins steered by token.
    pub joins_steered: u64,
}

/// One row of `GET /v1/tokens/{token}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOwner {
    /// The token, 8 hexadecimal digits.
    pub token: String,
    /// The pool it belongs to.
    pub pool: String,
    /// Its owner.
    pub backend: String,
    /// How well the owner is known.
    pub rank: String,
    /// Whether another backend claims it with equal right.
    pub ambiguous: bool,
    /// Seconds since it was last seen, to the tick.
    pub age_seconds: u32,
}

/// One row of `GET /v1/drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// The reason.
    pub reason: String,
    /// What it means.
    pub meaning: String,
    /// Packets dropped for it.
    pub packets: u64,
}

/// `POST /v1/backends`: a backend to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// Its pool; may be left out when there is only one pool.
    pub pool: Option<String>,
    /// Its name.
    pub name: String,
    /// Its addresses, at most one of each family.
    pub address: Vec<std::net::IpAddr>,
    /// Its MAC address; resolved if left out.
    pub mac: Option<String>,
    /// Share of new connections.
    pub weight: Option<u32>,
    /// Its number in encrypted tokens and in timestamps.
    #[serde(default)]
    pub number: Option<u16>,
    /// Its own port on the addresses of VIPs, for joins.
    #[serde(default)]
    pub endpoint_port: Option<u16>,
    /// Its own addresses towards clients, for joins; at most one of each family.
    #[serde(default)]
    pub endpoint_address: Vec<std::net::IpAddr>,
}

/// `POST /v1/backends/remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBackend {
    /// Its pool; may be left out when one pool only has a backend of this name.
    pub pool: Option<String>,
    /// Its name.
    pub name: String,
    /// Seconds its connections have; 0 ends them at once, null leaves them to their own end.
    pub deadline_seconds: Option<u32>,
}

/// `POST /v1/backends/drain` and `POST /v1/backends/undrain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedBackend {
    /// Its pool; may be left out when one pool only has a backend of this name.
    pub pool: Option<String>,
    /// Its name.
    pub name: String,
}

/// `POST /v1/backends/weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeighBackend {
    /// Its pool; may be left out when one pool only has a backend of this name.
    pub pool: Option<String>,
    /// Its name.
    pub name: String,
    /// Share of new connections.
    pub weight: u32,
}

/// What became of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whether the data plane has it.
    pub applied: bool,
    /// Generation of its configuration, if so.
    pub generation: Option<u64>,
    /// The pool of the backend it was about, if it was about one.
    pub pool: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// Every answer that is not 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A sentence that says what to do.
    pub error: String,
}

/// A row of `GET /v1/agents`: a backend, and its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// The backend's name, in whatever pools it is.
    pub backend: String,
    /// Whether its agent is connected.
    pub connected: bool,
    /// Where it last connected from; empty if it never did.
    pub peer: String,
    /// For so long it has been connected, or gone.
    pub seconds: u64,
    /// Connections it reports.
    pub tokens: u64,
    /// Times it told all there is.
    pub dumps: u64,
    /// Reports that were more than it may make.
    pub refused: u64,
}

/// `GET /v1/agents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// Where agents are listened to, if they are.
    pub listen: Option<String>,
    /// Backends that have, or should have, an agent.
    pub agents: Vec<AgentRow>,
    /// What the data plane made of their reports.
    pub counters: Vec<CounterRow>,
}

/// A line of `GET /v1/doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether something is to be done.
    pub is_problem: bool,
    /// What was looked at.
    pub about: String,
    /// What was found, and what to do.
    pub finding: String,
}

/// A row of `GET /v1/steering`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// The scheme it is of, or what else bounds or ends joins.
    pub scheme: String,
    /// The reason or counter.
    pub rule: String,
    /// How much was counted.
    pub count: u64,
    /// What it means.
    pub meaning: String,
}
