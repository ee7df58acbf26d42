//! Generates the bindings, compiles `shim.c` and says what to link.
//!
//! Flags are taken raw from `pkg-config`: `-include rte_config.h` and `-march` are both needed, and the
//! pkg-config crate drops them. The lists of libraries come from there as well, so that another DPDK
//! version (23.11 split `rte_log` off) brings its own; only the choice of drivers is made here.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const MISSING: &str = "DPDK's headers were not found: apt-get install libdpdk-dev pkg-config libclang-dev";

/// Drivers of a static build: virtual devices for labs and tests, then the network cards and clouds an
/// operator meets, then what those drivers stand on. One that the installed DPDK lacks is left out.
const DRIVERS: &[&str] = &[
    "net_af_packet",
    "net_af_xdp",
    "net_memif",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_tap",
    "net_vhost",
    "net_virtio",
    "net_bnxt",
    "net_e1000",
    "net_ena",
    "net_i40e",
    "net_iavf",
    "net_ice",
    "net_igc",
    "net_ixgbe",
    "net_mlx5",
    "net_vmxnet3",
    "bus_auxiliary",
    "bus_pci",
    "bus_vdev",
    "common_iavf",
    "common_mlx5",
    "mempool_ring",
    "mempool_stack",
];

/// Drivers that call libraries of others. Without the library's development files the driver is left out.
const NEEDS: &[(&str, &[&str])] = &[
    ("net_af_xdp", &["xdp", "bpf"]),
    ("net_mlx5", &["mlx5", "ibverbs"]),
    ("common_mlx5", &["mlx5", "ibverbs"]),
    ("net_pcap", &["pcap"]),
];

/// DPDK's own libraries that a shared build calls itself; EAL loads the drivers.
const CALLED: &[&str] = &["ethdev", "mbuf", "mempool", "eal", "log"];

/// System libraries that the drivers above and DPDK's libraries call.
const SYSTEM: &[&str] = &[
    "numa", "fdt", "bsd", "crypto", "jansson", "elf", "z", "pcap", "mlx5", "ibverbs", "xdp", "bpf", "atomic",
    "rt", "dl", "pthread", "m",
];

/// Classes of DPDK driver: an archive whose name starts so is a driver, all others are libraries.
const DRIVER_CLASSES: &[&str] = &[
    "baseband_",
    "bus_",
    "common_",
    "compress_",
    "crypto_",
    "dma_",
    "event_",
    "gpu_",
    "mempool_",
    "ml_",
    "net_",
    "raw_",
    "regex_",
    "vdpa_",
    "power_",
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    for file in ["build.rs", "wrapper.h", "shim.c"] {
        println!("cargo:rerun-if-changed={file}");
    }
    for variable in ["PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "WEFT_DPDK_LINK"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let flags = pkg_config(&["--cflags"])?;
    generate(&flags, &out)?;
    compile(&flags)?;
    let shared = match env::var("WEFT_DPDK_LINK").as_deref() {
        Ok("shared") => true,
        Ok("static") => false,
        Ok(other) => return Err(format!("WEFT_DPDK_LINK is shared or static, not {other}").into()),
        Err(_) => env::var("PROFILE")? != "release",
    };
    if shared { link_shared() } else { link_static() }
}

/// The words that `pkg-config` prints for libdpdk.
fn pkg_config(arguments: &[&str]) -> Result<Vec<String>> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = Command::new(program).args(arguments).arg("libdpdk").output().map_err(|_| MISSING)?;
    if !output.status.success() {
        return Err(MISSING.into());
    }
    Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
}

