//! weft.toml: parsed, validated, turned into commands.
//!
//! Both processes read one file, so its meaning has one home. The rules of this crate:
//! - **All problems at once.** [`Config::load`] reports everything wrong with a file, each with line and
//!   column and a sentence that says what to do; a file with any problem yields no configuration.
//! - **One table of keys.** [`schema`] lists every key with type, range, default and meaning. The parser takes
//!   types, ranges and defaults from it, and [`reference_markdown`] prints it as docs/configuration.md.
//! - **Names, not places.** [`Config::commands`] gives the desired state as commands in an order in which every
//!   name exists before it is used; the difference to a running data plane is the control plane's business.
//!
//! The file is walked as a tree of spanned TOML values, not through serde's derive, which stops at the first
//! mistake and cannot say where a missing key should stand.

#![forbid(unsafe_code)]

mod agents;
mod check;
mod commands;
mod endpoint;
mod lifetimes;
mod metrics;
mod model;
mod pool;
mod port;
mod problem;
mod reach;
mod read;
mod reference;
pub mod schema;
mod secret;
mod steering;
mod table;
mod value;
mod vip;

pub use check::check_weight;
pub use model::{
    AgentFiles, Agents, Backend, Config, Dataplane, Evict, Guard, HugePages, Idle, Metrics, Pool, Port,
    Ports, Prefix, Vip,
};
pub use problem::Problem;
pub use reach::NextHop;
pub use reference::reference_markdown;
pub use value::{format_mac, parse_address, parse_mac};
