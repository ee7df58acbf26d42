//! What a server with a stock Linux kernel is told so that clients join at its own port or address: the exact commands.
//!
//! Linux announces an endpoint of kind `signal` on every new connection (ADD_ADDR, RFC 8684 section 3.4.1), opens the
//! listener for a port by itself, and with `allow_join_initial_addr_port` off sets flag C on its SYN/ACKs (section 3.1),
//! which tells clients to leave the address they connected to alone.
//!
//! An ADD_ADDR with an IPv6 address and a port has 30 bytes, which with TCP timestamps (12) exceed the 40 of TCP's
//! options: Linux 6.18 does not send it (AddAddrTxDrop). Hence an address of the backend's own goes before its port,
//! family by family, and an IPv6 port comes with a note.

use std::net::IpAddr;

use crate::commands::Commands;
use crate::view::{BackendRow, VipRow};

/// The scheme's name among a VIP's `steering`.
pub(crate) const SCHEME: &str = "endpoint";

/// What the operator is told of an IPv6 address with a port.
const NO_ROOM: &str = "An IPv6 address with a port does not fit beside TCP timestamps, and Linux does not announce it: \
                       give the backend an IPv6 `endpoint_address`, or run sysctl -w net.ipv4.tcp_timestamps=0";

/// Tells what a server does so that clients join at the backend's own port or address on these VIPs, which steer by
/// endpoint. The error is one sentence that says what to do.
pub(crate) fn tell(vips: &[&VipRow], backend: &BackendRow, told: &mut Commands) -> Result<(), String> {
    let mut wanted = Wanted::default();
    backend.endpoint_address.iter().for_each(|address| wanted.address(address, &backend.address));
    let covered = |address: &&String| backend.endpoint_address.iter().any(|own| is_v6(own) == is_v6(address));
    if let Some(port) = backend.endpoint_port {
        let addresses = vips.iter().flat_map(|vip| &vip.address);
        addresses.filter(|address| !covered(address)).for_each(|address| wanted.port(address, port));
    }
    if wanted.announced.is_empty() {
        return Err(format!(
            "backend `{}` of pool `{}` has no endpoint; give it `endpoint_port` or `endpoint_address`",
            backend.name, backend.pool
        ));
    }
    wanted.finish(told);
    Ok(())
}

/// What a server shall have and announce, nothing twice.
#[derive(Default)]
struct Wanted {
    borne: Vec<String>,
    announced: Vec<String>,
    notes: Vec<String>,
}

impl Wanted {
    fn port(&mut self, address: &str, port: u16) {
        if is_v6(address) {
            put(&mut self.notes, NO_ROOM.to_owned());
        }
        put(&mut self.announced, format!("ip mptcp endpoint add {address} port {port} signal"));
    }

    fn address(&mut self, address: &str, own: &[String]) {
        if own.iter().any(|own| own == address) {
            put(&mut self.notes, format!("Joins go to {address}, the server's own, without passing Weft."));
        } else {
            put(&mut self.borne, bear(address));
        }
        put(&mut self.announced, format!("ip mptcp endpoint add {address} signal"));
    }

    fn finish(self, told: &mut Commands) {
        let settings = ["enabled=1", "allow_join_initial_addr_port=0"];
        told.commands.extend(settings.iter().map(|setting| format!("sysctl -w net.mptcp.{setting}")));
        told.commands.extend(self.borne);
        told.commands.extend(self.announced);
        self.notes.iter().for_each(|note| told.note(note));
    }
}

/// The command that puts an address on the loopback interface, whether it is there already or not.
fn bear(address: &str) -> String {
    let suffix = if is_v6(address) { "/128 dev lo nodad" } else { "/32 dev lo" };
    format!("ip address replace {address}{suffix}")
}

fn is_v6(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6())
}

