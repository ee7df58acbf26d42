//! `Error`: what can go wrong at start, in sentences that say what to do about it.
//!
//! C's numbers are translated here and nowhere else; nothing on the packet path returns an `Error`.

use std::ffi::CStr;

use dpdk_sys as sys;

/// What can go wrong at start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name or argument that DPDK cannot take.
    #[error("{0:?} cannot be given to DPDK: a name must not be empty nor hold spaces or control characters")]
    BadName(String),
    /// The list of lcores does not name usable CPUs.
    #[error("lcores: {0}")]
    Lcores(String),
    /// Opening devices needs rights that this user lacks.
    #[error("DPDK needs root to {doing}: run as root, for example with sudo")]
    NotRoot {
        /// What was to be done.
        doing: &'static str,
    },
    /// Fewer huge pages are free than asked for.
    #[error(
        "{wanted_mb} MB of huge pages are needed and {free_mb} MB are free: run \
         `echo {pages} > /proc/sys/vm/nr_hugepages`, or set huge_pages = false (slower)"
    )]
    NoHugePages {
        /// Memory asked for.
        wanted_mb: u64,
        /// Memory in free huge pages.
        free_mb: u64,
        /// How many 2 MB pages the machine should have in all.
        pages: u64,
    },
    /// Another process has the same file prefix.
    #[error("another DPDK process uses the file prefix {0:?}: stop it, or give this one another prefix")]
    PrefixInUse(String),
    /// EAL runs, or has failed, in this process.
    #[error("DPDK can be started once in a process, and this one has started it: start a new process")]
    AlreadyStarted,
    /// EAL did not start, for a reason that has no sentence of its own.
    #[error("DPDK did not start ({reason}){said}")]
    Eal {
        /// DPDK's errno in words.
        reason: String,
        /// The last lines of DPDK's log, or nothing.
        said: String,
    },
    /// No such PCI device.
    #[error("there is no PCI device {0}: `lspci -D` lists those there are")]
    NoSuchPci(String),
    /// The kernel holds the PCI device.
    #[error(
        "{device} belongs to the kernel driver {driver}: give it to DPDK with \
         `modprobe vfio-pci; dpdk-devbind.py --bind=vfio-pci {device}` (this takes it from the kernel's network)"
    )]
    BoundToKernel {
        /// The PCI address.
        device: String,
        /// The kernel's driver.
        driver: String,
    },
    /// No driver at all is bound to the PCI device.
    #[error("{0} is bound to no driver: run `modprobe vfio-pci; dpdk-devbind.py --bind=vfio-pci {0}`")]
    Unbound(String),
    /// The device's interface is not there.
    #[error("{device}: there is no network interface {interface} here: `ip link` lists those there are")]
    NoSuchInterface {
        /// The device's name.
        device: String,
        /// The interface it names.
        interface: String,
    },
    /// The name of a TAP device's interface is another's.
    #[error(
        "{device}: there is a network interface {interface} already: give it another name, or remove the one there is \
         with `ip link del {interface}`"
    )]
    InterfaceTaken {
        /// The device's name.
        device: String,
        /// The interface it would make.
        interface: String,
    },
    /// A name that no interface can have.
    #[error("{device}: {interface:?} is too long for a network interface's name: use 15 characters at most")]
    InterfaceName {
        /// The device's name.
        device: String,
        /// The interface it would make.
        interface: String,
    },
    /// The kernel has no TAP devices.
    #[error(
        "{0} needs /dev/net/tun: run `modprobe tun`, or in a container give it the device (`--device /dev/net/tun`)"
    )]
    NoTun(String),
    /// DPDK has no driver for the device, or the driver refused it.
    #[error("DPDK did not open the device {device} ({reason}){said}: check its name and its arguments")]
    DeviceRejected {
        /// The device as it was given.
        device: String,
        /// The cause in words.
        reason: String,
        /// The last lines of DPDK's log, or nothing.
        said: String,
    },
    /// The device was not given to EAL.
    #[error("there is no port of the name {0:?}: name it among the devices that EAL is started with")]
    NoSuchPort(String),
    /// Two ports over one device.
    #[error("the device {0} is configured already: one port for each device")]
    PortInUse(String),
    /// The device has fewer queues than workers.
    #[error(
        "{device} ({driver}) has {has} {direction} queues and {wanted} are needed, one for each worker: {hint}"
    )]
    TooFewQueues {
        /// The device's name.
        device: String,
        /// Its driver.
        driver: String,
        /// `receive` or `transmit`.
        direction: &'static str,
        /// How many there are.
        has: u16,
        /// How many are needed.
        wanted: u16,
        /// What to change.
        hint: String,
    },
    /// The device does not do this MTU.
    #[error("{device} ({driver}) cannot have an MTU of {mtu}: {hint}")]
    Mtu {
        /// The device's name.
        device: String,
        /// Its driver.
        driver: String,
        /// The MTU asked for.
        mtu: u16,
        /// What to change.
        hint: String,
    },
    /// A step of the configuration of a port failed.
    #[error("{device} ({driver}) did not {step}: {reason}{said}")]
    Port {
        /// The device's name.
        device: String,
        /// Its driver.
        driver: String,
        /// What was to be done.
        step: &'static str,
        /// The cause in words.
        reason: String,
        /// The last lines of DPDK's log, or nothing.
        said: String,
    },
    /// No memory for a pool, or its name is taken.
    #[error(
        "no pool {name:?} of {mbufs} packets could be made ({reason}): it needs about {megabytes} MB of DPDK's \
         memory, so raise memory_mb or make the pool smaller"
    )]
    Pool {
        /// The pool's name.
        name: String,
        /// How many packets were asked for.
        mbufs: u32,
        /// What they take.
        megabytes: u64,
        /// The cause in words.
        reason: String,
    },
    /// A frame room that leaves no place for the headroom.
    #[error("a frame room of {0} bytes is too large: an mbuf holds 65535 bytes, its headroom included")]
    FrameRoom(u16),
    /// A pool of another EAL.
    #[error("the pool was made for another EAL")]
    ForeignPool,
    /// Jobs that cannot be started on the lcores.
    #[error("jobs cannot be started: {0}")]
    Launch(&'static str),
    /// A thread's CPU affinity could not be read or set.
    #[error("the CPU affinity of a thread cannot be changed ({0}): is it limited by a container or cgroup?")]
    Affinity(String),
}

