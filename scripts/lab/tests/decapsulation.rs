//! Tunnels, against what takes them apart: the XDP program of the lab's backends, and the modules of a stock Debian
//! kernel in a virtual machine.
//!
//! Where root or the guest's kernel is missing a test says that it skipped; with WEFT_REQUIRE_ALL=1 it fails instead.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use weft_lab::knock::{Form, Options};
use weft_lab::topology::{Backend, Family, Lab, Plan};
use weft_lab::vm::Guest;
use weft_lab::vm_image::Parts;

fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_weft-lab").into()
}

/// Says why a test cannot run here, or fails where everything has to.
fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("WEFT_REQUIRE_ALL").is_none_or(|v| v != "1"), "{test} cannot run: {why}");
    std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

/// A lab, or nothing after saying why there is none.
fn lab(test: &str, backends: u8, decapsulate: bool) -> Option<Lab> {
    if !rustix::process::geteuid().is_root() {
        skip(test, "network namespaces need root");
        return None;
    }
    Some(Lab::new(&Plan { backends, decapsulate, helper: helper() }).unwrap())
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn address(number: u8, family: Family) -> IpAddr {
    let (four, six) = Backend::addresses(number);
    if family == Family::V4 { four.into() } else { six.into() }
}

/// A packet to server `number` in one form.
fn knock(lab: &Lab, number: u8, form: Form, outer: Family, inner: Family, tries: u16) -> Result<(), String> {
    let options = Options {
        form,
        door: address(number, outer),
        outer_source: outer.client()[0],
        vip: inner.vip(),
        source: inner.client()[0],
        tries,
    };
    let arguments = options.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.client.run(helper(), &arguments).map(drop).map_err(|error| error.to_string())
}

/// Knocks at server `number` in every form and mix of families; what was refused, as sentences.
fn refused(lab: &Lab, number: u8) -> Vec<String> {
    let mixes = FAMILIES.into_iter().flat_map(|outer| FAMILIES.map(|inner| (outer, inner)));
    let all = mixes.flat_map(|(outer, inner)| Form::ALL.map(|form| (form, outer, inner)));
    all.filter_map(|(form, outer, inner)| knock(lab, number, form, outer, inner, 10).err()).collect()
}

#[test]
fn the_xdp_program_takes_every_form_apart() {
    let Some(lab) = lab("the XDP decapsulator", 1, true) else {
        return;
    };
    assert_eq!(refused(&lab, 1), Vec::<String>::new());
}

/// Number of the guest among the servers.
const GUEST: u8 = 9;

/// Makes the guest a backend: addresses, the VIP, and a tunnel for every mix of families.
const BACKEND: [&str; 5] = [
    // A tunnelled packet comes in on the tunnel, and its source's route leads out of eth0.
    "sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
    "ip link set eth0 up && ip addr add 10.0.1.19/24 dev eth0 && ip addr add 10.0.2.19/24 dev eth0",
    "ip addr add fd00:1::19/64 dev eth0 nodad && ip addr add fd00:2::19/64 dev eth0 nodad",
    "ip addr add 10.9.9.9/32 dev lo && ip addr add fd99::9/128 dev lo nodad",
    "ip -6 tunnel change ip6tnl0 mode any",
];
const TUNNELS: &str = "for t in tunl0 sit0 ip6tnl0; do ip link set $t up; done";
const GUE: &str = "ip fou add port 6080 gue && ip -6 fou add port 6080 gue";

#[test]
fn a_stock_kernel_takes_every_form_apart() {
    let test = "the stock kernel's decapsulators";
    let Some(lab) = lab(test, 0, false) else {
        return;
    };
    let parts = match Parts::find(&helper()) {
        Ok(parts) => parts,
        Err(why) => return skip(test, &why.to_string()),
    };
    let mut guest = Guest::boot(&lab, &parts).unwrap();
    for line in BACKEND {
        guest.run(line).unwrap();
    }
    let early = knock(&lab, GUEST, Form::Ipip, Family::V4, Family::V4, 2);
    assert!(early.is_err(), "without a tunnel nobody answers");
    guest.run(TUNNELS).unwrap();
    let early = knock(&lab, GUEST, Form::Gue, Family::V4, Family::V4, 2);
    assert!(early.is_err(), "without a GUE port nobody answers");
    guest.run(GUE).unwrap();
    assert_eq!(refused(&lab, GUEST), Vec::<String>::new());
}