fn generate(flags: &[String], out: &Path) -> Result<()> {
    let builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .derive_default(true)
        .use_core()
        .allowlist_function("weft_.*")
        .allowlist_function("rte_eal_(init|cleanup|get_runtime_dir|remote_launch|wait_lcore|get_lcore_state)")
        .allowlist_function(
            "rte_(get_main_lcore|get_tsc_hz|log_set_global_level|strerror|version|dev_probe|socket_count)",
        )
        .allowlist_function("rte_pktmbuf_(pool_create|free_bulk)")
        .allowlist_function("rte_mempool_(in_use_count|avail_count)")
        .allowlist_function("rte_eth_dev_(configure|start|stop|close|info_get|socket_id|get_port_by_name)")
        .allowlist_function("rte_eth_dev_(get_mtu|set_mtu|default_mac_addr_set|adjust_nb_rx_tx_desc)")
        .allowlist_function("rte_eth_(macaddr_get|allmulticast_enable|promiscuous_enable|promiscuous_disable|promiscuous_get)")
        .allowlist_function(
            "rte_eth_(rx|tx)_queue_setup|rte_eth_stats_(get|reset)",
        )
        .allowlist_var("WEFT_.*|RTE_MAX_ETHPORTS|RTE_MAX_LCORE")
        .allowlist_type("weft_mbuf_layout")
        .constified_enum("weft_mbuf_layout")
        .prepend_enum_name(false)
        // Only pointers to these are handled. An mbuf is read at the offsets of `weft_mbuf_layout`.
        .blocklist_type("rte_mbuf|rte_mempool|rte_device")
        .raw_line("#[repr(C)] pub struct rte_mbuf { _opaque: [u8; 0] }")
        .raw_line("#[repr(C)] pub struct rte_mempool { _opaque: [u8; 0] }")
        .raw_line("#[repr(C)] pub struct rte_device { _opaque: [u8; 0] }")
        .layout_tests(true);
    // bindgen panics when there is no libclang; the hook keeps that from hiding the one sentence that helps.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let generated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()));
    std::panic::set_hook(hook);
    let bindings = generated.map_err(|_| MISSING)??;
    bindings.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

fn compile(flags: &[String]) -> Result<()> {
    let mut shim = cc::Build::new();
    shim.file("shim.c").include(".").warnings(true).opt_level(3);
    for flag in flags {
        shim.flag(flag);
    }
    shim.try_compile("weft_dpdk_shim")?;
    Ok(())
}

fn link_shared() -> Result<()> {
    for word in pkg_config(&["--libs"])? {
        if let Some(path) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={path}");
        }
        if let Some(library) = word.strip_prefix("-lrte_").filter(|name| CALLED.contains(name)) {
            println!("cargo:rustc-link-lib=dylib=rte_{library}");
        }
    }
    println!("cargo:link=shared");
    Ok(())
}

fn link_static() -> Result<()> {
    let words = pkg_config(&["--static", "--libs"])?;
    let directory = library_directory()?;
    println!("cargo:rustc-link-search=native={}", directory.display());
    let system: Vec<&str> = words
        .iter()
        .filter_map(|word| word.strip_prefix("-l"))
        .filter(|name| SYSTEM.contains(name) && is_installed(&directory, name))
        .collect();
    let archives: Vec<&str> = words
        .iter()
        .filter_map(|word| word.strip_prefix("-l:librte_")?.strip_suffix(".a"))
        .filter(|name| directory.join(format!("librte_{name}.a")).exists())
        .collect();
    if archives.is_empty() {
        return Err(
            "DPDK's static libraries were not found (librte_*.a): install libdpdk-dev, or build with \
                    WEFT_DPDK_LINK=shared"
                .into(),
        );
    }
    let is_driver = |name: &str| DRIVER_CLASSES.iter().any(|class| name.starts_with(class));
    let can_link = |name: &str| {
        NEEDS
            .iter()
            .filter(|(driver, _)| *driver == name)
            .flat_map(|(_, libraries)| *libraries)
            .all(|library| system.contains(library))
    };
    // Drivers register themselves in constructors that nobody calls: all of each archive is linked. The
    // libraries' order is pkg-config's, dependents first. ethdev registers a device class the same way.
    for name in archives.iter().filter(|name| DRIVERS.contains(*name) && can_link(name)) {
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
    }
    for name in archives.iter().filter(|name| !is_driver(name)) {
        let whole = if *name == "ethdev" { "+whole-archive," } else { "" };
        println!("cargo:rustc-link-lib=static:{whole}-bundle=rte_{name}");
    }
    let mut named = Vec::new();
    for name in system {
        if !named.contains(&name) {
            named.push(name);
            println!("cargo:rustc-link-lib=dylib={name}");
        }
    }
    println!("cargo:link=static");
    Ok(())
}

/// The folder of DPDK's archives, which `pkg-config` leaves out of its flags when it is a standard one.
fn library_directory() -> Result<PathBuf> {
    let words = pkg_config(&["--variable=libdir"])?;
    words.first().map(PathBuf::from).ok_or_else(|| MISSING.into())
}

/// Whether the linker would find `-l{name}`: beside DPDK's own libraries, or where the C library keeps its.
fn is_installed(directory: &Path, name: &str) -> bool {
    const WITH_THE_C_LIBRARY: &[&str] = &["rt", "dl", "pthread", "m"];
    // The linker script of GCC's own libatomic is in a folder of the compiler, found by the compiler only.
    if name == "atomic" {
        return Command::new("cc")
            .arg("-print-file-name=libatomic.so")
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains('/'));
    }
    WITH_THE_C_LIBRARY.contains(&name)
        || directory.join(format!("lib{name}.so")).exists()
        || directory.join(format!("lib{name}.a")).exists()
}
