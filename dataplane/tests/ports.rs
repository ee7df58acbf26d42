//! Ports of a running `weft-dataplane` against a real kernel: the exception path, frames longer than an mbuf, links that
//! go down and come up. Everything happens in network namespaces of the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ipc::control_link::ControlLink;
use ipc::counter::Counter;
use ipc::counters::{CounterReader, Gauge, GaugeReader, PortGauge};
use ipc::id::PortId;
use ipc::reason::Reason;
use running::net::Namespace;
use running::packets::{ack, write_pcap};
use running::{
    DataPlane, PATIENCE, Place, Setup, assert_consistent, commands, commit, is_root, program, until, workers,
};
use rustix::process::Signal;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A data plane in a namespace, configured.
struct Balancer {
    place: Place,
    running: DataPlane,
    link: ControlLink,
    counters: CounterReader,
    gauges: GaugeReader,
}

impl Balancer {
    fn start(namespace: &Namespace, place: Place, config: PathBuf) -> Self {
        let mut command = namespace.command(program().to_str().unwrap());
        let mut running = DataPlane::spawn(&place, command.arg("run").arg("--config").arg(&config));
        let mut link = running.control(&place);
        commit(&mut link, &commands(&config));
        let (counters, gauges) = (link.counters(), link.gauges().unwrap());
        Self { place, running, link, counters, gauges }
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counters.counter(counter)
    }

    fn is_up(&self, port: u8) -> bool {
        self.gauges.port(PortId(port), PortGauge::LinkUp) == 1
    }

    /// Ends it in order: nothing is left, and every packet was counted.
    fn stop(self) {
        drop(self.link);
        self.running.stop(Signal::TERM);
        assert_eq!(self.place.leftovers(), [""; 0]);
        assert_consistent(&self.counters);
    }
}

/// A namespace that the kernel can hear through a port: the balancer's, and a station on the wire.
fn wired(mtu: u16) -> (Namespace, Namespace) {
    let (balancer, peer) = (Namespace::new(), Namespace::new());
    balancer.wire("lb0", &peer, "p0", mtu);
    // On af_packet the kernel sees the frames of lb0 as well, and would answer there for an address of weft0.
    balancer.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1");
    peer.ip("addr add 10.0.1.1/24 dev p0");
    peer.ip("addr add fd00:1::1/64 dev p0 nodad");
    peer.ip("route add 10.9.9.9 via 10.0.1.254");
    (balancer, peer)
}

// ---- the exception path ------------------------------------------------------------------------------------------

/// Serves one connection: gives back what it gets, and ends when the client does.
fn echo_once(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return,
            count => stream.write_all(&buffer[..count]).unwrap(),
        }
    }
}

/// A TCP connection between two namespaces, in the manner of SSH: small messages each way, then much at once.
#[track_caller]
fn talk(server: &Namespace, client: &Namespace, address: &str, port: u16) {
    let address: SocketAddr = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let serving = server.on_thread(move || {
        let listener = TcpListener::bind(address).unwrap();
        ready.send(()).unwrap();
        echo_once(&listener);
    });
    is_ready.recv().unwrap();
    let asking = client.on_thread(move || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        for round in 0..50_u8 {
            let message = vec![round; 1 + 29 * usize::from(round)];
            stream.write_all(&message).unwrap();
            let mut back = vec![0; message.len()];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, message);
        }
        let much: Vec<u8> = (0..300_000_u32).map(|place| (place % 251).to_le_bytes()[0]).collect();
        let mut writer = stream.try_clone().unwrap();
        let sent = much.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut back = vec![0; much.len()];
        stream.read_exact(&mut back).unwrap();
        writing.join().unwrap();
        assert!(back == much, "a byte was changed on the way");
    });
    asking.join().unwrap();
    serving.join().unwrap();
}

