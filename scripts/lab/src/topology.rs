//! The namespaces of one run and how they are wired.
//!
//! ```text
//!  client ── c0 10.0.1.1 ─┐                   ┌─ e0 b1 10.0.1.11, VIP on lo
//!         └─ c1 10.0.2.1 ─┤ bridge in "switch"├─ e0 b2 10.0.1.12, VIP on lo
//!  balancer ─ lb0 .254 ───┘                   └─ e0 b3 10.0.1.13, VIP on lo
//! ```
//!
//! The client routes the VIP through the balancer on both interfaces; backends answer the client directly. IPv6 is
//! wired alike, so a run may use either. What is set against the kernel's defaults, and why:
//! - Transmit offloads are off where packets start that the balancer forwards: it reads frames from the wire, where
//!   a checksum left to the hardware would be missing and a segment larger than the MTU would be cut.
//! - `arp_ignore` and `arp_announce`: the VIP is on every backend's loopback and nobody may answer ARP for it.
//! - The balancer and backend links carry 1600 bytes, the client's 1500, so that a tunnelled packet fits.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::Namespace;
use crate::process::{self, Task};
use crate::session::{self, Session};
use crate::{Error, Result, interrupt, traffic};

/// The VIP's port.
pub const PORT: u16 = 8000;
/// The port of the VIP that [`traffic::probe`] asks, over UDP.
pub const PROBE_PORT: u16 = 8001;
/// The port on which servers listen for IPv4 with a socket of IPv6.
pub const MIXED_PORT: u16 = 8002;
/// The MAC address of the balancer's interface.
pub const BALANCER_MAC: &str = "02:00:00:00:02:01";
/// The balancer's interface.
pub const BALANCER_INTERFACE: &str = "lb0";
/// MTU of the links behind the client.
pub const MTU: u16 = 1600;

/// How many paths [`Lab::add_late_path`] can add: the kernel knows at most 8 endpoints, and two are in use.
pub const LATE_PATHS: u8 = 6;

const DECAP_SOURCE: &str = include_str!("../xdp/decap.c");
const TAG_SOURCE: &str = include_str!("../xdp/tag.c");
const UNFLAG_SOURCE: &str = include_str!("../xdp/unflag.c");

/// The address family of the client's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "4")]
    V4,
    /// IPv6.
    #[serde(rename = "6")]
    V6,
}

impl Family {
    /// The VIP of this family.
    pub const fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9)),
        }
    }

    /// The VIP's address and port.
    pub const fn service(self) -> SocketAddr {
        SocketAddr::new(self.vip(), PORT)
    }

    /// The client's addresses, the first path's first.
    pub const fn client(self) -> [IpAddr; 2] {
        match self {
            Self::V4 => [IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1))],
            Self::V6 => [
                IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1)),
            ],
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One of the balancers a lab may have: its addresses and MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appliance(u8);

impl Appliance {
    /// The one that every lab has.
    pub const FIRST: Self = Self(254);
    /// Another one, beside it.
    pub const SECOND: Self = Self(252);

    /// The MAC address of its interface.
    pub fn mac(self) -> String {
        if self == Self::FIRST { BALANCER_MAC.to_owned() } else { format!("02:00:00:00:02:{}", self.0 % 100) }
    }

    /// Its IPv4 address on one of the client's two paths.
    pub fn four(self, path: u8) -> String {
        format!("10.0.{path}.{}", self.0)
    }

    /// Its IPv6 address on one of the client's two paths.
    pub fn six(self, path: u8) -> String {
        format!("fd00:{path}::{}", self.0)
    }
}

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many backends, at most 9.
    pub backends: u8,
    /// Whether backends take off a tunnel's outer header.
    pub decapsulate: bool,
    /// The `weft-lab` binary, which runs the servers and the client inside.
    pub helper: PathBuf,
}

/// A backend: its namespace and the program that serves the VIP in it.
#[derive(Debug)]
pub struct Backend {
    /// `b1`, `b2`, ...
    pub name: String,
    /// Its number, from 1: the last digit of its addresses and MAC.
    pub number: u8,
    /// Where it lives. Declared after the task so that the task ends first.
    _service: Task,
    /// Its namespace.
    pub namespace: Namespace,
}

impl Backend {
    /// Its addresses on the link to the balancer.
    pub fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let tail = 0x10 + u16::from(number);
        (Ipv4Addr::new(10, 0, 1, 10 + number), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, tail))
    }

    /// The MAC address of its interface.
    pub fn mac(number: u8) -> String {
        format!("02:00:00:00:03:{number:02x}")
    }
}

