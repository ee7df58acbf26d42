//! Safe DPDK: `Eal`, `Pool`, `Burst`, `Port`, `RxQueue`, `TxQueue`.
//!
//! Why it exists: DPDK's C interface lets one free a packet twice, poll a queue from two threads and
//! configure a port under a running worker. Here none of the three can be written. This is the only crate that names
//! `dpdk_sys`, and no raw pointer or generated type is part of its interface.
//!
//! - **Ownership of packets is in the types.** A [`Burst`] owns its mbufs and frees, in bulk, what is left in
//!   it when it is cleared or dropped. Bytes are borrowed from it. [`TxQueue::transmit`] takes the chosen ones
//!   out: sent, or refused and freed. There is no free-standing packet that has a destructor.
//! - **A queue belongs to one worker.** `RxQueue` and `TxQueue` are `Send`, not `Sync`, and poll by `&mut self`.
//! - **Nothing outlives what it stands on.** Queues hold their port, ports hold their pool, all hold
//!   EAL, by reference counts that only start and stop touch. The port stops when its last queue is gone.
//! - **One FFI call for a burst, none for a packet.** Lengths and data are read from mbufs in Rust.
//!
//! Example: one worker that sends back what it receives.
//!
//! ```no_run
//! use dpdk::{Burst, Eal, EalConfig, Pool, PoolConfig, Port, PortConfig};
//!
//! # fn main() -> Result<(), dpdk::Error> {
//! let devices = ["net_null0".to_owned()];
//! let eal = Eal::init(&EalConfig { devices: &devices, ..EalConfig::new("example") })?;
//! let pool = Pool::new(&eal, "packets", &PoolConfig::default())?;
//! let mut port = Port::configure(&eal, "net_null0", &pool, &PortConfig::default())?;
//! let jobs: Vec<_> = port
//!     .take_queues()
//!     .into_iter()
//!     .map(|(mut rx, mut tx)| {
//!         let mut burst = Burst::new(&eal);
//!         move || {
//!             for _ in 0..1000 {
//!                 rx.receive(&mut burst);
//!                 let all = burst.held();
//!                 tx.transmit(&mut burst, all);
//!             }
//!         }
//!     })
//!     .collect();
//! eal.run(jobs)?;
//! # Ok(())
//! # }
//! ```

mod burst;
mod cycles;
mod device;
mod eal;
mod error;
mod lcore;
mod mbuf;
mod pool;
mod port;
mod queue;
mod setup;

pub use burst::{BURST, Burst};
pub use cycles::cycles;
pub use eal::{Eal, EalConfig, LogLevel};
pub use error::Error;
pub use lcore::Affinity;
pub use pool::{HEADROOM, Pool, PoolConfig};
pub use port::{Limits, Link, Port, PortConfig, Stats};
pub use queue::{RxQueue, Transmitted, TxQueue};
