//! The configuration file of a balancer of the lab, as data: tests reorder, rename and add to it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::balancer::{Forward, Options};
use crate::topology::{Appliance, BALANCER_INTERFACE, Backend, Family, MTU, PORT, PROBE_PORT};

/// The pool of the web VIP.
pub const POOL: &str = "web-servers";

/// A configuration file.
#[derive(Debug, Clone)]
pub struct Document {
    /// Which balancer it is for.
    pub appliance: Appliance,
    /// `runtime_dir`.
    pub runtime_dir: PathBuf,
    /// `flows`.
    pub flows: u32,
    /// `tokens`.
    pub tokens: u32,
    /// Further lines of `[dataplane]`, and tables below it.
    pub dataplane: String,
    /// Every `[[pool]]`, in order.
    pub pools: Vec<Pool>,
    /// Every `[[vip]]`, in order.
    pub vips: Vec<Vip>,
}

/// A `[[pool]]`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its backends, in order.
    pub backends: Vec<Member>,
}

/// A `[[pool.backend]]`.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name in the configuration.
    pub name: String,
    /// Which server of the lab it is.
    pub number: u8,
    /// Whether its MAC address is given.
    pub mac: bool,
    /// `weight`.
    pub weight: u16,
}

impl Member {
    /// Server `number` under its own name.
    pub fn new(number: u8) -> Self {
        Self { name: format!("b{number}"), number, mac: true, weight: 100 }
    }
}

/// A `[[vip]]`.
#[derive(Debug, Clone)]
pub struct Vip {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its pool's name.
    pub pool: String,
    /// How packets reach the backends.
    pub forward: Forward,
    /// Whether tokens steer joins.
    pub steering: bool,
}

impl Vip {
    /// A VIP of both families in front of the web servers.
    pub fn new(name: &str, protocol: &'static str, port: u16, forward: Forward) -> Self {
        let (addresses, pool) = ([Family::V4, Family::V6].map(Family::vip).into(), POOL.to_owned());
        Self { name: name.to_owned(), addresses, port, protocol, pool, forward, steering: true }
    }
}

impl Document {
    /// What `options` ask for: one pool, one VIP.
    pub fn new(options: &Options, runtime_dir: &Path) -> Self {
        let member = |number| Member { mac: !options.no_macs, ..Member::new(number) };
        let backends = (1..=options.backends).map(member).collect();
        let web = Vip::new("web", "tcp", PORT, options.forward);
        Self {
            appliance: Appliance::FIRST,
            runtime_dir: runtime_dir.to_owned(),
            flows: 1_000_000,
            tokens: 1_000_000,
            dataplane: String::new(),
            pools: vec![Pool { name: POOL.to_owned(), backends }],
            vips: vec![Vip { steering: !options.no_steering, ..web }],
        }
    }

    /// Adds the VIP that [`crate::traffic::probe`] asks: UDP, the same servers.
    #[must_use]
    pub fn with_probe(mut self) -> Self {
        let forward = self.vips.first().map_or(Forward::L2dsr, |vip| vip.forward);
        self.vips.push(Vip::new("probe", "udp", PROBE_PORT, forward));
        self
    }

    /// The web servers' pool.
    pub fn members(&mut self) -> Option<&mut Vec<Member>> {
        self.pools.iter_mut().find(|pool| pool.name == POOL).map(|pool| &mut pool.backends)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        // The second core where there is one: the first serves the client and the backends.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let worker = usize::from(cores > 1);
        let mut text = format!(
            "[dataplane]\n\
             workers = [{worker}]\n\
             flows   = {}\n\
             tokens  = {}\n\
             runtime_dir = \"{}\"\n{}\n\
             [[dataplane.port]]\n\
             device  = \"net_af_packet0,iface={BALANCER_INTERFACE}\"\n\
             mac     = \"{}\"\n\
             address = [\"{}/24\", \"{}/64\"]\n\
             mtu     = {MTU}\n\n",
            self.flows,
            self.tokens,
            self.runtime_dir.display(),
            self.dataplane,
            self.appliance.mac(),
            self.appliance.four(1),
            self.appliance.six(1),
        );
        self.pools.iter().for_each(|pool| pool.write(&mut text));
        self.vips.iter().for_each(|vip| vip.write(&mut text));
        text
    }
}

// Writing to a String cannot fail.
impl Pool {
    fn write(&self, text: &mut String) {
        let _ = write!(text, "[[pool]]\nname = \"{}\"\n\n", self.name);
        for member in &self.backends {
            let (four, six) = Backend::addresses(member.number);
            let _ = write!(
                text,
                "[[pool.backend]]\nname    = \"{}\"\naddress = [\"{four}\", \"{six}\"]\nweight  = {}\n",
                member.name, member.weight
            );
            if member.mac {
                let _ = writeln!(text, "mac     = \"{}\"", Backend::mac(member.number));
            }
            text.push('\n');
        }
    }
}

impl Vip {
    fn write(&self, text: &mut String) {
        let addresses: Vec<String> = self.addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let _ = write!(
            text,
            "[[vip]]\n\
             name     = \"{}\"\n\
             address  = [{}]\n\
             port     = {}\n\
             protocol = \"{}\"\n\
             pool     = \"{}\"\n\
             forward  = \"{}\"\n\n",
            self.name,
            addresses.join(", "),
            self.port,
            self.protocol,
            self.pool,
            self.forward.name(),
        );
        if self.protocol == "tcp" {
            let steering = if self.steering { "\"learn\"" } else { "" };
            let _ = write!(text, "[vip.mptcp]\nsteering = [{steering}]\nunknown_token = \"drop\"\n\n");
        }
    }
}
