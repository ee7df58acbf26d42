//! A port that receives exactly what a test sends: `net_pcap` reading a pipe.
//!
//! `net_pcap` reads its file as soon as a worker polls, long before a control plane can have committed anything, and
//! `infinite_rx` would send a capture any number of times. A worker that waits for a packet adopts no snapshot, so while
//! something is committed the pipe gives frames to another MAC address.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
// A flag and a count between the threads of a test; loom has nothing to explore in them.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Instant;

use super::packets::{filler, to_pcap};
use super::{LOOK, PATIENCE, Place};

/// The test's end of the port.
pub struct Wire {
    folder: PathBuf,
    input: PathBuf,
    pipe: File,
    fillers: AtomicU64,
}

/// Sets a flag at the end, also by panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Wire {
    /// A pipe in the test's folder.
    pub fn new(place: &Place) -> Self {
        let input = place.path("in.pcap");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &input, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // For reading, too: opening waits for nobody, and the pipe never breaks.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let pipe = File::options().read(true).write(true).custom_flags(nonblocking).open(&input).unwrap();
        (&pipe).write_all(&to_pcap(&[])).unwrap();
        let folder = input.parent().unwrap().to_owned();
        Self { folder, input, pipe, fillers: AtomicU64::new(0) }
    }

    /// The device, for one data plane; what it sends goes to a file of the test's folder.
    pub fn device(&self, output: &str) -> String {
        let output = self.folder.join(output);
        format!("net_pcap0,rx_pcap={},tx_pcap={}", self.input.display(), output.display())
    }

    /// Another data plane begins to read: what the one before left unread is gone, and a new capture begins.
    pub fn begin_again(&mut self) {
        let mut rest = [0; 4096];
        while self.pipe.read(&mut rest).is_ok_and(|count| count > 0) {}
        self.pipe.write_all(&to_pcap(&[])).unwrap();
        self.fillers.store(0, Ordering::Relaxed);
    }

    /// Sends frames, once.
    pub fn send(&self, frames: &[Vec<u8>]) {
        self.pump(&records(frames));
    }

    /// Does something that waits for the worker, which gets fillers meanwhile.
    pub fn fill_while<T>(&self, act: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let burst = records(&vec![filler(); 32]);
                while !done.load(Ordering::Relaxed) {
                    self.pump(&burst);
                    self.fillers.fetch_add(32, Ordering::Relaxed);
                    sleep(LOOK);
                }
            });
            let _end = SetAtEnd(&done);
            act()
        })
    }

    /// How many fillers were sent to the data plane that reads now.
    pub fn fillers(&self) -> u64 {
        self.fillers.load(Ordering::Relaxed)
    }

    /// The end of the file.
    pub fn end(self) {}

    /// Writes to the pipe, which may be full while the worker is not there yet.
    fn pump(&self, mut bytes: &[u8]) {
        let since = Instant::now();
        while !bytes.is_empty() {
            match (&self.pipe).write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => sleep(LOOK),
                Err(error) => panic!("{error}"),
            }
            assert!(since.elapsed() < PATIENCE, "nobody reads the pipe");
        }
    }
}

/// A capture's records without its head.
fn records(frames: &[Vec<u8>]) -> Vec<u8> {
    to_pcap(frames)[24..].to_vec()
}