/// A whole lab. Fields are dropped in this order: processes, then namespaces, then the run's directory.
#[derive(Debug)]
pub struct Lab {
    /// The backends, `b1` first.
    pub backends: Vec<Backend>,
    /// Where clients run.
    pub client: Namespace,
    /// Where the balancer runs.
    pub balancer: Namespace,
    /// Where the bridge is.
    pub switch: Namespace,
    /// The `weft-lab` binary.
    pub helper: PathBuf,
    /// The run.
    pub session: Session,
}

impl Lab {
    /// Removes the lab, and says what could not be removed.
    pub fn take_down(self) -> Result<()> {
        let run = self.session.name().to_owned();
        drop(self);
        match session::leftovers(&run).as_slice() {
            [] => Ok(()),
            left => Err(Error::other(format!("could not remove {}", left.join(", ")))),
        }
    }

    /// Builds the namespaces and starts a server on each backend.
    pub fn new(plan: &Plan) -> Result<Self> {
        require_mptcp()?;
        let session = Session::new()?;
        let run = session.name();
        let switch = make_switch(run)?;
        let client = make_client(run, &switch)?;
        let balancer = make_balancer(run, &switch, Appliance::FIRST)?;
        let mut backends = Vec::new();
        let program =
            if plan.decapsulate { Some(build_bpf(session.dir(), "decap", DECAP_SOURCE)?) } else { None };
        for number in 1..=plan.backends {
            interrupt::check()?;
            backends.push(make_backend(&session, &switch, number, program.as_deref(), &plan.helper)?);
        }
        let lab = Self { backends, client, balancer, switch, helper: plan.helper.clone(), session };
        lab.add_second_path()?;
        Ok(lab)
    }

    /// Tells the client's kernel to open a second subflow, from its second address, on every connection.
    pub fn add_second_path(&self) -> Result<()> {
        self.client.ip("mptcp endpoint add 10.0.2.1 dev c1 id 1 subflow\nmptcp endpoint add fd00:2::1 dev c1 id 2 subflow\n")
    }

    /// Takes [`Lab::add_second_path`] back; subflows that exist end.
    pub fn remove_second_path(&self) -> Result<()> {
        self.client.ip("mptcp endpoint delete id 1\nmptcp endpoint delete id 2\n")
    }

    /// Gives the client one more address on its second path and tells its kernel to open a subflow from there, on
    /// every connection that exists and on every new one. `number` is from 1 to [`LATE_PATHS`].
    pub fn add_late_path(&self, family: Family, number: u8) -> Result<()> {
        let (host, id) = (number + 1, number + 2);
        let (address, add) = match family {
            Family::V4 => (format!("10.0.2.{host}"), "/24 dev c1"),
            Family::V6 => (format!("fd00:2::{host}"), "/64 dev c1 nodad"),
        };
        // After [`Lab::remove_late_path`] it is there already.
        let _ = self.client.ip(&format!("addr add {address}{add}\n"));
        self.client.ip(&format!("mptcp endpoint add {address} dev c1 id {id} subflow\n"))
    }

    /// Takes [`Lab::add_late_path`] back; the subflows from there end. The address stays, for their last packets.
    pub fn remove_late_path(&self, number: u8) -> Result<()> {
        self.client.ip(&format!("mptcp endpoint delete id {}\n", number + 2))
    }

    /// Routes the VIP to one backend directly, without a balancer: shows that the lab itself carries MPTCP.
    pub fn bypass(&self, number: u8) -> Result<()> {
        let four = format!("10.0.1.{n}", n = 10 + number);
        let four_second = format!("10.0.2.{n}", n = 10 + number);
        self.client.ip(&client_routes("replace", [four, four_second], |net| format!("fd00:{net}::1{number}")))
    }

    /// Routes the VIP through the host that ends so on both networks, say a router.
    pub fn route_by(&self, host: u8) -> Result<()> {
        // IPv6 routers tell of shorter ways, and cannot be told not to.
        self.client
            .sysctl(&["net.ipv6.conf.c0.accept_redirects=0", "net.ipv6.conf.c1.accept_redirects=0"])?;
        let via = [1, 2].map(|net| format!("10.0.{net}.{host}"));
        self.client.ip(&client_routes("replace", via, |net| format!("fd00:{net}::{host}")))
    }

    /// Leaves the balancer's interface to a port on AF_XDP, as if DPDK had taken a NIC: the kernel has no address there.
    pub fn take_from_kernel(&self) -> Result<()> {
        self.balancer.ip(&format!("addr flush dev {BALANCER_INTERFACE}\n"))?;
        self.balancer.sysctl(&[&format!("net.ipv6.conf.{BALANCER_INTERFACE}.disable_ipv6=1")])
    }

