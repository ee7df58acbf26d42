//! What the configuration says must happen to a packet: which VIP it is for, which backends that has, and by which
//! headers it reaches one. Written from docs/packet-path.md, on `config`'s model of the file alone.

use std::net::IpAddr;

use anyhow::bail;
use config::{Backend, Config, Port};
use hashbrown::HashMap;
use ipc::message::{Forward, UnknownToken};

use super::dissect::{FlowKey, TCP, UDP};
use super::flows::Steering;

/// A VIP's place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VipId(pub u16);

/// The configuration, ready to be asked.
pub struct Plan {
    config: Config,
    services: HashMap<(IpAddr, u16, u8), VipId>,
    /// Of each VIP, the place of its pool.
    pools: Vec<usize>,
}

/// The end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address.
    Is(IpAddr),
    /// One that no configuration says.
    Any,
}

impl Plan {
    /// The plan of a configuration.
    ///
    /// # Errors
    /// Backends could not be told apart in the output.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let (mut services, mut pools) = (HashMap::new(), Vec::new());
        for (vip, number) in config.vips.iter().zip(0..) {
            let protocol = vip.protocol.number();
            for address in &vip.addresses {
                for port in vip.ports.numbers() {
                    services.insert((*address, *port, protocol), VipId(number));
                }
            }
            let Some(pool) = config.pools.iter().position(|pool| pool.name == vip.pool) else {
                bail!("VIP {} names pool {}, which the configuration does not have", vip.name, vip.pool);
            };
            pools.push(pool);
            if vip.forward == Forward::L2dsr {
                tell_apart(&config, pool, vip)?;
            }
        }
        Ok(Self { config, services, pools })
    }

    /// The VIP that a 5-tuple is for.
    pub fn vip(&self, key: &FlowKey) -> Option<VipId> {
        let of = |port| self.services.get(&(key.destination, port, key.protocol)).copied();
        of(key.destination_port).or_else(|| of(0))
    }

    /// The VIP that UDP fragments to an address are for, where all its UDP VIPs send the same way.
    pub fn fragment_vip(&self, address: IpAddr) -> Option<VipId> {
        let mut found: Option<VipId> = None;
        for ((service, _, protocol), id) in &self.services {
            if *service != address || *protocol != UDP {
                continue;
            }
            let way = |id: VipId| (self.pool(id), self.forward(id));
            match found {
                Some(other) if way(other) != way(*id) => return None,
                _ => found = Some(*id),
            }
        }
        found
    }

    /// Whether an address is a VIP's.
    pub fn is_vip_address(&self, address: IpAddr) -> bool {
        self.config.vips.iter().any(|vip| vip.addresses.contains(&address))
    }

    /// A VIP's name.
    pub fn vip_name(&self, id: VipId) -> &str {
        self.vip_of(id).map_or("?", |vip| vip.name.as_str())
    }

    /// How a VIP's packets reach a backend.
    pub fn forward(&self, id: VipId) -> Forward {
        self.vip_of(id).map_or(Forward::L2dsr, |vip| vip.forward)
    }

    /// What becomes of joins.
    pub fn steering(&self, id: VipId) -> Steering {
        let learn = self.vip_of(id).is_some_and(config::Vip::learns);
        let hash_unknown = self.vip_of(id).is_some_and(|vip| vip.unknown_token == UnknownToken::Hash);
        Steering { vip: id, pool: self.pool(id), learn, hash_unknown }
    }

    /// Whether joins of unknown tokens are answered with RST.
    pub fn resets(&self, id: VipId) -> bool {
        self.vip_of(id).is_some_and(|vip| vip.unknown_token == UnknownToken::Reset)
    }

    /// The place of a VIP's pool.
    pub fn pool(&self, id: VipId) -> usize {
        self.pools.get(usize::from(id.0)).copied().unwrap_or(usize::MAX)
    }

    /// All pools: name and backends.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &[Backend])> {
        self.config.pools.iter().map(|pool| (pool.name.as_str(), pool.backends.as_slice()))
    }

    /// A pool's backends.
    pub fn backends(&self, pool: usize) -> &[Backend] {
        self.config.pools.get(pool).map_or(&[], |pool| &pool.backends)
    }

    /// A backend's name.
    pub fn backend_name(&self, pool: usize, backend: u16) -> &str {
        self.backends(pool).get(usize::from(backend)).map_or("?", |backend| backend.name.as_str())
    }

    /// Ports, as configured.
    pub fn ports(&self) -> &[Port] {
        &self.config.dataplane.ports
    }

    /// Whether a frame to this MAC address is Weft's to forward.
    pub fn takes(&self, mac: [u8; 6]) -> bool {
        let ports = self.ports();
        ports.is_empty() || ports.iter().any(|port| port.mac.is_none_or(|own| own == mac))
    }

    /// The shortest and the longest packet that any port takes; `None` without ports.
    pub fn mtus(&self) -> Option<(usize, usize)> {
        let of = |port: &Port| usize::from(port.mtu);
        let ports = self.ports();
        Some((ports.iter().map(of).min()?, ports.iter().map(of).max()?))
    }

    /// The address of a backend to which a tunnel for packets of a family goes: its own of that family, else the
    /// other.
    pub fn tunnel_end(backend: &Backend, v4: bool) -> Option<IpAddr> {
        let (four, six) = (backend.address4.map(IpAddr::V4), backend.address6.map(IpAddr::V6));
        if v4 { four.or(six) } else { six.or(four) }
    }

    /// The port by which a packet to an address on the outside leaves; `None` where that is the port it came from.
    fn port_to(&self, address: IpAddr) -> Option<&Port> {
        let near = |port: &&Port| port.address.iter().any(|prefix| prefix.contains(address));
        let routed = |port: &&Port| match address {
            IpAddr::V4(_) => port.gateway4.is_some(),
            IpAddr::V6(_) => port.gateway6.is_some(),
        };
        let ports = self.ports();
        ports.iter().find(near).or_else(|| ports.iter().find(routed)).or(match ports {
            [only] => Some(only),
            _ => None,
        })
    }

    /// The MAC address that a frame to an address leaves from; `None` where the configuration does not say.
    pub fn source_mac(&self, address: IpAddr) -> Option<[u8; 6]> {
        self.port_to(address)?.mac
    }

    /// The outer source of a tunnel to `end`; `inner` is the packet's own destination, which stands in where there
    /// is no port (`weft-dataplane replay`).
    pub fn tunnel_source(&self, end: IpAddr, inner: IpAddr) -> Source {
        let dataplane = &self.config.dataplane;
        let configured = match end {
            IpAddr::V4(_) => dataplane.tunnel_source4.map(IpAddr::V4),
            IpAddr::V6(_) => dataplane.tunnel_source6.map(IpAddr::V6),
        };
        let same = |address: &IpAddr| address.is_ipv4() == end.is_ipv4();
        let own = |port: &Port| port.address.iter().map(|prefix| prefix.address).find(same);
        let of_port = || self.port_to(end).and_then(own);
        let stand_in = || (self.ports().is_empty() && same(&inner)).then_some(inner);
        configured.or_else(of_port).or_else(stand_in).map_or(Source::Any, Source::Is)
    }

    fn vip_of(&self, id: VipId) -> Option<&config::Vip> {
        self.config.vips.get(usize::from(id.0))
    }

    /// The longest outer headers that a VIP's packets of a family get.
    pub fn overhead(&self, id: VipId, v4: bool) -> usize {
        let ends = self.backends(self.pool(id)).iter().filter_map(|backend| Self::tunnel_end(backend, v4));
        let ip = ends.map(|end| if end.is_ipv4() { 20 } else { 40 }).max().unwrap_or_default();
        match self.forward(id) {
            Forward::L2dsr => 0,
            Forward::Ipip => ip,
            Forward::Gue => ip + super::outer::GUE_LEN,
        }
    }

    /// Whether a quoted packet is one that a server of a VIP's service sent, and the flow it is of.
    pub fn quoted(&self, key: FlowKey) -> Option<(FlowKey, VipId)> {
        let flow = FlowKey {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            protocol: key.protocol,
        };
        let known = matches!(key.protocol, TCP | UDP);
        self.vip(&flow).filter(|_| known).map(|vip| (flow, vip))
    }
}

/// l2dsr shows which backend a frame went to by its MAC address alone.
fn tell_apart(config: &Config, pool: usize, vip: &config::Vip) -> anyhow::Result<()> {
    let backends = config.pools.get(pool).map_or(&[][..], |pool| &pool.backends);
    let mut seen: HashMap<[u8; 6], &str> = HashMap::new();
    for backend in backends {
        let name = backend.name.as_str();
        let Some(mac) = backend.mac else {
            bail!(
                "backend {name} has no `mac` in the configuration, but VIP {} forwards by l2dsr, where nothing else \
                 shows which backend a frame went to; add it",
                vip.name
            );
        };
        if let Some(other) = seen.insert(mac, name) {
            bail!("backends {other} and {name} have one MAC address: l2dsr cannot be verified between them");
        }
    }
    Ok(())
}
