//! What a token, or a timestamp, says about the backend it belongs to: arithmetic that balancers and servers share.
//!
//! Why it exists: three proposals let a join find its server without a table, because the token was made so that it
//! says where it belongs. Whoever makes such a token (a server, the simulator, the balancer itself) and whoever reads it
//! must agree to the bit, so both sides stand here, side by side.
//! - [`ranges`]: the token space is split among the backends of a pool (Olteanu and Raiciu);
//! - [`cipher`]: a token is a backend's number, encrypted (Paasch, Greenway and Ford);
//! - [`key`]: the balancer chooses the server's key so that its token lies in the right range, and later packets carry
//!   the backend's number in the timestamps they echo (Olteanu and Raiciu, solution 1).
//!
//! **Invariants.** Nothing here has state, and nothing but the making of a [`ranges::Ranges`] or a [`Numbers`]
//! allocates; no input makes anything panic. Appliances that were told the same answer the same, whatever they were
//! told before.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod cipher;
pub mod key;
mod numbers;
pub mod ranges;

pub use numbers::Numbers;
