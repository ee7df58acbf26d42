//! Devices by name, and why one cannot be opened.
//!
//! Why it exists: DPDK answers "no such device" to nearly every mistake. The kernel knows better: whether the PCI
//! address exists, who holds it, whether the interface is there. What is said here is read from its files.

use std::fs;
use std::path::Path;

use crate::error::{Error, reason};

/// Kernel drivers that leave a device to DPDK: two that hand it over whole, and those that share it.
const HANDED_OVER: &[&str] =
    &["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core", "hv_netvsc"];

/// IFNAMSIZ less its zero.
const LONGEST_INTERFACE: usize = 15;

/// A device as an operator writes it: a PCI address or a virtual device, with arguments after a comma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The name DPDK gives the port.
    pub(crate) name: String,
    /// The name with its arguments, as DPDK wants it.
    pub(crate) spec: String,
    /// Whether it is a PCI address.
    pub(crate) pci: bool,
}

impl Device {
    /// Reads a device. A PCI address may leave its domain out.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (name, arguments) = text.split_once(',').map_or((text, ""), |(name, rest)| (name, rest));
        if name.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::BadName(text.to_owned()));
        }
        let address = pci_address(name);
        let pci = address.is_some();
        let name = address.unwrap_or_else(|| name.to_owned());
        let spec = if arguments.is_empty() { name.clone() } else { format!("{name},{arguments}") };
        Ok(Self { name, spec, pci })
    }

    /// The value of one of its arguments, such as `iface` or `qpairs`.
    pub(crate) fn argument(&self, key: &str) -> Option<&str> {
        self.spec
            .split(',')
            .skip(1)
            .find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key))
            .map(|(_, v)| v)
    }

    /// The kernel's interface that the device stands on, if it is of that kind.
    pub(crate) fn interface(&self) -> Option<&str> {
        let kind =
            ["net_af_packet", "eth_af_packet", "net_af_xdp"].iter().any(|kind| self.name.starts_with(kind));
        self.argument("iface").filter(|_| kind)
    }

    /// Checks what a TAP device needs before DPDK is asked: it would join another process's interface without a word.
    pub(crate) fn check_tap(&self) -> Result<(), Error> {
        if !self.name.starts_with("net_tap") {
            return Ok(());
        }
        let device = self.name.clone();
        if let Some(interface) = self.argument("iface").map(str::to_owned) {
            if interface.len() > LONGEST_INTERFACE {
                return Err(Error::InterfaceName { device, interface });
            }
            if interface_exists(&interface) && !(self.has("persist") && is_free_tap(&interface)) {
                return Err(Error::InterfaceTaken { device, interface });
            }
        }
        if Path::new("/dev/net/tun").exists() { Ok(()) } else { Err(Error::NoTun(device)) }
    }

    /// Whether it was given an argument without a value.
    fn has(&self, key: &str) -> bool {
        self.spec.split(',').skip(1).any(|argument| argument == key)
    }

    /// Why the device was not opened. `errno` and `said` are DPDK's own account.
    pub(crate) fn refusal(&self, errno: i32, said: String) -> Error {
        if self.pci {
            let folder = Path::new("/sys/bus/pci/devices").join(&self.name);
            if !folder.exists() {
                return Error::NoSuchPci(self.name.clone());
            }
            let driver = fs::read_link(folder.join("driver")).ok();
            match driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
                None => return Error::Unbound(self.name.clone()),
                Some(driver) if !HANDED_OVER.contains(&driver) => {
                    return Error::BoundToKernel { device: self.name.clone(), driver: driver.to_owned() };
                }
                Some(_) => {}
            }
        }
        if let Some(interface) = self.interface().filter(|interface| !interface_exists(interface)) {
            return Error::NoSuchInterface { device: self.name.clone(), interface: interface.to_owned() };
        }
        if !is_root() {
            return Error::NotRoot { doing: "open a device" };
        }
        Error::DeviceRejected { device: self.spec.clone(), reason: reason(errno), said }
    }

    /// What to write so that the device has `queues` queues.
    pub(crate) fn queues_hint(&self, driver: &str, queues: u16) -> String {
        let name = &self.name;
        match driver {
            "net_af_packet" => format!("write {name},...,qpairs={queues}, or use fewer workers"),
            "net_af_xdp" => {
                let interface = self.interface().unwrap_or("the interface");
                format!(
                    "write {name},...,queue_count={queues} after `ethtool -L {interface} combined {queues}`, or use \
                     fewer workers"
                )
            }
            "net_vhost" | "net_virtio_user" => {
                format!("write {name},...,queues={queues} on both sides, or use fewer workers")
            }
            "net_pcap" => {
                format!("write one rx_pcap= or rx_iface= for each queue ({queues}), or use fewer workers")
            }
            _ => "use fewer workers".to_owned(),
        }
    }
}

