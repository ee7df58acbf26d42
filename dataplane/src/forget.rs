//! `weft-dataplane forget`: removes the tables that a data plane left, so that the next one starts empty.

use std::path::Path;

use ipc::liveness::{Lock, Role};

/// Removes them and says what they were.
///
/// # Errors
/// A data plane runs, or a file cannot be removed.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let config = crate::load(path)?;
    let dir = &config.dataplane.runtime_dir;
    let lock = Lock::acquire(dir, Role::DataPlane)?;
    let forgotten = ipc::mapping::forget(&lock)?;
    for (file, bytes) in &forgotten {
        println!(
            "removed {} ({} MiB): the next start begins with empty tables",
            file.display(),
            bytes.div_ceil(1 << 20)
        );
    }
    if forgotten.is_empty() {
        println!("nothing to forget: no data plane left tables for {}", dir.display());
    }
    Ok(())
}
