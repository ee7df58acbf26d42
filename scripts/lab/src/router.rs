//! A router in the lab: a namespace whose kernel forwards, plugged into the bridge with an address on both networks.

use std::process::Command;

use crate::counters::Kernel;
use crate::namespace::Namespace;
use crate::topology::{ADDRESSED, Lab, MTU, no_offloads, plug};
use crate::{Result, process};

/// Its address on the client's two networks ends so.
pub const HOST: u8 = 253;

/// A router. Dropping it removes its namespace; its cables go with it.
#[derive(Debug)]
pub struct Router {
    /// Where it lives.
    pub namespace: Namespace,
}

impl Router {
    /// Makes it. `r0` has 10.0.1.253, 10.0.2.253, fd00:1::253 and fd00:2::253.
    pub fn new(lab: &Lab) -> Result<Self> {
        let namespace = Namespace::new(lab.session.name(), "router")?;
        namespace.sysctl(&ADDRESSED)?;
        // Both ends of a flow are on one wire here: every packet would earn a redirect past the router.
        namespace.sysctl(&[
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        ])?;
        plug(&lab.switch, "p-r0", &namespace, "r0", None, MTU)?;
        no_offloads(&namespace, "r0")?;
        namespace.ip(&format!(
            "addr add 10.0.1.{HOST}/24 dev r0\naddr add 10.0.2.{HOST}/24 dev r0\n\
             addr add fd00:1::{HOST}/64 dev r0 nodad\naddr add fd00:2::{HOST}/64 dev r0 nodad\n"
        ))?;
        Ok(Self { namespace })
    }

    /// A cable of its own between `r1` and the client's `c2`: the client has 10.0.50.1 and fd00:50::1, the router
    /// 10.0.50.254 and fd00:50::254.
    pub fn connect_client(&self, lab: &Lab) -> Result<()> {
        let (router, client) = (&self.namespace, &lab.client);
        let mut link = Command::new("ip");
        link.args(["link", "add", "r1", "netns", router.name(), "type", "veth"]);
        link.args(["peer", "name", "c2", "netns", client.name()]);
        process::run(&mut link)?;
        for (namespace, link, host) in [(router, "r1", 254), (client, "c2", 1)] {
            namespace.ip(&format!(
                "link set {link} up\naddr add 10.0.50.{host}/24 dev {link}\naddr add fd00:50::{host}/64 dev {link} nodad\n"
            ))?;
            no_offloads(namespace, link)?;
        }
        Ok(())
    }

    /// Packets it has forwarded, of both families.
    pub fn forwarded(&self) -> Result<u64> {
        let kernel = Kernel::read(&self.namespace)?;
        Ok(kernel.get("IpForwDatagrams") + kernel.get("Ip6OutForwDatagrams"))
    }
}