/// The checksum errors that a namespace's kernel has counted.
fn checksum_errors(namespace: &Namespace) -> u64 {
    let snmp = namespace.sh("cat /proc/net/snmp");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

/// Tries to connect to the VIP until the balancer has judged some SYNs.
fn knock(peer: &Namespace, balancer: &Balancer) {
    let before = balancer.counters.reason(Reason::Hash);
    let knocking = peer.on_thread(|| {
        for _ in 0..5 {
            let vip = "10.9.9.9:8000".parse().unwrap();
            // Nobody answers: the backends are no more than MAC addresses.
            let _nobody = TcpStream::connect_timeout(&vip, Duration::from_millis(20));
        }
    });
    knocking.join().unwrap();
    until("SYNs to the VIP are balanced", || balancer.counters.reason(Reason::Hash) >= before + 5);
}

/// The exception path over a driver that takes all frames from the kernel, as a NIC on vfio does.
fn reaches_the_kernel(name: &str, device: &str, lanes: usize) {
    if !is_root(name) {
        return;
    }
    let cpus = workers(lanes);
    if cpus.len() < lanes {
        return skip::skip(name, "more CPUs are needed");
    }
    let (home, peer) = wired(1500);
    if !device.contains("iface=lb0") {
        home.ip("link del lb0");
    }
    let place = Place::new();
    let setup = Setup {
        workers: &cpus,
        devices: &[device],
        port_keys: "exception = \"weft0\"",
        memory_mb: 96,
        ..Setup::default()
    };
    let config = place.configure(&setup);
    let balancer = Balancer::start(&home, place, config);
    let link = home.sh("ip -o link show dev weft0");
    assert!(link.contains("02:00:00:00:02:01") && link.contains("mtu 1500") && link.contains("UP"), "{link}");
    home.ip("addr add 10.0.1.254/24 dev weft0");
    home.ip("addr add fd00:1::254/64 dev weft0 nodad");

    // ARP and neighbour discovery are the kernels' own, over the path.
    peer.sh("ping -c 3 -i 0.2 -W 20 10.0.1.254");
    peer.sh("ping -c 3 -i 0.2 -W 20 fd00:1::254");
    let neighbours = peer.sh("ip neigh show dev p0");
    assert_eq!(neighbours.matches("02:00:00:00:02:01").count(), neighbours.lines().count(), "{neighbours}");
    home.sh("ping -c 3 -i 0.2 -W 20 10.0.1.1");

    knock(&peer, &balancer);
    talk(&home, &peer, "10.0.1.254", 2222);
    talk(&peer, &home, "10.0.1.1", 2223);
    talk(&home, &peer, "fd00:1::254", 2224);
    talk(&peer, &home, "fd00:1::1", 2225);
    knock(&peer, &balancer);
    assert_eq!(
        [checksum_errors(&home), checksum_errors(&peer)],
        [0, 0],
        "every checksum is whole on the wire"
    );

    let (to, from) = (balancer.count(Counter::ExceptionTx), balancer.count(Counter::ExceptionRx));
    assert!(to > 800 && from > 800, "{to} to the kernel, {from} from it");
    assert_eq!(balancer.count(Counter::Punted), to + balancer.count(Counter::ExceptionRefused));

    // The kernel sets its interface down: what is for it is counted, and when it is up again all is as before.
    home.ip("link set dev weft0 down");
    let refused = balancer.count(Counter::ExceptionRefused);
    until("frames for a kernel that does not listen are counted", || {
        let _lost = peer.command("ping").args(["-c", "1", "-W", "1", "10.0.1.254"]).output().unwrap();
        balancer.count(Counter::ExceptionRefused) > refused
    });
    home.ip("link set dev weft0 up");
    talk(&home, &peer, "10.0.1.254", 2226);

    let base = balancer.gauges.get(Gauge::MbufsInUse);
    assert!(base > 0 && base < balancer.gauges.get(Gauge::MbufCapacity), "{base} mbufs in use");
    balancer.stop();
    assert!(!home.tries_ip("link show dev weft0"), "the interface goes with the data plane");
}

#[test]
fn the_kernel_is_reached_through_a_port_whose_frames_it_does_not_see() {
    reaches_the_kernel(
        "the_kernel_is_reached_through_a_port_whose_frames_it_does_not_see",
        "net_af_xdp0,iface=lb0,force_copy=1",
        1,
    );
}

#[test]
fn two_workers_each_have_their_own_queue_to_the_kernel() {
    reaches_the_kernel(
        "two_workers_each_have_their_own_queue_to_the_kernel",
        "net_af_packet0,iface=lb0,framecnt=512,qpairs=2",
        2,
    );
}

#[test]
fn a_persistent_tap_keeps_its_addresses_over_a_restart() {
    const NAME: &str = "a_persistent_tap_keeps_its_addresses_over_a_restart";
    if !is_root(NAME) {
        return;
    }
    let (home, peer) = wired(1500);
    home.ip("tuntap add dev weft0 mode tap multi_queue");
    home.ip("addr add 10.0.1.254/24 dev weft0");
    for round in 0..2 {
        let place = Place::new();
        let config = place.configure(&Setup {
            workers: &workers(1),
            devices: &["net_af_packet0,iface=lb0,framecnt=512"],
            port_keys: "exception = \"weft0\"",
            ..Setup::default()
        });
        let balancer = Balancer::start(&home, place, config);
        talk(&home, &peer, "10.0.1.254", 2222);
        match round {
            0 => balancer.running.kill(),
            _ => balancer.stop(),
        }
        let kept = home.sh("ip -o addr show dev weft0");
        assert!(kept.contains("10.0.1.254/24"), "{kept}");
    }
}

// ---- where the exception path cannot be ---------------------------------------------------------------------------

/// What a data plane says that cannot start; nothing is left of it.
#[track_caller]
fn refusal(place: &Place, command: &mut Command) -> String {
    let mut running = DataPlane::spawn(place, command);
    let status = running.wait();
    let said = running.said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(place.leftovers(), [""; 0]);
    let sentences: Vec<&str> = said.lines().filter(|line| !line.starts_with('[')).collect();
    let [sentence] = sentences[..] else { panic!("not one sentence: {said}") };
    sentence.to_owned()
}

fn with_exception(place: &Place, interface: &str) -> PathBuf {
    let port_keys = format!("exception = {interface:?}");
    place.configure(&Setup { workers: &workers(1), port_keys: &port_keys, ..Setup::default() })
}

#[test]
fn a_name_that_is_taken_or_too_long_and_a_kernel_without_tun_are_said_to_be_so() {
    const NAME: &str = "a_name_that_is_taken_or_too_long_and_a_kernel_without_tun_are_said_to_be_so";
    if !is_root(NAME) {
        return;
    }
    let (home, _peer) = wired(1500);
    let run = |place: &Place, config: &PathBuf| {
        let mut command = home.command(program().to_str().unwrap());
        refusal(place, command.arg("run").arg("--config").arg(config))
    };
    let place = Place::new();
    let said = run(&place, &with_exception(&place, "lb0"));
    assert!(said.contains("there is a network interface lb0 already"), "{said}");

    let place = Place::new();
    let said = run(&place, &with_exception(&place, "weft-exception-0"));
    assert!(said.contains("will not do as an interface's name"), "{said}");

    // Another data plane's path: DPDK's driver would join it without a word.
    let (first, second) = (Place::new(), Place::new());
    let config = with_exception(&first, "weft7");
    let other = Balancer::start(&home, first, config);
    let said = run(&second, &with_exception(&second, "weft7"));
    assert!(said.contains("there is a network interface weft7 already"), "{said}");
    other.stop();

    let place = Place::new();
    let config = with_exception(&place, "weft0");
    let mut command = home.command("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$0\" run --config \"$1\""]);
    let said = refusal(&place, command.arg(program()).arg(&config));
    assert!(said.contains("needs /dev/net/tun") && said.contains("modprobe tun"), "{said}");
    assert!(!home.tries_ip("link show dev weft0"));
}

