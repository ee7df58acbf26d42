//! What a file is to hold, as asked for, and as checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use capture::Resolution;
use packet::{Address, Family, Key, Version};

use super::collide;
use super::connection::{Connection, Service, TUPLES};
use super::frame::Link;
use super::profile::Profile;
use super::random::{Purpose, number};
use super::script::{Flavour, Run};
use super::size::{Carrier, CarrierKind, FrameSize, Sizes};

/// Packets of a steady part, at the least, where nobody says how many.
const STEADY_PACKETS: u64 = 1 << 16;
/// Rounds of data between opening and closing, where nobody says how many packets.
const ROUNDS: u64 = 8;

/// Which packets of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// From opening to closing, a few thousand connections at a time.
    #[default]
    All,
    /// What establishes flows and teaches tokens.
    Warm,
    /// What the same flows do then, in random order over all of them. May be repeated for ever.
    Steady,
}

/// IPv4, IPv6 or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Families {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
    /// Half of the connections each.
    Both,
}

/// MPTCP version 0, 1 or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Versions {
    /// RFC 6824.
    #[value(name = "0")]
    V0,
    /// RFC 8684.
    #[default]
    #[value(name = "1")]
    V1,
    /// Half of the connections each.
    Both,
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Address and port.
    pub address: SocketAddr,
    /// For datagrams, else for TCP.
    pub udp: bool,
}

impl FromStr for Vip {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (udp, address) = match text.split_once('/') {
            Some(("udp", rest)) => (true, rest),
            Some(("tcp", rest)) => (false, rest),
            _ => (false, text),
        };
        let address = address.parse().with_context(|| {
            format!("{text:?} is no VIP: 10.9.9.9:80, [fd99::9]:80 or udp/10.9.9.9:53 would be")
        })?;
        Ok(Self { address, udp })
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", if self.udp { "udp" } else { "tcp" }, self.address)
    }
}

/// What a file is to hold. Begin with [`Plan::new`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is about.
    pub profile: Profile,
    /// Connections, or flows of datagrams, or senders of a flood.
    pub connections: u64,
    /// What it is a function of: same plan, same bytes.
    pub seed: u64,
    /// Which packets.
    pub part: Part,
    /// Where to; those of the profile's protocol and the families are used, in turn.
    pub vips: Vec<Vip>,
    /// Address families; every family of the VIPs where nobody says.
    pub families: Option<Families>,
    /// MPTCP versions.
    pub versions: Versions,
    /// Sizes of the frames of established flows.
    pub size: FrameSize,
    /// Exactly so many packets: more rounds of data, or a file that ends early.
    pub packets: Option<u64>,
    /// MAC addresses.
    pub link: Link,
    /// Packets a second, by their timestamps.
    pub rate: u64,
    /// Whether version 1 connections use DSS checksums; those of version 0 do, as Linux's did.
    pub dss_checksums: bool,
    /// What timestamps of a file count.
    pub resolution: Resolution,
}

impl Plan {
    /// So many connections of a profile to the addresses of the examples: 10.9.9.9 and fd99::9, port 8000.
    pub fn new(profile: Profile, connections: u64) -> Self {
        let vips = [IpAddr::from([10, 9, 9, 9]), IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, 9])]
            .map(|address| Vip { address: SocketAddr::new(address, 8000), udp: profile.is_udp() });
        Self {
            profile,
            connections,
            seed: 1,
            part: Part::All,
            vips: vips.to_vec(),
            families: None,
            versions: Versions::V1,
            size: FrameSize::Imix,
            packets: None,
            link: Link { source: [2, 0, 0, 0, 1, 1], destination: [2, 0, 0, 0, 2, 1] },
            rate: 1_000_000,
            dss_checksums: false,
            resolution: Resolution::default(),
        }
    }
}

/// A plan that was checked: what packets are made from.
#[derive(Debug)]
pub(super) struct Checked {
    pub plan: Plan,
    /// TCP and UDP services of each family.
    services: [Vec<Service>; 4],
    /// Plain, version 0, version 1, UDP; IPv4 and IPv6 of each.
    sizes: [Option<Sizes>; 8],
    /// Keys of pairs that collide.
    collisions: Vec<[Key; 2]>,
    /// Rounds of the running part.
    pub rounds: u64,
    /// Packets of the file.
    pub packets: u64,
    /// Packets that come before the file's first, if any.
    pub packets_before: u64,
    /// Longest opening and closing of its connections.
    pub longest: (u64, u64),
}

