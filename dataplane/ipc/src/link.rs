//! The link: what both ends of the segment agree on. [`crate::data_link`] and [`crate::control_link`] are the
//! ends.
//!
//! Why it exists: either process may be killed at any instant, come back at another version, or be corrupt,
//! and packets must not notice. So the rules are few, and the data plane owns every reset.
//!
//! Life of a link, as the data plane sees it:
//!
//! | state    | becomes  | when                                                                             |
//! |----------|----------|----------------------------------------------------------------------------------|
//! | detached | attached | `attach_request` is neither 0 nor the last grant: fresh rings, then the grant     |
//! | attached | attached | the same again: a peer that was restarted, or gave up waiting; a batch under way is abandoned |
//! | attached | detached | the peer's lock is free: it died or left; a batch under way is abandoned           |
//! | attached | closed   | the peer did what an honest one cannot ([`Violation`]); counted; nothing more is read |
//! | closed   | attached | a new request, as above                                                           |
//! | closed   | detached | the peer's lock is free                                                           |
//!
//! The control plane writes a request only while it holds the lock of its role, so requests never race. It
//! uses the rings only after the grant equals its request. After any error or missed deadline it throws its
//! end away and attaches anew: what became of a batch whose answer was missed is seen in the next dump.
//!
//! Orderings, by name: `REQUEST` (Release by the control plane, Acquire by the data plane) and `GRANT` (Release
//! by the data plane, Acquire by the control plane): the reset cursors are visible before the grant.

use crate::layout::SLOT_WORDS;
use crate::message::SLOT;
use crate::names;

names! {
    /// What an honest peer cannot do. It closes the link.
    pub enum Violation {
        /// A ring cursor that is impossible.
        BadCursor = "bad_cursor",
        /// A slot that holds no message.
        BadMessage = "bad_message",
        /// A message where it makes no sense.
        OutOfOrder = "out_of_order",
        /// More events wait than one request can cause, because the peer does not take them.
        NotReading = "not_reading",
    }
}

impl From<crate::ring::BadCursor> for Violation {
    fn from(_: crate::ring::BadCursor) -> Violation {
        Violation::BadCursor
    }
}

impl From<crate::message::BadMessage> for Violation {
    fn from(_: crate::message::BadMessage) -> Violation {
        Violation::BadMessage
    }
}

/// A slot's bytes as the words a ring carries.
pub(crate) fn to_words(slot: &[u8; SLOT]) -> [u64; SLOT_WORDS] {
    let mut words = [0; SLOT_WORDS];
    for (word, bytes) in words.iter_mut().zip(slot.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// The words a ring carried as a slot's bytes.
pub(crate) fn from_words(words: &[u64; SLOT_WORDS]) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    for (bytes, word) in slot.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    slot
}