    /// Makes the balancer's cable a trunk: frames on it bear one VLAN tag, or two, that nobody else sees.
    pub fn tag_balancer(&self, tags: u8) -> Result<()> {
        let program = build_bpf(self.session.dir(), "tag", TAG_SOURCE)?.display().to_string();
        // Into the frame, where AF_XDP finds it, and not beside it.
        self.switch.run("ethtool", &["-K", "p-lb", "txvlan", "off"])?;
        self.switch.run("tc", &["qdisc", "add", "dev", "p-lb", "clsact"])?;
        for (direction, section) in [("egress", format!("tag{tags}")), ("ingress", format!("untag{tags}"))] {
            let words =
                ["filter", "add", "dev", "p-lb", direction, "bpf", "da", "obj", &program, "sec", &section];
            self.switch.run("tc", &words)?;
        }
        Ok(())
    }

    /// Makes the client's kernel join the address it connected to even where the server asked it not to.
    pub fn ignore_flag_c(&self) -> Result<()> {
        let program = build_bpf(self.session.dir(), "unflag", UNFLAG_SOURCE)?.display().to_string();
        for interface in ["c0", "c1"] {
            self.client.run("tc", &["qdisc", "add", "dev", interface, "clsact"])?;
            let words =
                ["filter", "add", "dev", interface, "ingress", "bpf", "da", "obj", &program, "sec", "unflag"];
            self.client.run("tc", &words)?;
        }
        Ok(())
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.session.dir().join(name)
    }

    /// A namespace for another balancer.
    pub fn add_balancer(&self, appliance: Appliance) -> Result<Namespace> {
        make_balancer(self.session.name(), &self.switch, appliance)
    }

    /// A namespace on the bridge, without addresses.
    pub fn add_namespace(&self, role: &str, interface: &str) -> Result<Namespace> {
        let namespace = Namespace::new(self.session.name(), role)?;
        namespace.sysctl(&ADDRESSED)?;
        plug(&self.switch, &format!("p-{interface}"), &namespace, interface, None, MTU)?;
        no_offloads(&namespace, interface)?;
        Ok(namespace)
    }

    /// Every namespace with the name of its role.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        let fixed = [("client", &self.client), ("balancer", &self.balancer), ("switch", &self.switch)];
        fixed.into_iter().chain(self.backends.iter().map(|b| (b.name.as_str(), &b.namespace)))
    }

    /// Whether everything the lab started still runs.
    pub fn check(&mut self) -> Result<()> {
        self.backends.iter_mut().try_for_each(|b| b._service.check())
    }
}

fn require_mptcp() -> Result<()> {
    match fs::read_to_string("/proc/sys/net/mptcp/enabled") {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::other(
            "this kernel has no MPTCP (net.mptcp.enabled is missing): use one built with CONFIG_MPTCP, as Debian's are",
        )),
    }
}

fn make_switch(run: &str) -> Result<Namespace> {
    let switch = Namespace::new(run, "switch")?;
    switch.sysctl(&["net.ipv6.conf.default.disable_ipv6=1"])?;
    switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n")?;
    Ok(switch)
}

/// A cable from `namespace` to a port of the bridge; both ends up.
pub(crate) fn plug(
    switch: &Namespace,
    port: &str,
    namespace: &Namespace,
    name: &str,
    mac: Option<&str>,
    mtu: u16,
) -> Result<()> {
    let (inside, bridge) = (namespace.name(), switch.name());
    let mut link = Command::new("ip");
    link.args(["link", "add", name, "mtu", &mtu.to_string()]);
    if let Some(mac) = mac {
        link.args(["address", mac]);
    }
    link.args([
        "netns",
        inside,
        "type",
        "veth",
        "peer",
        "name",
        port,
        "mtu",
        &mtu.to_string(),
        "netns",
        bridge,
    ]);
    process::run(&mut link)?;
    switch.ip(&format!("link set {port} master br0 up\n"))?;
    namespace.ip(&format!("link set {name} up\n"))
}

/// Settings of every namespace that has addresses.
pub(crate) const ADDRESSED: [&str; 6] = [
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv4.tcp_no_metrics_save=1",
];

/// An address on one interface is not answered for on another.
const STRICT_ARP: [&str; 4] = [
    "net.ipv4.conf.all.arp_ignore=1",
    "net.ipv4.conf.default.arp_ignore=1",
    "net.ipv4.conf.all.arp_announce=2",
    "net.ipv4.conf.default.arp_announce=2",
];

pub(crate) fn no_offloads(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.run("ethtool", &["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"])?;
    Ok(())
}