// ---- long frames -------------------------------------------------------------------------------------------------

/// UDP services of one backend on the second port: as it is, and in IPv4.
const SERVICES: &str = r#"
[[pool]]
name = "servers"
backend = [{ name = "s1", address = ["10.0.2.11"], mac = "02:00:00:00:0b:01" }]

[[vip]]
name = "plain"
address = ["10.9.9.9"]
port = 8000
protocol = "udp"
pool = "servers"

[[vip]]
name = "tunnel"
address = ["10.9.9.9"]
port = 8001
protocol = "udp"
pool = "servers"
forward = "ipip"
"#;

/// A client, a balancer with two ports and a server in a row.
struct Row {
    client: Namespace,
    home: Namespace,
    server: Namespace,
}

impl Row {
    fn new(mtu: u16) -> Self {
        let [client, home, server] = [(); 3].map(|()| Namespace::new());
        home.wire("lb0", &client, "c0", mtu);
        home.wire("lb1", &server, "s0", mtu);
        client.ip("addr add 10.0.1.1/24 dev c0");
        server.ip("link set dev s0 address 02:00:00:00:0b:01");
        server.ip("addr add 10.0.2.11/24 dev s0");
        server.ip("addr add 10.9.9.9/32 dev lo");
        server.sh("sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.s0.rp_filter=0");
        let row = Self { client, home, server };
        row.route();
        row
    }

    /// What the client's kernel forgets when its interface goes down.
    fn route(&self) {
        self.client.ip("neigh replace 10.0.1.254 lladdr 02:00:00:00:02:01 dev c0 nud permanent");
        self.client.ip("route replace 10.9.9.9 via 10.0.1.254");
    }

