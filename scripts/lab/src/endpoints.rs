//! Endpoints in the lab: what the servers announce to clients beside the VIP, how the servers are told to, and what
//! makes the client's kernel follow.
//!
//! ```text
//!  kind     b1 announces                      its clients join from path 2
//!  port     10.9.9.9:20001, fd99::9 20001     by the VIP's route
//!  address  10.9.10.1, fd99::a:1, port 8000   by routes of its own, through the balancer as well
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::balancer::Balancer;
use crate::topology::{Appliance, Backend, Family, Lab, PORT, routes};
use crate::{Error, Result};

/// What a server announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Its own port on the VIP.
    Port,
    /// Its own address.
    Address,
}

impl Endpoint {
    /// Where the joins of this server's connections go.
    pub fn of(self, family: Family, number: u8) -> SocketAddr {
        match self {
            Self::Port => SocketAddr::new(family.vip(), port(number)),
            Self::Address => SocketAddr::new(address(family, number), PORT),
        }
    }
}

/// The port of server `number`.
pub const fn port(number: u8) -> u16 {
    20_000 + number as u16
}

/// The address of server `number` towards clients.
pub const fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 9, 10, number)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0xa, number as u16)),
    }
}

impl Lab {
    /// Tells the client's kernel to follow what servers announce, from its second address, and no other way.
    pub fn follow_announcements(&self) -> Result<()> {
        self.remove_second_path()?;
        self.client.ip("mptcp limits set subflow 8 add_addr_accepted 8\n\
             mptcp endpoint add 10.0.2.1 dev c1 id 1 subflow fullmesh\n\
             mptcp endpoint add fd00:2::1 dev c1 id 2 subflow fullmesh\n")?;
        let own = |number| [Family::V4, Family::V6].map(|family| address(family, number));
        for backend in &self.backends {
            let via = [1, 2].map(|net| Appliance::FIRST.four(net));
            self.client.ip(&routes("replace", own(backend.number), via, |net| Appliance::FIRST.six(net)))?;
        }
        Ok(())
    }

    /// Takes [`Lab::follow_announcements`] back: the client's kernel follows none, and joins the address that it
    /// connected to although the servers ask it not to.
    pub fn ignore_announcements(&self) -> Result<()> {
        self.remove_second_path()?;
        self.client.ip("mptcp limits set subflow 8 add_addr_accepted 0\n")?;
        self.add_second_path()?;
        self.ignore_flag_c()
    }
}

/// Runs on a server what `weftctl backend commands` says, as an operator would: nothing is added to it.
pub fn tell(weft: &Balancer, backend: &Backend) -> Result<()> {
    let commands = weft.weftctl(&["backend", "commands", &backend.name])?;
    backend.namespace.run("sh", &["-e", "-c", &commands]).map(drop)
}

/// The same on every server of a lab.
pub fn tell_all(weft: &Balancer, lab: &Lab) -> Result<()> {
    lab.backends.iter().try_for_each(|backend| tell(weft, backend))
}

/// Whether the client's kernel is refused when it opens a plain TCP connection there; any other end is an error.
pub fn is_refused(lab: &Lab, at: SocketAddr) -> Result<bool> {
    let script = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{}/{}' 2>&1 || true", at.ip(), at.port());
    let said = lab.client.run("bash", &["-c", &script])?;
    match said.contains("refused") {
        true => Ok(true),
        false if said.is_empty() => Ok(false),
        false => Err(Error::other(format!("connecting to {at} ended otherwise: {said}"))),
    }
}