impl Error {
    /// A step that a device refused.
    pub(crate) fn of_step(device: &str, driver: &str, step: &'static str, errno: i32) -> Self {
        let (device, driver) = (device.to_owned(), driver.to_owned());
        Self::Port { device, driver, step, reason: reason(errno), said: String::new() }
    }

    /// The same, with the last lines of DPDK's log.
    pub(crate) fn saying(mut self, log: &str) -> Self {
        if let Self::Port { said, .. } = &mut self {
            *said = last_lines(log);
        }
        self
    }
}

/// The last lines of DPDK's log, as part of a sentence.
pub(crate) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.get(lines.len().saturating_sub(3)..) {
        Some(last) if !last.is_empty() => format!("; DPDK says: {}", last.join("; ")),
        _ => String::new(),
    }
}

/// An errno in words, whatever its sign.
pub(crate) fn reason(errno: i32) -> String {
    // SAFETY: rte_strerror takes any number and gives a C string: a constant or a buffer of this thread.
    let text = unsafe { sys::rte_strerror(errno.saturating_abs()) };
    if text.is_null() {
        return format!("error {errno}");
    }
    // SAFETY: not null, ends in a zero, and this thread makes no other call before it is copied.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_repeated() {
        assert_eq!(last_lines("a\nb\n\nc\nd\n"), "; DPDK says: b; c; d");
        assert_eq!(last_lines(""), "");
    }
}