impl Checked {
    /// Checks a plan. Looks for colliding keys where it needs any, which takes some 40 µs each.
    pub(super) fn new(plan: Plan) -> anyhow::Result<Self> {
        if plan.connections == 0 || plan.connections > TUPLES {
            bail!("a file has 1 to {TUPLES} connections");
        }
        if plan.rate == 0 || plan.rate > 1_000_000_000 {
            bail!("the rate is 1 to 1000000000 packets a second");
        }
        check_part(&plan)?;
        let services = services(&plan)?;
        let collisions = match plan.profile {
            Profile::Collide => collide::pairs(plan.seed, plan.connections.div_ceil(2), plan.versions)?,
            _ => Vec::new(),
        };
        let flavours = plan.profile.flavours();
        let longest = |of: fn(Flavour) -> usize| flavours.iter().map(|flavour| of(*flavour) as u64).max();
        let longest = (
            longest(|flavour| flavour.script().open.len()).unwrap_or(0),
            longest(|flavour| flavour.script().close.len()).unwrap_or(0),
        );
        let sizes = [None; 8];
        let mut checked =
            Self { plan, services, sizes, collisions, rounds: 0, packets: 0, packets_before: 0, longest };
        checked.sizes = checked.sizes(&flavours)?;
        checked.count()?;
        Ok(checked)
    }

    /// The sizes of every carrier the plan may need.
    fn sizes(&self, flavours: &[Flavour]) -> anyhow::Result<[Option<Sizes>; 8]> {
        let mut sizes = [None; 8];
        let runs = |kind| {
            let datagrams = kind == CarrierKind::Udp;
            flavours.iter().any(|flavour| match flavour.script().run {
                Run::Data | Run::DataAndErrors => {
                    !datagrams && flavour.is_mptcp() == (kind != CarrierKind::Plain)
                }
                Run::Datagrams => datagrams,
                _ => false,
            })
        };
        for family in [Family::V4, Family::V6] {
            for kind in [
                CarrierKind::Plain,
                CarrierKind::Mptcp(Version::V0),
                CarrierKind::Mptcp(Version::V1),
                CarrierKind::Udp,
            ] {
                let used = match kind {
                    CarrierKind::Mptcp(Version::V0) => self.plan.versions != Versions::V1,
                    CarrierKind::Mptcp(Version::V1) => self.plan.versions != Versions::V0,
                    _ => true,
                };
                let served = !self.services(kind == CarrierKind::Udp, family).is_empty();
                if used && served && runs(kind) {
                    sizes[slot(kind, family)] = Some(Sizes::new(self.plan.size, Carrier { family, kind })?);
                }
            }
        }
        Ok(sizes)
    }

    /// The sizes of a carrier's packets.
    #[inline]
    pub(super) fn size(&self, kind: CarrierKind, family: Family) -> Option<&Sizes> {
        self.sizes[slot(kind, family)].as_ref()
    }

    /// Counts the packets, and finds the rounds it takes to have as many as are asked for.
    fn count(&mut self) -> anyhow::Result<()> {
        let (mut open, mut run, mut close) = (0_u64, 0_u64, 0_u64);
        for index in 0..self.plan.connections {
            let script = self.flavour(index).script();
            open += script.open.len() as u64;
            run += u64::from(script.runs());
            close += script.close.len() as u64;
        }
        let once = match self.plan.part {
            Part::All => open + close,
            Part::Warm => open,
            Part::Steady => 0,
        };
        let wanted = self.plan.packets.unwrap_or(match self.plan.part {
            Part::All => once + run * ROUNDS,
            Part::Warm => once,
            Part::Steady => run.max(STEADY_PACKETS.next_multiple_of(run.max(1))),
        });
        self.rounds = if run == 0 || self.plan.part == Part::Warm {
            0
        } else {
            wanted.saturating_sub(once).div_ceil(run)
        };
        let all = once + run * self.rounds;
        if wanted > all {
            bail!(
                "{} connections of the profile {} make {all} packets: raise --connections, or leave --packets out",
                self.plan.connections,
                self.plan.profile
            );
        }
        if self.plan.connections.saturating_mul(self.rounds.max(1)) > TUPLES
            && self.plan.profile == Profile::JoinSyn
        {
            bail!("{TUPLES} joins are the most that have an address and port of their own");
        }
        self.packets = wanted;
        self.packets_before = if self.plan.part == Part::Steady { open } else { 0 };
        Ok(())
    }

