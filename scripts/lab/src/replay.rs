//! What the engine says about captured packets: the shipped `weft-dataplane replay`, so that "a hash would have sent
//! this join elsewhere" is the engine's word and not a second implementation of its hash.
//!
//! The capture is taken at the balancer's interface and holds everything that the client sends to the VIP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::balancer::{self, Balancer};
use crate::process::{self, Task};
use crate::topology::{BALANCER_INTERFACE, Family, Lab, PORT};
use crate::{Error, Result, interrupt};

/// A capture that is being taken.
#[derive(Debug)]
pub struct Capture {
    task: Task,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture what the client sends to the VIP; returns once it does.
    pub fn start(lab: &Lab, name: &str, family: Family) -> Result<Self> {
        let file = lab.file(&format!("{name}.pcap"));
        let filter = format!("dst host {} and tcp dst port {PORT}", family.vip());
        // tcpdump would give up root, and with it the run's directory.
        let words = format!("-n -U -Z root -B 16384 -i {BALANCER_INTERFACE} -w");
        let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
        arguments.extend([file.display().to_string(), filter]);
        let log = lab.file(&format!("{name}-tcpdump.log"));
        let mut task = lab.balancer.task("tcpdump", &lab.helper, "tcpdump".as_ref(), &arguments, &log)?;
        let listening = || -> Result<Option<()>> {
            task.check()?;
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(said.contains("listening on").then_some(()))
        };
        let limit = Duration::from_secs(10);
        interrupt::poll(limit, Duration::from_millis(20), listening)?.ok_or(Error::Timeout {
            what: "tcpdump did not start to capture".to_owned(),
            seconds: limit.as_secs(),
            detail: String::new(),
        })?;
        Ok(Self { task, file })
    }

    /// Ends the capture; returns its file.
    pub fn finish(mut self) -> PathBuf {
        self.task.stop();
        self.file
    }
}

/// One line of the engine's verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// The packet's place in the capture, from 1.
    pub packet: u64,
    /// `forward`, `local`, `punt` or `drop`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// The backend's name.
    pub backend: Option<String>,
    /// The token that the packet carries or teaches, 8 hex digits.
    pub token: Option<String>,
}

/// Lets the engine decide about every packet of `capture` under `options`.
pub fn verdicts(
    lab: &Lab,
    weft: &Balancer,
    options: &balancer::Options,
    capture: &Path,
) -> Result<Vec<Verdict>> {
    let steering = if options.no_steering { "hash" } else { "learn" };
    let file = |extension: &str| capture.with_extension(format!("by-{steering}.{extension}"));
    let (config, out, lines) = (file("toml"), file("pcap"), file("jsonl"));
    let text = balancer::configuration(options, &lab.file("replay"));
    std::fs::write(&config, text).map_err(|e| Error::io("cannot write the configuration of a replay", e))?;
    let mut replay = Command::new(weft.dataplane_binary());
    replay.arg("replay").arg("--config").arg(&config).arg("--in").arg(capture);
    replay.arg("--out").arg(&out).arg("--verdicts").arg(&lines);
    process::run(&mut replay)?;
    let text = std::fs::read_to_string(&lines).map_err(|e| Error::io("cannot read the verdicts", e))?;
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|e| Error::other(format!("replay said `{line}`: {e}")))
    };
    text.lines().map(parse).collect()
}

/// One join as the engine sees it with and without token steering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Where its token leads.
    pub by_token: String,
    /// Where the hash of its 5-tuple leads.
    pub by_hash: String,
}

/// The joins of a capture by their token. A SYN that was sent again is the same join: its 5-tuple is the same.
pub fn joins(learn: &[Verdict], hash: &[Verdict]) -> BTreeMap<String, Join> {
    let pairs = learn.iter().zip(hash).filter(|(a, b)| a.reason == "token" && a.packet == b.packet);
    let named = pairs.filter_map(|(a, b)| {
        let join = Join { by_token: a.backend.clone()?, by_hash: b.backend.clone()? };
        Some((a.token.clone()?, join))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(packet: u64, reason: &str, backend: &str, token: Option<&str>) -> Verdict {
        Verdict {
            packet,
            verdict: "forward".to_owned(),
            reason: reason.to_owned(),
            backend: Some(backend.to_owned()),
            token: token.map(str::to_owned),
        }
    }

    #[test]
    fn a_join_sent_twice_counts_once() {
        let learn = [
            verdict(1, "hash", "b1", None),
            verdict(2, "flow", "b1", Some("913e6c21")),
            verdict(3, "token", "b1", Some("913e6c21")),
            verdict(4, "token", "b1", Some("913e6c21")),
        ];
        let mut hash = learn.clone();
        for packet in &mut hash[2..] {
            packet.reason = "hash".to_owned();
            packet.backend = Some("b3".to_owned());
        }
        let joins = joins(&learn, &hash);
        let only = Join { by_token: "b1".to_owned(), by_hash: "b3".to_owned() };
        assert_eq!(joins, BTreeMap::from([("913e6c21".to_owned(), only)]));
    }
}