    fn balancer(&self, devices: &[&str; 2], mtu: u16) -> Balancer {
        let place = Place::new();
        let config = place.path("weft.toml");
        let [first, second] = devices;
        let text = format!(
            "[dataplane]\nruntime_dir = {dir:?}\nfile_prefix = {prefix:?}\nworkers = {workers:?}\nhuge_pages = \"off\"\n\
             flows = 10000\ntokens = 10000\nmemory_mb = 128\nkeep_tables = false\n\
             [[dataplane.port]]\ndevice = {first:?}\nmac = \"02:00:00:00:02:01\"\naddress = [\"10.0.1.254/24\"]\nmtu = {mtu}\n\
             rx_descriptors = 256\ntx_descriptors = 256\n\
             [[dataplane.port]]\ndevice = {second:?}\nmac = \"02:00:00:00:02:02\"\naddress = [\"10.0.2.254/24\"]\nmtu = {mtu}\n\
             rx_descriptors = 256\ntx_descriptors = 256\n{SERVICES}",
            dir = place.runtime_dir(),
            prefix = place.prefix(),
            workers = workers(1),
        );
        fs::write(&config, text).unwrap();
        Balancer::start(&self.home, place, config)
    }

    /// Sends datagrams of these lengths to the VIP's port.
    fn send(&self, port: u16, lengths: &'static [usize]) {
        let sending = self.client.on_thread(move || {
            let socket = UdpSocket::bind("10.0.1.1:5000").unwrap();
            for length in lengths {
                socket.send_to(&payload(*length), ("10.9.9.9", port)).unwrap();
            }
        });
        sending.join().unwrap();
    }

    /// Receives so many packets on a socket of the server that `open` makes, while `send` sends them.
    fn receive(
        &self,
        count: usize,
        open: impl FnOnce() -> Socket + Send + 'static,
        send: impl FnOnce(),
    ) -> Vec<Vec<u8>> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let receiving = self.server.on_thread(move || {
            let mut socket = open();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            ready.send(()).unwrap();
            let mut packets = Vec::new();
            let mut buffer = vec![0; 65536];
            while packets.len() < count {
                let length = socket.read(&mut buffer).unwrap();
                packets.push(buffer[..length].to_vec());
            }
            packets
        });
        is_ready.recv().unwrap();
        send();
        receiving.join().unwrap()
    }
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from((place * 7 + length) % 251).unwrap()).collect()
}

fn udp_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    let address: SocketAddr = "10.9.9.9:8000".parse().unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    socket
}

/// Every packet of IP protocol 4, from its outer header on.
fn ipip_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(4))).unwrap()
}

#[test]
fn frames_longer_than_an_mbuf_reach_their_backend_whole() {
    const NAME: &str = "frames_longer_than_an_mbuf_reach_their_backend_whole";
    const LENGTHS: &[usize] = &[100, 1_994, 2_100, 5_000, 8_900, 9_540];
    if !is_root(NAME) {
        return;
    }
    for (devices, pieces) in [
        // libpcap's driver cuts a frame into mbufs of 2,048 bytes; that of af_packet needs one mbuf that takes it all.
        (["net_pcap0,iface=lb0", "net_pcap1,iface=lb1"], true),
        (
            [
                "net_af_packet0,iface=lb0,framesz=16384,blocksz=65536,framecnt=64",
                "net_af_packet1,iface=lb1,framesz=16384,blocksz=65536,framecnt=64",
            ],
            false,
        ),
    ] {
        let row = Row::new(9_600);
        let balancer = row.balancer(&devices, 9_600);
        let base = balancer.gauges.get(Gauge::MbufsInUse);
        let plain = row.receive(LENGTHS.len(), udp_socket, || row.send(8000, LENGTHS));
        let sent: Vec<Vec<u8>> = LENGTHS.iter().map(|length| payload(*length)).collect();
        assert_eq!(plain, sent, "l2dsr, {devices:?}");

        let tunnelled = row.receive(LENGTHS.len(), ipip_socket, || row.send(8001, LENGTHS));
        for (packet, payload) in tunnelled.iter().zip(&sent) {
            assert_eq!(packet.len(), 20 + 20 + 8 + payload.len());
            assert_eq!(packet[12..20], [10, 0, 2, 254, 10, 0, 2, 11], "from the port to the backend");
            assert_eq!(packet[32..40], [10, 0, 1, 1, 10, 9, 9, 9], "from the client to the VIP");
            assert!(packet.ends_with(payload), "{} bytes, {devices:?}", payload.len());
        }
        until("every mbuf is free again", || balancer.gauges.get(Gauge::MbufsInUse) <= base);
        assert_eq!(balancer.count(Counter::TxRefused), 0);
        let forwarded = balancer.counters.reason(Reason::Hash) + balancer.counters.reason(Reason::Flow);
        assert_eq!(forwarded, 2 * u64::try_from(LENGTHS.len()).unwrap(), "pieces: {pieces}");
        balancer.stop();
    }
}

