//! The exception path: a TAP interface beside a port, by which the kernel gets what is not Weft's.
//!
//! Why it exists: a NIC that DPDK has taken is gone from the kernel, and with it BGP, SSH and neighbour discovery on
//! that wire. The TAP gives them an interface again, with the port's MAC address, so that to the outside there is
//! one station. Workers move frames between the two, unchanged; each has its own queue of the TAP.
//!
//! Checksums: the TAP device takes none of the kernel's offloads (DPDK 22.11 and later do not ask for them), so the
//! kernel computes every checksum and cuts segments itself before a frame reaches the worker.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;
use config::Config;
use dpdk::{Eal, Pool, Port, PortConfig, RxQueue, TxQueue};

/// mbufs that a queue of a TAP holds: its descriptors, which are the segments of one frame, are filled beforehand.
pub const MBUFS_A_QUEUE: u32 = DESCRIPTORS as u32;

/// Segments of the longest frame, and some to spare.
const DESCRIPTORS: u16 = 16;

/// What a frame may be longer than the MTU of a TAP: Ethernet header, VLAN tag, check sequence.
const FRAME_OVERHEAD: u16 = 14 + 4 + 4;

/// How long to wait for the interface of a data plane that was killed a moment ago to go.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's end of an exception path.
#[derive(Debug)]
pub struct End {
    /// Where the kernel's packets come from.
    pub receive: RxQueue,
    /// Where packets for the kernel go.
    pub transmit: TxQueue,
    /// The longest frame the TAP takes, in bytes.
    pub longest: usize,
}

/// A port's exception path.
#[derive(Debug)]
pub struct Exception {
    tap: Port,
}

/// The TAP devices that the configuration asks for, as DPDK is to make them.
///
/// # Errors
/// The handler of a signal cannot be set.
pub fn devices(config: &Config) -> anyhow::Result<Vec<String>> {
    let ports = config.dataplane.ports.iter().enumerate();
    let devices: Vec<String> = ports
        .filter_map(|(index, port)| {
            let interface = port.exception.as_deref()?;
            await_removal(interface);
            // A persistent TAP keeps its addresses over a restart: it is set down by nobody.
            let persist = if exists(interface) { ",persist" } else { "" };
            Some(format!("{},iface={interface}{persist}", name(index)))
        })
        .collect();
    if !devices.is_empty() {
        // The driver is told of packets by a real-time signal; when too many wait, the kernel sends SIGIO instead,
        // whose default is to end the process.
        signal_hook::flag::register(signal_hook::consts::SIGIO, Arc::new(AtomicBool::new(false)))
            .context("cannot catch SIGIO")?;
    }
    Ok(devices)
}

/// The name of the TAP device beside the port of that index.
fn name(index: usize) -> String {
    format!("net_tap_exception{index}")
}

fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

/// Whether the interface is a TAP that ends with its process.
fn is_passing(interface: &str) -> bool {
    // IFF_PERSIST of <linux/if_tun.h>.
    const PERSIST: u32 = 0x0800;
    let flags = std::fs::read_to_string(Path::new("/sys/class/net").join(interface).join("tun_flags"));
    let flags =
        flags.ok().and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
    flags.is_some_and(|flags| flags & PERSIST == 0)
}

/// Waits a little while a TAP is there that is not persistent: it goes with the process that made it.
fn await_removal(interface: &str) {
    const STEP: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while is_passing(interface) && waited < PATIENCE {
        sleep(STEP);
        waited += STEP;
    }
}

impl Exception {
    /// Starts the TAP beside a port, if one is configured: with the port's MAC address and MTU, and up.
    ///
    /// # Errors
    /// The device does not do it, in one sentence.
    pub fn start(
        eal: &Eal,
        pool: &Pool,
        index: usize,
        configured: &config::Port,
        port: &Port,
    ) -> anyhow::Result<Option<Self>> {
        let Some(interface) = &configured.exception else { return Ok(None) };
        let device = name(index);
        let queues = u16::try_from(eal.lcores().len()).unwrap_or(u16::MAX);
        let most = Port::limits(eal, &device)?.mtu;
        let mtu = port.mtu().min(most);
        if mtu < port.mtu() {
            log::warn!(
                "exception path {interface}: its driver carries packets of {most} bytes at most, the port {}: longer \
                 ones do not reach the kernel",
                port.mtu()
            );
        }
        let tap = Port::configure(
            eal,
            &device,
            pool,
            &PortConfig {
                rx_queues: queues,
                tx_queues: queues,
                rx_descriptors: DESCRIPTORS,
                tx_descriptors: DESCRIPTORS,
                mtu: Some(mtu),
                mac: Some(configured.mac.unwrap_or_else(|| port.mac())),
                promiscuous: false,
            },
        )?;
        log::info!("exception path of {}: {interface}, MTU {mtu}", port.name());
        Ok(Some(Self { tap }))
    }

    /// The workers' ends, once.
    pub fn take_ends(&mut self) -> Vec<End> {
        let longest = usize::from(self.tap.mtu() + FRAME_OVERHEAD);
        let queues = self.tap.take_queues().into_iter();
        queues.map(|(receive, transmit)| End { receive, transmit, longest }).collect()
    }
}
