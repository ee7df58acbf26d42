//! A second appliance and a router in front of both, with one route a packet's flow chooses from (ECMP).
//!
//! ```text
//!  client ── router ─┬─ balancer .254 ─┬─ backends
//!            .253    └─ peer     .252 ─┘
//! ```
//!
//! All on the lab's bridge: what makes the router one is that the client's routes to the VIP lead to it.

use crate::Result;
use crate::namespace::Namespace;
use crate::topology::{Appliance, Family, Lab};

/// The router's interface.
const INTERFACE: &str = "r0";

/// The second appliance's namespace and the router's.
#[derive(Debug)]
pub struct Ecmp {
    /// Where [`Appliance::SECOND`] runs.
    pub peer: Namespace,
    router: Namespace,
}

impl Ecmp {
    /// Adds both to a lab; the client's packets to the VIP go through the router from now on, to the first appliance.
    pub fn add(lab: &Lab) -> Result<Self> {
        let peer = lab.add_balancer(Appliance::SECOND)?;
        let router = lab.add_namespace("router", INTERFACE)?;
        router.sysctl(&[
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            // The client and both appliances are on one link: the router must not tell them of shorter ways.
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.r0.send_redirects=0",
            // By addresses, protocol and ports, as routers in front of balancers do. Policy 1 would take the hash
            // that the client's socket left in the packet, which changes when a segment is sent again.
            "net.ipv4.fib_multipath_hash_policy=3",
            "net.ipv4.fib_multipath_hash_fields=55",
            "net.ipv6.fib_multipath_hash_policy=3",
            "net.ipv6.fib_multipath_hash_fields=55",
        ])?;
        for path in [1, 2] {
            router.ip(&format!(
                "addr add 10.0.{path}.253/24 dev r0\naddr add fd00:{path}::253/64 dev r0 nodad\n"
            ))?;
        }
        let ecmp = Self { peer, router };
        ecmp.route(&[Appliance::FIRST])?;
        lab.route_by(253)?;
        Ok(ecmp)
    }

    /// Routes the VIPs to these appliances, each flow to one of them.
    pub fn route(&self, to: &[Appliance]) -> Result<()> {
        let hops = |via: &dyn Fn(Appliance) -> String| -> String {
            to.iter().map(|appliance| format!(" nexthop via {} dev {INTERFACE}", via(*appliance))).collect()
        };
        let (four, six) = (hops(&|a| a.four(1)), hops(&|a| a.six(1)));
        let (vip, vip6) = (Family::V4.vip(), format!("{}/128", Family::V6.vip()));
        // Replacing an IPv6 multipath route would replace its first next hop alone.
        self.router.run("ip", &["-6", "route", "flush", &vip6])?;
        self.router.ip(&format!("route replace {vip}{four}\nroute add {vip6}{six}\n"))
    }
}
