//! `weft-bench gen`: the command line, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use capture::Resolution;
use config::{Config, parse_mac};
use ipc::message::Protocol;

use super::output::{Summary, write};
use super::plan::{Families, Part, Plan, Versions, Vip};
use super::profile::Profile;
use super::size::FrameSize;

/// Arguments of `gen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the file is about; --list says what there is.
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    pub profile: Option<Profile>,
    /// Where to write it (pcap); it gets that name when it is whole.
    #[arg(long, value_name = "FILE.pcap", required_unless_present = "list")]
    pub out: Option<PathBuf>,
    /// Connections, or flows of datagrams, or senders of a flood.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub connections: u64,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Which packets.
    #[arg(long, value_enum, default_value_t)]
    pub part: Part,
    /// Exactly so many packets: more rounds of data, or a file that ends early.
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,
    /// Where clients connect to: [tcp/|udp/]ADDRESS:PORT. Again for more; they are used in turn.
    #[arg(long = "vip", value_name = "VIP", conflicts_with = "config")]
    pub vips: Vec<Vip>,
    /// Takes the VIPs and the port's MAC address from a weft.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The clients' address family; both where there are VIPs of both.
    #[arg(long, value_enum, value_name = "4|6|both")]
    pub family: Option<Families>,
    /// The MPTCP version.
    #[arg(long = "version", value_enum, default_value_t, value_name = "0|1|both")]
    pub versions: Versions,
    /// Frames of established flows: imix (7 of 60, 4 of 566 and 1 of 1514 bytes, or the smallest the headers allow),
    /// min (acknowledgments), or a number of bytes. The frame check sequence is not counted.
    #[arg(long, value_name = "imix|min|BYTES", default_value_t)]
    pub frame_size: FrameSize,
    /// Packets a second, by their timestamps.
    #[arg(long, value_name = "PPS", default_value_t = 1_000_000)]
    pub rate: u64,
    /// Timestamps in microseconds, for programs that read no others (pktgen); in nanoseconds without.
    #[arg(long)]
    pub microseconds: bool,
    /// DSS checksums in version 1 too (version 0 has them).
    #[arg(long)]
    pub dss_checksums: bool,
    /// The MAC address frames go to: Weft's port. From --config where it says one, else 02:00:00:00:02:01.
    #[arg(long, visible_alias = "gateway", value_name = "MAC", value_parser = parse_mac)]
    pub dst_mac: Option<[u8; 6]>,
    /// The MAC address frames come from.
    #[arg(long, value_name = "MAC", default_value = "02:00:00:00:01:01", value_parser = parse_mac)]
    pub src_mac: [u8; 6],
    /// Prints what was written as JSON.
    #[arg(long)]
    pub json: bool,
    /// Prints every profile with what is in it.
    #[arg(long)]
    pub list: bool,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept the file from being written, in one sentence.
    pub fn run(&self) -> anyhow::Result<()> {
        if self.list {
            self.print_list()?;
            return Ok(());
        }
        let Some(out) = &self.out else { bail!("say where to write: --out FILE.pcap") };
        let summary = write(self.plan()?, out)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary)?);
        } else {
            print!("{}", told(&summary));
        }
        Ok(())
    }

    /// The plan that the arguments make.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let Some(profile) = self.profile else { bail!("say what about: --profile NAME, see --list") };
        let mut plan = Plan {
            seed: self.seed,
            part: self.part,
            families: self.family,
            versions: self.versions,
            size: self.frame_size,
            packets: self.packets,
            rate: self.rate,
            dss_checksums: self.dss_checksums,
            resolution: if self.microseconds { Resolution::Microseconds } else { Resolution::Nanoseconds },
            ..Plan::new(profile, self.connections)
        };
        plan.link.source = self.src_mac;
        if let Some(path) = &self.config {
            let config = Config::load(path).map_err(|problems| {
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("{}", all.join("\n"))
            })?;
            plan.vips = vips_of(&config);
            if let Some(mac) = config.dataplane.ports.first().and_then(|port| port.mac) {
                plan.link.destination = mac;
            }
        } else if !self.vips.is_empty() {
            plan.vips.clone_from(&self.vips);
            // Who makes datagrams means a UDP VIP.
            for vip in plan.vips.iter_mut().filter(|_| profile == Profile::Udp) {
                vip.udp = true;
            }
        }
        if let Some(mac) = self.dst_mac {
            plan.link.destination = mac;
        }
        Ok(plan)
    }

    fn print_list(&self) -> anyhow::Result<()> {
        if self.json {
            let all: Vec<_> = Profile::ALL.into_iter().map(listed).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        for profile in Profile::ALL {
            println!("{:14} {}", profile.name(), profile.sentence());
        }
        Ok(())
    }
}

/// A profile, as `--list --json` has it.
fn listed(profile: Profile) -> serde_json::Value {
    serde_json::json!({
        "profile": profile.name(),
        "about": profile.sentence(),
        "warm": profile.has_warm_part(),
        "steady": profile.has_steady_part(),
    })
}

/// The services of a configuration; a VIP on any port is used on port 80.
fn vips_of(config: &Config) -> Vec<Vip> {
    let services = config.vips.iter().flat_map(|vip| {
        let udp = vip.protocol == Protocol::Udp;
        vip.addresses.iter().flat_map(move |address| {
            vip.ports.numbers().iter().map(move |port| {
                let port = if *port == 0 { 80 } else { *port };
                Vip { address: SocketAddr::new(*address, port), udp }
            })
        })
    });
    services.collect()
}

/// What was written, for a person.
fn told(summary: &Summary) -> String {
    let kinds: Vec<String> = summary.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(
        "{}: {} packets of {} connections, {} bytes, {:.3} s at the rate asked for\n{}\nsha256 {}\n",
        summary.file,
        summary.packets,
        summary.connections,
        summary.file_bytes,
        summary.seconds,
        kinds.join(", "),
        summary.sha256,
    )
}
