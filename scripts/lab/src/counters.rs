//! The kernel's own counters of a namespace, which prove where subflows went (MIB names of Linux, with the prefix
//! `MPTcpExt` that `nstat` gives them).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::namespace::Namespace;
use crate::{Error, Result};

/// The counters the lab looks at, without their prefix, in the order of the report.
pub const WATCHED: [&str; 8] = [
    "MPCapableSYNRX",
    "MPCapableACKRX",
    "MPCapableFallbackACK",
    "MPJoinSynRx",
    "MPJoinAckRx",
    "MPJoinNoTokenFound",
    "MPJoinAckHMacFailure",
    "MPRstTx",
];

/// Every counter of one namespace at one moment, or the difference of two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Kernel(BTreeMap<String, u64>);

impl Kernel {
    /// Reads them. `-a`: absolute values; without it `nstat` subtracts a history that namespaces share.
    pub fn read(namespace: &Namespace) -> Result<Self> {
        let text = namespace.run("nstat", &["-a", "-s", "-z", "-j"])?;
        Self::parse(&text)
            .ok_or_else(|| Error::other(format!("nstat in {} is not understood", namespace.name())))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let counters = value.get("kernel")?.as_object()?;
        Some(Self(counters.iter().filter_map(|(name, n)| Some((name.clone(), n.as_u64()?))).collect()))
    }

    /// A counter by its full name; one the kernel does not have is 0.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// An MPTCP counter by its name without the prefix.
    pub fn mptcp(&self, name: &str) -> u64 {
        self.get(&format!("MPTcpExt{name}"))
    }

    /// What happened since `before`, the counters that moved only.
    pub fn since(&self, before: &Self) -> Self {
        let moved = self.0.iter().map(|(name, now)| (name.clone(), now.saturating_sub(before.get(name))));
        Self(moved.filter(|(_, n)| *n > 0).collect())
    }

    /// The counters of [`WATCHED`] alone.
    pub fn watched(&self) -> BTreeMap<&'static str, u64> {
        WATCHED.into_iter().map(|name| (name, self.mptcp(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_moments_holds_what_moved() {
        let parse = |text| Kernel::parse(text).unwrap();
        let before = parse(r#"{"kernel":{"MPTcpExtMPJoinAckRx":3,"TcpOutRsts":1}}"#);
        let after = parse(r#"{"kernel":{"MPTcpExtMPJoinAckRx":10,"TcpOutRsts":1}}"#);
        let moved = after.since(&before);
        assert_eq!(moved.mptcp("MPJoinAckRx"), 7);
        assert_eq!(moved.get("TcpOutRsts"), 0);
        assert_eq!(moved.0.len(), 1);
    }
}
