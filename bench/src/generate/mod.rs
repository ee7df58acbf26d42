//! Traffic as MPTCP clients make it, in capture files or in memory: `weft-bench gen`.
//!
//! - **A packet is a function of the plan and its place.** Addresses, keys, sequence numbers and sizes come from the seed
//!   and the connection's number ([`connection`], [`random`]); nothing is kept per connection, so a file of ten million
//!   flows takes no more memory than one of ten, and the same plan gives the same bytes.
//! - **It looks like Linux.** Options stand in its order, with its sizes and padding; keys, tokens, HMACs, data sequence
//!   numbers and checksums are right. Only what the client sends is there: that is all a balancer sees.
//! - **A script a kind of connection** ([`script`]): what opens it, what it does as long as it is asked to, what closes
//!   it. The warm part of a profile is all openings, the steady part is what follows, over all flows in random order.
//!
//! ```
//! use weft_bench::generate::{Plan, Profile, Stream};
//!
//! let mut stream = Stream::new(Plan::new(Profile::Join, 10))?;
//! let mut bytes = 0;
//! while let Some(packet) = stream.next() {
//!     bytes += packet.bytes.len();
//! }
//! assert!(bytes > 0);
//! # Ok::<(), anyhow::Error>(())
//! ```

mod collide;
pub mod command;
mod connection;
mod frame;
mod hmac;
mod kind;
mod malformed;
mod option;
mod output;
mod payload;
mod plan;
mod profile;
mod progress;
pub(crate) mod random;
mod script;
mod segment;
mod size;
mod stream;

pub use self::frame::Link;
pub use self::kind::{Counts, Kind};
pub use self::malformed::{CASES, Case};
pub use self::output::{Summary, write};
pub use self::plan::{Families, Part, Plan, Versions, Vip};
pub use self::profile::Profile;
pub use self::size::FrameSize;
pub use self::stream::{Packet, Stream};

/// Longest frame, without frame check sequence: a jumbo frame.
pub const MAX_FRAME: usize = 9018;
