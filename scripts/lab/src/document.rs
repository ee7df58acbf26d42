//! The configuration file of a balancer of the lab, as data: tests reorder, rename and add to it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::balancer::{Forward, Options};
use crate::endpoints::{self, Endpoint};
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
    /// `[[dataplane.port]]`.
    pub port: Port,
    /// Every `[[pool]]`, in order.
    pub pools: Vec<Pool>,
    /// Every `[[vip]]`, in order.
    pub vips: Vec<Vip>,
}

/// A `[[dataplane.port]]`.
#[derive(Debug, Clone)]
pub struct Port {
    /// `device`.
    pub device: String,
    /// `address`; the appliance's usual ones where there is none.
    pub addresses: Vec<String>,
    /// `mtu`.
    pub mtu: u16,
    /// Further lines.
    pub further: String,
}

impl Port {
    /// Takes every frame from the kernel, with AF_XDP, and has an address on both of the client's networks, since the
    /// kernel answers for none. See [`crate::topology::Lab::take_from_kernel`].
    pub fn take(&mut self) {
        let own = Appliance::FIRST;
        let addresses = [1, 2].map(|net| [format!("{}/24", own.four(net)), format!("{}/64", own.six(net))]);
        self.addresses = addresses.concat();
        self.device = format!("net_af_xdp0,iface={BALANCER_INTERFACE},force_copy=1");
    }

    fn usual() -> Self {
        let device = format!("net_af_packet0,iface={BALANCER_INTERFACE}");
        Self { device, addresses: Vec::new(), mtu: MTU, further: String::new() }
    }

    fn write(&self, appliance: Appliance, text: &mut String) {
        let usual = [format!("{}/24", appliance.four(1)), format!("{}/64", appliance.six(1))];
        let addresses = if self.addresses.is_empty() { &usual[..] } else { &self.addresses };
        let _ = write!(
            text,
            "[[dataplane.port]]\n\
             device  = \"{}\"\n\
             mac     = \"{}\"\n\
             address = [{}]\n\
             mtu     = {}\n{}\n",
            self.device,
            appliance.mac(),
            list(addresses),
            self.mtu,
            self.further,
        );
    }
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
    /// Its addresses, where they are not that server's usual ones.
    pub addresses: Option<Vec<IpAddr>>,
    /// Whether its MAC address is given.
    pub mac: bool,
    /// `weight`.
    pub weight: u16,
    /// What clients are told to join at, if anything.
    pub endpoint: Option<Endpoint>,
}

impl Member {
    /// Server `number` under its own name.
    pub fn new(number: u8) -> Self {
        Self { name: format!("b{number}"), number, addresses: None, mac: true, weight: 100, endpoint: None }
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
    /// `steering`: how joins are steered.
    pub steering: Vec<&'static str>,
}

impl Vip {
    /// A VIP of both families in front of the web servers.
    pub fn new(name: &str, protocol: &'static str, port: u16, forward: Forward) -> Self {
        let (addresses, pool) = ([Family::V4, Family::V6].map(Family::vip).into(), POOL.to_owned());
        Self { name: name.to_owned(), addresses, port, protocol, pool, forward, steering: vec!["learn"] }
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
            port: Port::usual(),
            pools: vec![Pool { name: POOL.to_owned(), backends }],
            vips: vec![if options.no_steering { Vip { steering: Vec::new(), ..web } } else { web }],
        }
    }

    /// Adds the VIP that [`crate::traffic::probe`] asks: UDP, the same servers.
    #[must_use]
    pub fn with_probe(mut self) -> Self {
        let forward = self.vips.first().map_or(Forward::L2dsr, |vip| vip.forward);
        self.vips.push(Vip::new("probe", "udp", PROBE_PORT, forward));
        self
    }

    /// Everything in another order, the web VIP and its pool under other names, server 4, another pool and another VIP
    /// added.
    #[must_use]
    pub fn reordered(&self) -> Self {
        let mut changed = self.clone();
        if let Some(members) = changed.members() {
            members.push(Member::new(4));
            members.reverse();
        }
        for pool in changed.pools.iter_mut().map(|pool| &mut pool.name) {
            pool.push_str("-renamed");
        }
        for pool in changed.vips.iter_mut().map(|vip| &mut vip.pool) {
            pool.push_str("-renamed");
        }
        let backends = vec![Member::new(2), Member::new(1)];
        changed.pools.insert(0, Pool { name: "another".to_owned(), backends });
        changed.vips.reverse();
        let mut forward = Forward::L2dsr;
        if let Some(web) = changed.vips.iter_mut().find(|vip| vip.port == PORT) {
            web.name.push_str("-renamed");
            forward = web.forward;
        }
        let another = Vip::new("another", "tcp", 9000, forward);
        changed.vips.insert(0, Vip { pool: "another".to_owned(), ..another });
        changed
    }

    /// The web VIP steers by these schemes, and every web server has an endpoint of this kind.
    pub fn steer_by(&mut self, schemes: &[&'static str], endpoint: Endpoint) {
        if let Some(web) = self.vips.iter_mut().find(|vip| vip.port == PORT) {
            web.steering = schemes.to_vec();
        }
        for member in self.members().into_iter().flatten() {
            member.endpoint = Some(endpoint);
        }
    }

    /// What the web servers' pool is called.
    pub fn pool_name(&self) -> &str {
        self.pools.iter().find(|pool| pool.name.starts_with(POOL)).map_or(POOL, |pool| &pool.name)
    }

    /// The web servers' pool.
    pub fn members(&mut self) -> Option<&mut Vec<Member>> {
        self.pools.iter_mut().find(|pool| pool.name.starts_with(POOL)).map(|pool| &mut pool.backends)
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
             runtime_dir = \"{}\"\n{}\n",
            self.flows,
            self.tokens,
            self.runtime_dir.display(),
            self.dataplane,
        );
        self.port.write(self.appliance, &mut text);
        self.pools.iter().for_each(|pool| pool.write(&mut text));
        self.vips.iter().for_each(|vip| vip.write(&mut text));
        text
    }
}

/// The inside of a list of strings.
fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
}

// Writing to a String cannot fail.
impl Pool {
    fn write(&self, text: &mut String) {
        let _ = write!(text, "[[pool]]\nname = \"{}\"\n\n", self.name);
        for member in &self.backends {
            let (four, six) = Backend::addresses(member.number);
            let usual = || vec![four.into(), six.into()];
            let _ = write!(
                text,
                "[[pool.backend]]\nname    = \"{}\"\naddress = [{}]\nweight  = {}\n",
                member.name,
                list(&member.addresses.clone().unwrap_or_else(usual)),
                member.weight
            );
            if member.mac {
                let _ = writeln!(text, "mac     = \"{}\"", Backend::mac(member.number));
            }
            match member.endpoint {
                Some(Endpoint::Port) => {
                    let _ = writeln!(text, "endpoint_port = {}", endpoints::port(member.number));
                }
                Some(Endpoint::Address) => {
                    let own =
                        [Family::V4, Family::V6].map(|family| endpoints::address(family, member.number));
                    let _ = writeln!(text, "endpoint_address = [{}]", list(&own));
                }
                None => {}
            }
            text.push('\n');
        }
    }
}

impl Vip {
    fn write(&self, text: &mut String) {
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
            list(&self.addresses),
            self.port,
            self.protocol,
            self.pool,
            self.forward.name(),
        );
        if self.protocol == "tcp" {
            let steering = list(&self.steering);
            let _ = write!(text, "[vip.mptcp]\nsteering = [{steering}]\nunknown_token = \"drop\"\n\n");
        }
    }
}
