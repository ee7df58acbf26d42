//! What the engine decided about one packet.

use ipc::id::{BackendId, PortId, VipId};
use ipc::reason::Reason;
use packet::Token;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To a backend; the frame is rewritten and leaves by [`Verdict::port`].
    Forward,
    /// Answered by Weft; the frame now holds the answer and leaves by the port it came from.
    Local,
    /// For the kernel, which has the frame already or gets it through the port's exception path. The reason says why
    /// it was not Weft's.
    Punt,
    /// Dropped; the reason says why.
    Drop,
}

impl Action {
    /// The name `replay` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Forward => "forward",
            Action::Local => "local",
            Action::Punt => "punt",
            Action::Drop => "drop",
        }
    }

    /// Whether the frame leaves by a port.
    pub const fn is_sent(self) -> bool {
        matches!(self, Action::Forward | Action::Local)
    }
}

/// The decision about one packet, with all that `replay` prints of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of the packet.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The VIP it was addressed to, if any.
    pub vip: Option<VipId>,
    /// The backend it goes to, if any.
    pub backend: Option<BackendId>,
    /// The token the packet carries (MP_JOIN) or teaches (the server's key), if any.
    pub token: Option<Token>,
    /// Whether this packet taught the token: joins follow it from now on. A second claim, which makes a token ambiguous
    /// or is refused, teaches nothing.
    pub learned: bool,
    /// The port it leaves by; where [`Action::is_sent`] is false, the port it came from.
    pub port: PortId,
}

impl Verdict {
    /// A packet that is dropped before anything is known of it.
    pub const fn drop(reason: Reason, port: PortId) -> Self {
        Self { action: Action::Drop, reason, vip: None, backend: None, token: None, learned: false, port }
    }
}
