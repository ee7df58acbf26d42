//! Signals that ask the lab to stop. They only set a flag; every wait of the lab looks at it, so that the
//! ordinary way out, which removes namespaces and processes, is the only one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{Error, Result};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

fn flag() -> &'static Arc<AtomicBool> {
    FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)))
}

/// From now on SIGINT, SIGTERM and SIGHUP set the flag instead of ending the process.
pub fn catch() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag()))
            .map_err(|e| Error::io("cannot catch signals", e))?;
    }
    Ok(())
}

/// An error once a signal has arrived.
pub fn check() -> Result<()> {
    if flag().load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Asks `done` every `pause` until it answers, a signal arrives or `limit` has passed (then `None`).
pub fn poll<T>(
    limit: Duration,
    pause: Duration,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let start = Instant::now();
    loop {
        check()?;
        if let Some(answer) = done()? {
            return Ok(Some(answer));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(pause);
    }
}
