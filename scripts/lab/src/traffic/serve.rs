//! The server that runs on a backend: listens on every address, over IPv4 and IPv6, with kernel MPTCP sockets, and
//! answers the probe on the VIP.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket};

use super::{probe, server_round, socket};
use crate::topology::{Family, MIXED_PORT, PORT, PROBE_PORT};
use crate::{Error, Result};

/// Connections that may wait; the demo opens all of its own at once.
const BACKLOG: i32 = 4096;

/// The arguments of `weft-lab` that start a server which calls itself `name`.
pub fn arguments(name: &str) -> Vec<String> {
    ["serve", "--name", name].map(str::to_owned).into()
}

/// Serves until the process ends. Prints one line when it listens. Without ports it is a server of the VIP; with some
/// it listens on those and needs no VIP.
pub fn serve(name: &str, ports: &[u16]) -> Result<()> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let (usual, of_vip) = if ports.is_empty() { (&[PORT][..], Some(mixed())) } else { (ports, None) };
    let places = usual.iter().flat_map(|port| any.map(|any| SocketAddr::new(any, *port))).chain(of_vip);
    let listeners: Vec<_> = places.map(listen).collect();
    let mut threads = Vec::new();
    for listener in listeners {
        let listener = listener.map_err(|e| Error::io("cannot listen", e))?;
        let greeting = format!("{name}\n");
        threads.push(std::thread::spawn(move || accept(&listener, &greeting)));
    }
    for family in of_vip.map_or(&[][..], |_| &[Family::V4, Family::V6]) {
        let (at, name) = (SocketAddr::new(family.vip(), PROBE_PORT), name.to_owned());
        threads.push(std::thread::spawn(move || {
            if let Err(error) = probe::answer(at, &name) {
                eprintln!("the probe's socket: {error}");
            }
        }));
    }
    println!("listening");
    for thread in threads {
        // An accept loop has no other end than the process's.
        let _ = thread.join();
    }
    Err(Error::other("no listener is left"))
}

/// The VIP of IPv4 on a socket of IPv6: the kernel mixes families on those alone.
fn mixed() -> SocketAddr {
    let vip = match Family::V4.vip() {
        IpAddr::V4(vip) => vip.to_ipv6_mapped(),
        IpAddr::V6(vip) => vip,
    };
    SocketAddr::new(vip.into(), MIXED_PORT)
}

fn listen(at: SocketAddr) -> std::io::Result<Socket> {
    let listener = socket(Domain::for_address(at))?;
    listener.set_reuse_address(true)?;
    if let IpAddr::V6(address) = at.ip() {
        listener.set_only_v6(address.to_ipv4_mapped().is_none())?;
    }
    listener.bind(&at.into())?;
    listener.listen(BACKLOG)?;
    Ok(listener)
}

fn accept(listener: &Socket, greeting: &str) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let greeting = greeting.to_owned();
                std::thread::spawn(move || {
                    // A connection that breaks is the client's to report.
                    let _ = talk(&stream, &greeting);
                });
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

fn talk(mut stream: &Socket, greeting: &str) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes())?;
    while server_round(stream)? {}
    Ok(())
}