    /// What the connection with this number is.
    #[inline]
    pub(super) fn flavour(&self, index: u64) -> Flavour {
        let udp = !self.services(true, self.family(index)).is_empty();
        self.plan.profile.flavour(self.plan.seed, index, udp)
    }

    fn services(&self, udp: bool, family: Family) -> &[Service] {
        &self.services[usize::from(udp) * 2 + usize::from(family == Family::V6)]
    }

    #[inline]
    fn family(&self, index: u64) -> Family {
        match self.plan.families {
            Some(Families::V4) => Family::V4,
            Some(Families::V6) => Family::V6,
            Some(Families::Both) | None => {
                if self.only(Family::V4) || !self.only(Family::V6) && self.coin(index, 0) {
                    Family::V4
                } else {
                    Family::V6
                }
            }
        }
    }

    /// Whether the VIPs of the profile's protocol are of this family alone.
    #[inline]
    fn only(&self, family: Family) -> bool {
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        self.services(self.plan.profile.is_udp(), other).is_empty()
    }

    #[inline]
    fn coin(&self, index: u64, bit: u32) -> bool {
        number(self.plan.seed, Purpose::Family, index) >> bit & 1 == 1
    }

    /// The connection with this number.
    #[inline]
    pub(super) fn connection(&self, index: u64, flavour: Flavour) -> Connection {
        let seed = self.plan.seed;
        let family = self.family(index);
        let version = match self.plan.versions {
            Versions::V0 => Version::V0,
            Versions::V1 => Version::V1,
            Versions::Both if self.coin(index, 1) => Version::V1,
            Versions::Both => Version::V0,
        };
        let services = self.services(flavour == Flavour::Udp, family);
        let turn = usize::try_from(index).unwrap_or(0) % services.len().max(1);
        let nowhere = Service { address: Address::default(), port: 0 };
        let pair = usize::try_from(index / 2).ok().and_then(|pair| self.collisions.get(pair));
        let server = match pair {
            Some(pair) => pair[usize::from(index % 2 == 1)],
            None => Key(number(seed, Purpose::ServerKey, index).to_be_bytes()),
        };
        Connection {
            seed,
            index,
            family,
            version,
            checksums: version == Version::V0 || self.plan.dss_checksums,
            service: services.get(turn).copied().unwrap_or(nowhere),
            client: Key(number(seed, Purpose::ClientKey, index).to_be_bytes()),
            server,
        }
    }
}

fn slot(kind: CarrierKind, family: Family) -> usize {
    let kind = match kind {
        CarrierKind::Plain => 0,
        CarrierKind::Mptcp(Version::V0) => 1,
        CarrierKind::Mptcp(Version::V1) => 2,
        CarrierKind::Udp => 3,
    };
    kind * 2 + usize::from(family == Family::V6)
}

fn check_part(plan: &Plan) -> anyhow::Result<()> {
    let profile = plan.profile;
    match plan.part {
        Part::Warm if !profile.has_warm_part() => {
            bail!("the profile {profile} has no warm part: its packets need no flow before them")
        }
        Part::Steady if !profile.has_steady_part() => {
            bail!("the profile {profile} has no steady part: its connections only open and end")
        }
        Part::Warm if plan.packets.is_some() => {
            bail!(
                "the warm part has as many packets as its connections need: say --connections, not --packets"
            )
        }
        _ => Ok(()),
    }
}

/// The VIPs by protocol and family, of the families that are asked for.
fn services(plan: &Plan) -> anyhow::Result<[Vec<Service>; 4]> {
    let mut services = [const { Vec::new() }; 4];
    for vip in &plan.vips {
        let address = Address::from(vip.address.ip());
        let v6 = vip.address.is_ipv6();
        let asked = match plan.families {
            Some(Families::V4) => !v6,
            Some(Families::V6) => v6,
            Some(Families::Both) | None => true,
        };
        if asked {
            services[usize::from(vip.udp) * 2 + usize::from(v6)]
                .push(Service { address, port: vip.address.port() });
        }
    }
    let (tcp, udp) = services.split_at(2);
    let (used, what) = if plan.profile.is_udp() { (udp, "udp") } else { (tcp, "tcp") };
    let has = [0, 1].map(|family| used.get(family).is_some_and(|list| !list.is_empty()));
    let enough = match plan.families {
        Some(Families::V4) => has[0],
        Some(Families::V6) => has[1],
        Some(Families::Both) => has[0] && has[1],
        None => has[0] || has[1],
    };
    if !enough {
        bail!("no {what} VIP of the family asked for: say --vip {what}/ADDRESS:PORT, or --config with one");
    }
    Ok(services)
}
