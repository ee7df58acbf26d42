//! The file system that the guest boots from: one archive in memory, made of this machine's own programs and of the
//! kernel that `scripts/install` fetched.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result, process};

/// The modules a guest loads, with all they need.
const MODULES: [&str; 7] = ["virtio_pci", "virtio_net", "ipip", "sit", "ip6_tunnel", "fou", "fou6"];

/// What a guest is made of, where `scripts/install` put it.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The kernel.
    pub kernel: PathBuf,
    /// A statically linked busybox.
    busybox: PathBuf,
    /// The directory that holds `lib/modules`.
    root: PathBuf,
    /// The name of the directory in `lib/modules`.
    version: String,
}

impl Parts {
    /// Those in WEFT_GUEST_DIR, else in the directory `guest` beside the build of `helper`. The error says how to get
    /// them.
    pub fn find(helper: &Path) -> Result<Self> {
        let target = helper.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
        let root = std::env::var_os("WEFT_GUEST_DIR").map_or_else(|| target.join("guest"), PathBuf::from);
        let missing = || {
            Error::other(format!(
                "no kernel for a virtual machine in {}: scripts/install fetches one",
                root.display()
            ))
        };
        let modules = fs::read_dir(root.join("lib/modules")).map_err(|_| missing())?;
        let version = modules.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).max();
        let version = version.ok_or_else(missing)?;
        let kernel = root.join(format!("boot/vmlinuz-{version}"));
        let busybox = root.join("bin/busybox");
        if !kernel.is_file() || !busybox.is_file() {
            return Err(missing());
        }
        if !["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64"]
            .iter()
            .any(|path| Path::new(path).is_file())
        {
            return Err(Error::other("no qemu-system-x86_64 here: scripts/install installs it"));
        }
        Ok(Self { kernel, busybox, root, version })
    }
}

/// Makes the archive in `dir`.
pub fn build(dir: &Path, parts: &Parts, helper: &Path) -> Result<PathBuf> {
    let tree = dir.join("guest");
    let failed = |e| Error::io("cannot prepare the guest's files", e);
    for directory in ["bin", "proc", "sys", "dev", "run"] {
        fs::create_dir_all(tree.join(directory)).map_err(failed)?;
    }
    copy(&parts.busybox, &tree.join("bin/busybox"))?;
    add_program(&tree, &find_ip()?, "usr/sbin/ip")?;
    add_program(&tree, helper, "usr/bin/weft-lab")?;
    // Symbols for a debugger are most of it.
    let _ = process::run(Command::new("strip").arg(tree.join("usr/bin/weft-lab")));
    add_modules(&tree, parts)?;
    let init = tree.join("init");
    fs::write(&init, init_script()).map_err(failed)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    archive(&tree, &dir.join("guest.cpio"), &parts.busybox)
}

/// Loads the modules, then serves commands until its line is closed.
fn init_script() -> String {
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         # The shell prefers its own to any file.\n\
         ip() {{ /usr/sbin/ip \"$@\"; }}\n\
         export PATH=/usr/sbin:/usr/bin:/bin\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         status=ready\n\
         for module in {}; do modprobe $module || status=\"no $module\"; done\n\
         ip link set lo up\n\
         stty -F /dev/ttyS1 raw -echo\n\
         exec </dev/ttyS1 >/dev/ttyS1 2>&1\n\
         echo \"guest: $status\"\n\
         while read -r line; do eval \"$line\"; echo \"guest: $?\"; done\n\
         poweroff -f\n",
        MODULES.join(" ")
    )
}

fn find_ip() -> Result<PathBuf> {
    let places = ["/sbin/ip", "/usr/sbin/ip", "/bin/ip", "/usr/bin/ip"];
    let found = places.iter().find_map(|place| fs::canonicalize(place).ok());
    found.ok_or_else(|| Error::other("no `ip` on this machine"))
}

/// A program and every library it is linked to, at the paths they have here.
fn add_program(tree: &Path, program: &Path, place: &str) -> Result<()> {
    copy(program, &tree.join(place))?;
    let list = process::run(Command::new("ldd").arg(program))?;
    for path in list.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(path.as_ref(), &tree.join(path.trim_start_matches('/')))?;
    }
    Ok(())
}

/// The modules and what they depend on, by the list that `depmod` makes.
fn add_modules(tree: &Path, parts: &Parts) -> Result<()> {
    let below = Path::new("lib/modules").join(&parts.version);
    let list = parts.root.join(&below).join("modules.dep");
    let list =
        fs::read_to_string(&list).map_err(|e| Error::io(format!("cannot read {}", list.display()), e))?;
    for module in MODULES {
        let is_it = |line: &&str| {
            let file = line.split(':').next().unwrap_or_default();
            let name = file.rsplit('/').next().unwrap_or_default();
            name.split('.').next() == Some(module)
        };
        // What a kernel has built in stands in no list.
        for file in list.lines().find(is_it).unwrap_or_default().split([':', ' ']).filter(|f| !f.is_empty()) {
            copy(&parts.root.join(&below).join(file), &tree.join(&below).join(file))?;
        }
    }
    process::run(Command::new(&parts.busybox).args(["depmod", "-b"]).arg(tree).arg(&parts.version))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot copy {} for the guest", from.display()), e);
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    fs::copy(from, to).map_err(failed)?;
    Ok(())
}

fn archive(tree: &Path, file: &Path, busybox: &Path) -> Result<PathBuf> {
    let failed = |e| Error::io("cannot pack the guest's files", e);
    let names = process::run(Command::new("find").arg(".").current_dir(tree))?;
    let output = fs::File::create(file).map_err(failed)?;
    let mut cpio = Command::new(busybox);
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(tree);
    let mut child =
        cpio.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(names.as_bytes()).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(file.to_owned()) } else { Err(Error::other(format!("cpio: {status}"))) }
}