fn make_client(run: &str, switch: &Namespace) -> Result<Namespace> {
    let client = Namespace::new(run, "client")?;
    client.sysctl(&ADDRESSED)?;
    client.sysctl(&STRICT_ARP)?;
    client.sysctl(&["net.mptcp.enabled=1"])?;
    for interface in ["c0", "c1"] {
        plug(switch, &format!("p-{interface}"), &client, interface, None, 1500)?;
        no_offloads(&client, interface)?;
    }
    client.ip("addr add 10.0.1.1/24 dev c0\naddr add 10.0.2.1/24 dev c1\n\
         addr add fd00:1::1/64 dev c0 nodad\naddr add fd00:2::1/64 dev c1 nodad\n\
         mptcp limits set subflow 8 add_addr_accepted 0\n")?;
    client.ip(&client_routes("add", [1, 2].map(|net| Appliance::FIRST.four(net)), |net| {
        Appliance::FIRST.six(net)
    }))?;
    Ok(client)
}

/// The VIP over both interfaces; the first is preferred, the second serves sockets bound to its interface, as the
/// kernel's path manager binds those of an endpoint that names one.
fn client_routes(verb: &str, via: [String; 2], via6: impl Fn(u8) -> String) -> String {
    routes(verb, [Family::V4, Family::V6].map(Family::vip), via, via6)
}

/// The same to another pair of addresses, IPv4 and IPv6.
pub(crate) fn routes(
    verb: &str,
    [v4, v6]: [IpAddr; 2],
    via: [String; 2],
    via6: impl Fn(u8) -> String,
) -> String {
    let [first, second] = via;
    format!(
        "route {verb} {v4} via {first} dev c0 src 10.0.1.1 metric 100\n\
         route {verb} {v4} via {second} dev c1 src 10.0.2.1 metric 200\n\
         route {verb} {v6} via {} dev c0 src fd00:1::1 metric 100\n\
         route {verb} {v6} via {} dev c1 src fd00:2::1 metric 200\n",
        via6(1),
        via6(2),
    )
}

fn make_balancer(run: &str, switch: &Namespace, appliance: Appliance) -> Result<Namespace> {
    let (role, port) = if appliance == Appliance::FIRST { ("balancer", "p-lb") } else { ("peer", "p-lb2") };
    let balancer = Namespace::new(run, role)?;
    balancer.sysctl(&ADDRESSED)?;
    // The kernel sees every frame too; were it a router, it would forward or refuse what Weft forwards.
    balancer.sysctl(&["net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])?;
    plug(switch, port, &balancer, BALANCER_INTERFACE, Some(&appliance.mac()), MTU)?;
    no_offloads(&balancer, BALANCER_INTERFACE)?;
    // Without these the kernel answers IPv6 packets to the VIP with ICMPv6 "no route", which ends connections that
    // are being opened, though Weft forwarded their SYN.
    balancer.ip("route add blackhole default\nroute add blackhole ::/0\n")?;
    for path in [1, 2] {
        balancer.ip(&format!(
            "addr add {}/24 dev lb0\naddr add {}/64 dev lb0 nodad\n",
            appliance.four(path),
            appliance.six(path)
        ))?;
    }
    Ok(balancer)
}

fn make_backend(
    session: &Session,
    switch: &Namespace,
    number: u8,
    decap: Option<&Path>,
    helper: &Path,
) -> Result<Backend> {
    let name = format!("b{number}");
    let namespace = Namespace::new(session.name(), &name)?;
    namespace.sysctl(&ADDRESSED)?;
    namespace.sysctl(&STRICT_ARP)?;
    namespace.sysctl(&["net.mptcp.enabled=1", "net.mptcp.allow_join_initial_addr_port=1"])?;
    plug(switch, &format!("p-{name}"), &namespace, "e0", Some(&Backend::mac(number)), MTU)?;
    let (four, six) = Backend::addresses(number);
    namespace.ip(&format!(
        "addr add {four}/24 dev e0\naddr add 10.0.2.{}/24 dev e0\n\
         addr add {six}/64 dev e0 nodad\naddr add fd00:2::1{number}/64 dev e0 nodad\n\
         addr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n\
         mptcp limits set subflow 8 add_addr_accepted 0\n",
        10 + number,
        Family::V4.vip(),
        Family::V6.vip(),
    ))?;
    if let Some(program) = decap {
        namespace.ip(&format!("link set dev e0 xdpgeneric obj {} sec xdp\n", program.display()))?;
    }
    let log = session.dir().join(format!("{name}.log"));
    let mut service = namespace.task(
        &format!("the server on {name}"),
        helper,
        helper,
        &traffic::serve::arguments(&name),
        &log,
    )?;
    service.next_line(std::time::Duration::from_secs(10))?;
    Ok(Backend { name, number, _service: service, namespace })
}

/// Compiles a program for the kernel into the run's directory.
fn build_bpf(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let (source, object) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    fs::write(&source, text).map_err(|e| Error::io(format!("cannot write {name}.c"), e))?;
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", &include, "-c"]).arg(&source).arg("-o").arg(&object);
    process::run(&mut clang)?;
    Ok(object)
}