#[test]
fn an_mtu_that_a_device_does_not_do_is_refused_with_what_it_does() {
    const NAME: &str = "an_mtu_that_a_device_does_not_do_is_refused_with_what_it_does";
    if !is_root(NAME) {
        return;
    }
    let (home, _peer) = wired(9_600);
    for (device, parts) in [
        ("net_af_xdp0,iface=lb0,force_copy=1", ["cannot have an MTU of 9000", "it does 68 to 3"]),
        ("net_af_packet0,iface=lb0", ["cannot have an MTU of 9000", "framesz=16384"]),
        ("net_tap0,iface=weft9", ["cannot have an MTU of 9000", "it does 46 to 1504"]),
    ] {
        let place = Place::new();
        let setup = Setup {
            workers: &workers(1),
            devices: &[device],
            port_keys: "mtu = 9000\nrx_descriptors = 64\ntx_descriptors = 64",
            memory_mb: 128,
            ..Setup::default()
        };
        let config = place.configure(&setup);
        let mut command = home.command(program().to_str().unwrap());
        let said = refusal(&place, command.arg("run").arg("--config").arg(config));
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

// ---- links and queues --------------------------------------------------------------------------------------------

/// Sends until so many more datagrams have been forwarded.
fn forwards(row: &Row, balancer: &Balancer) {
    const LENGTHS: &[usize] = &[200; 8];
    let before = balancer.count(Counter::TxPackets);
    until("the balancer forwards", || {
        row.send(8000, LENGTHS);
        balancer.count(Counter::TxPackets) >= before + 8
    });
    let received = row.receive(1, udp_socket, || {
        // The first may have gone before the link was up at the other end.
        for _ in 0..20 {
            row.send(8000, LENGTHS);
        }
    });
    assert_eq!(received, [payload(200)]);
}

#[test]
fn a_link_that_goes_down_is_counted_and_forwarding_goes_on_when_it_is_up_again() {
    const NAME: &str = "a_link_that_goes_down_is_counted_and_forwarding_goes_on_when_it_is_up_again";
    if !is_root(NAME) {
        return;
    }
    for devices in [
        ["net_af_packet0,iface=lb0,framecnt=512", "net_af_packet1,iface=lb1,framecnt=512"],
        ["net_af_xdp0,iface=lb0,force_copy=1", "net_af_xdp1,iface=lb1,force_copy=1"],
    ] {
        let row = Row::new(1_500);
        let balancer = row.balancer(&devices, 1_500);
        until("both links are up", || balancer.is_up(0) && balancer.is_up(1));
        forwards(&row, &balancer);
        let base = balancer.gauges.get(Gauge::MbufsInUse);
        // The far ends of both wires, then the interfaces that the ports stand on, then the far ends again.
        let far = [(&row.client, "c0"), (&row.server, "s0")];
        let own = [(&row.home, "lb0"), (&row.home, "lb1")];
        for (round, ends) in (1..).zip([far, own, far]) {
            for (namespace, interface) in ends {
                namespace.ip(&format!("link set dev {interface} down"));
            }
            until("both links are down", || !balancer.is_up(0) && !balancer.is_up(1));
            for port in [0, 1] {
                assert_eq!(balancer.gauges.port(PortId(port), PortGauge::LinkDowns), round);
            }
            for (namespace, interface) in ends {
                namespace.ip(&format!("link set dev {interface} up"));
            }
            row.route();
            until("both links are up again", || balancer.is_up(0) && balancer.is_up(1));
            forwards(&row, &balancer);
        }
        until("no mbuf was lost", || balancer.gauges.get(Gauge::MbufsInUse) <= base + 64);
        balancer.stop();
    }
}

#[test]
fn what_a_port_refuses_is_counted_and_sent_again_once_it_takes_packets() {
    const NAME: &str = "what_a_port_refuses_is_counted_and_sent_again_once_it_takes_packets";
    if !is_root(NAME) {
        return;
    }
    let row = Row::new(1_500);
    // The server's side of the wire is a TAP of the data plane's own, moved to the server.
    row.server.ip("link del s0");
    let balancer = row.balancer(&["net_af_packet0,iface=lb0,framecnt=512", "net_tap1,iface=t0"], 1_500);
    row.home.ip(&format!("link set dev t0 netns {}", row.server.name()));
    row.server.ip("link set dev t0 address 02:00:00:00:0b:01 up");
    row.server.ip("addr add 10.0.2.11/24 dev t0");
    row.server.sh("sysctl -q -w net.ipv4.conf.t0.rp_filter=0");
    forwards(&row, &balancer);
    until("the pool is told", || balancer.gauges.get(Gauge::MbufsInUse) > 0);
    let base = balancer.gauges.get(Gauge::MbufsInUse);
    for _ in 0..3 {
        row.server.ip("link set dev t0 down");
        let refused = balancer.count(Counter::TxRefused);
        until("the port refuses", || {
            row.send(8000, &[200; 64]);
            balancer.count(Counter::TxRefused) >= refused + 1_000
        });
        row.server.ip("link set dev t0 up");
        forwards(&row, &balancer);
    }
    until("no mbuf was lost", || balancer.gauges.get(Gauge::MbufsInUse) <= base + 64);
    balancer.stop();
}

/// Four ports that give packets without end, to a VIP on two that pass on less than they get: `net_ring` gives back what
/// was sent on it, and the worker takes no more from it in a turn than from the others. So their rings fill, and all
/// mbufs are in them.
#[test]
fn full_rings_and_an_empty_pool_are_counted_and_forwarding_goes_on() {
    const NAME: &str = "full_rings_and_an_empty_pool_are_counted_and_forwarding_goes_on";
    if !is_root(NAME) {
        return;
    }
    let place = Place::new();
    let mut devices = Vec::new();
    for port in 0..4 {
        let input = place.path(&format!("in{port}.pcap"));
        let packets: Vec<Vec<u8>> = (0..64_u16).map(|flow| ack(10_000 + 64 * port + flow)).collect();
        write_pcap(&input, &packets);
        devices.push(format!("net_pcap{port},rx_pcap={},infinite_rx=1", input.display()));
    }
    devices.extend(["net_ring4", "net_ring5"].map(str::to_owned));
    let config = place.path("weft.toml");
    let mut text = format!(
        "[dataplane]\nruntime_dir = {dir:?}\nfile_prefix = {prefix:?}\nworkers = {workers:?}\nhuge_pages = \"off\"\n\
         flows = 10000\ntokens = 10000\nmemory_mb = 64\nkeep_tables = false\n",
        dir = place.runtime_dir(),
        prefix = place.prefix(),
        workers = workers(1),
    );
    for (index, device) in devices.iter().enumerate() {
        let address = format!("10.0.{}.254/24", index + 1);
        text += &format!(
            "[[dataplane.port]]\ndevice = {device:?}\nmac = \"02:00:00:00:02:01\"\naddress = [{address:?}]\n\
             rx_descriptors = 64\ntx_descriptors = 64\n"
        );
    }
    text += "[[pool]]\nname = \"servers\"\nbackend = [\n\
             { name = \"s1\", address = [\"10.0.5.11\"], mac = \"02:00:00:00:0b:01\" },\n\
             { name = \"s2\", address = [\"10.0.6.11\"], mac = \"02:00:00:00:0b:02\" }]\n\
             [[vip]]\nname = \"web\"\naddress = [\"10.9.9.9\"]\nport = 8000\npool = \"servers\"\n";
    fs::write(&config, text).unwrap();
    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    commit(&mut link, &commands(&config));
    let (counters, gauges) = (link.counters(), link.gauges().unwrap());
    until("the pool is told", || gauges.get(Gauge::MbufCapacity) > 0);
    let capacity = gauges.get(Gauge::MbufCapacity);
    let most = |least: u64| {
        until("nearly all mbufs are in use", || gauges.get(Gauge::MbufsInUse) + least >= capacity);
    };
    // Fewer are left than a worker asks for at once: it gets none.
    most(31);
    for _ in 0..3 {
        let sent = counters.counter(Counter::TxPackets);
        until("packets are forwarded all the same", || counters.counter(Counter::TxPackets) > sent + 10_000);
        most(300);
    }
    until("full rings refuse packets", || counters.counter(Counter::TxRefused) > 1_000);
    drop(link);
    running.stop(Signal::TERM);
    assert_eq!(place.leftovers(), [""; 0]);
    assert_consistent(&counters);
}