/// A PCI address with its domain, lower case; `None` when the text is not one.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (slot, function) = text.split_once('.')?;
    let mut parts: Vec<&str> = slot.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0000");
    }
    let [domain, bus, device] = parts[..] else {
        return None;
    };
    let valid = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1) && function < "8";
    valid.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

/// Whether this thread's network namespace has that interface.
fn interface_exists(interface: &str) -> bool {
    let list = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    list.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() == interface)
}

/// Whether a kernel interface carries frames; `None` when /sys shows another namespace.
pub(crate) fn interface_is_up(interface: &str) -> Option<bool> {
    if !interface_exists(interface) {
        return Some(false);
    }
    let folder = Path::new("/sys/class/net").join(interface);
    if !folder.exists() {
        return None;
    }
    // The kernel does not give the carrier of an interface that is set down.
    Some(fs::read_to_string(folder.join("carrier")).is_ok_and(|carrier| carrier.trim() == "1"))
}

/// Whether a kernel interface is a persistent TAP of several queues that no process has.
fn is_free_tap(interface: &str) -> bool {
    // IFF_TAP, IFF_MULTI_QUEUE and IFF_PERSIST of <linux/if_tun.h>.
    const FLAGS: u32 = 0x0002 | 0x0100 | 0x0800;
    let flags = fs::read_to_string(Path::new("/sys/class/net").join(interface).join("tun_flags"));
    let flags =
        flags.ok().and_then(|flags| u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok());
    flags.is_some_and(|flags| flags & FLAGS == FLAGS) && interface_is_up(interface) == Some(false)
}

/// The MTU of a kernel interface; `None` when there is no such interface, or /sys shows another namespace.
pub(crate) fn interface_mtu(interface: &str) -> Option<u16> {
    if !interface_exists(interface) {
        return None;
    }
    let text = fs::read_to_string(Path::new("/sys/class/net").join(interface).join("mtu")).ok()?;
    // That of lo is 65536.
    let mtu: u32 = text.trim().parse().ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Whether this process may do as it likes.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_may_leave_its_domain_out() {
        for text in ["0000:3B:00.1", "3b:00.1", "3b:00.1,scalar_enable=1"] {
            let device = Device::parse(text).unwrap();
            assert!(device.pci, "{text}");
            assert_eq!(device.name, "0000:3b:00.1");
        }
        assert_eq!(Device::parse("3b:00.1,a=1").unwrap().spec, "0000:3b:00.1,a=1");
    }

    #[test]
    fn a_virtual_device_is_named_by_what_precedes_the_comma() {
        let device = Device::parse("net_af_packet0,iface=lb0,qpairs=2").unwrap();
        assert!(!device.pci);
        assert_eq!(device.name, "net_af_packet0");
        assert_eq!(device.interface(), Some("lb0"));
        assert_eq!(device.argument("qpairs"), Some("2"));
        assert_eq!(device.argument("queues"), None);
    }

    #[test]
    fn what_looks_like_an_address_and_is_none_is_a_virtual_device() {
        for text in ["0000:3b:00.8", "zz:00.1", "net_null0.1", "1:2:3:4.5"] {
            assert!(!Device::parse(text).unwrap().pci, "{text}");
        }
    }

    #[test]
    fn a_device_with_a_space_or_without_a_name_is_refused() {
        for text in ["", ",iface=x", "net_null0, copy=1", "net\nnull"] {
            assert_eq!(Device::parse(text), Err(Error::BadName(text.to_owned())));
        }
    }

    #[test]
    fn a_pci_address_that_is_not_there_is_said_to_be_so() {
        let error = Device::parse("ffff:ff:1f.7").unwrap().refusal(19, String::new());
        assert_eq!(
            error.to_string(),
            "there is no PCI device ffff:ff:1f.7: `lspci -D` lists those there are"
        );
    }

    #[test]
    fn an_interface_with_an_mtu_beyond_16_bits_is_there() {
        assert_eq!(interface_mtu("lo"), Some(u16::MAX));
        let error = Device::parse("net_af_packet0,iface=lo").unwrap().refusal(22, String::new());
        assert!(!error.to_string().contains("no network interface"), "{error}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_to_be_so() {
        let error = Device::parse("net_af_packet0,iface=nosuch0").unwrap().refusal(22, String::new());
        assert!(error.to_string().contains("there is no network interface nosuch0 here"), "{error}");
    }
}