fn put(into: &mut Vec<String>, line: String) {
    if !into.contains(&line) {
        into.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::commands;

    fn vip(name: &str, pool: &str, steering: &[&str], address: &[&str]) -> VipRow {
        VipRow {
            name: name.to_owned(),
            pool: pool.to_owned(),
            steering: steering.iter().map(|word| (*word).to_owned()).collect(),
            address: address.iter().map(|address| (*address).to_owned()).collect(),
            ..VipRow::default()
        }
    }

    fn backend(pool: &str, name: &str, port: Option<u16>, addresses: &[&str]) -> BackendRow {
        BackendRow {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address: vec!["10.0.1.11".to_owned()],
            endpoint_port: port,
            endpoint_address: addresses.iter().map(|address| (*address).to_owned()).collect(),
            ..BackendRow::default()
        }
    }

    const STEERED: [&str; 2] = ["endpoint", "learn"];

    #[test]
    fn a_port_is_announced_on_every_address_of_the_vips_once() {
        let vips = [
            vip("web", "p", &STEERED, &["10.9.9.9", "fd99::9"]),
            vip("tls", "p", &STEERED, &["10.9.9.9"]),
            vip("plain", "p", &["learn"], &["10.9.9.8"]),
            vip("other", "q", &STEERED, &["10.9.9.7"]),
        ];
        let said = commands(&vips, &[backend("p", "b1", Some(20_001), &[])], None, "b1").unwrap();
        assert_eq!(
            said.text(),
            "# Backend b1 of pool p: run this on the server, as root, before clients connect.\n\
             # An IPv6 address with a port does not fit beside TCP timestamps, and Linux does not announce it: \
             give the backend an IPv6 `endpoint_address`, or run sysctl -w net.ipv4.tcp_timestamps=0\n\
             sysctl -w net.mptcp.enabled=1\n\
             sysctl -w net.mptcp.allow_join_initial_addr_port=0\n\
             ip mptcp endpoint add 10.9.9.9 port 20001 signal\n\
             ip mptcp endpoint add fd99::9 port 20001 signal\n"
        );
    }

    #[test]
    fn an_address_is_borne_and_announced_and_the_servers_own_is_only_announced() {
        let vips = [vip("web", "p", &STEERED, &["10.9.9.9"])];
        let said = commands(&vips, &[backend("p", "b1", None, &["10.0.1.11", "fd99::a1"])], Some("p"), "b1")
            .unwrap();
        assert_eq!(said.notes, ["Joins go to 10.0.1.11, the server's own, without passing Weft."]);
        assert_eq!(
            said.commands[2..],
            [
                "ip address replace fd99::a1/128 dev lo nodad",
                "ip mptcp endpoint add 10.0.1.11 signal",
                "ip mptcp endpoint add fd99::a1 signal"
            ]
        );
    }

    #[test]
    fn a_family_with_an_address_of_its_own_needs_no_port() {
        let vips = [vip("web", "p", &STEERED, &["10.9.9.9", "fd99::9"])];
        let said = commands(&vips, &[backend("p", "b1", Some(20_001), &["fd99::a1"])], None, "b1").unwrap();
        assert_eq!(said.notes, Vec::<String>::new());
        assert_eq!(
            said.commands[3..],
            ["ip mptcp endpoint add fd99::a1 signal", "ip mptcp endpoint add 10.9.9.9 port 20001 signal"]
        );
    }

    #[test]
    fn who_needs_no_commands_is_told_why() {
        let vips = [vip("web", "p", &STEERED, &["10.9.9.9"]), vip("dns", "q", &["learn"], &["10.9.9.7"])];
        let removed = BackendRow { state: Some("removed".to_owned()), ..backend("p", "gone", Some(1), &[]) };
        let rows = [
            backend("p", "b1", None, &[]),
            backend("q", "b2", Some(1), &[]),
            backend("p", "b3", Some(1), &[]),
            backend("q", "b3", Some(1), &[]),
            removed,
        ];
        let told = |pool, name| commands(&vips, &rows, pool, name).unwrap_err();
        assert_eq!(
            told(None, "b1"),
            "backend `b1` of pool `p` has no endpoint; give it `endpoint_port` or `endpoint_address`"
        );
        assert!(told(None, "b2").starts_with("no VIP of pool `q` steers by \"endpoint\", \"token-map\" or"));
        assert_eq!(told(None, "b3"), "several pools have a backend `b3`, name the pool, too: p, q");
        assert_eq!(told(Some("r"), "b3"), "there is no backend `b3` in pool `r`; see `weftctl backend list`");
        assert!(told(None, "gone").starts_with("there is no backend `gone` in any pool"));
        assert!(commands(&vips, &rows, Some("p"), "b3").is_ok());
    }
}
