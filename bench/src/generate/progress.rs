//! How far a connection is when it sends a packet: what was sent and received before it on each subflow. A function of
//! the place in its script, so that nothing is kept from packet to packet.

use super::script::{Flavour, PATHS, PathIndex, Run, Step, Turn};
use super::size::Sizes;

/// Data of a client's first write.
pub(super) const REQUEST: u32 = 120;
/// Data of a server's answer, and of its greeting.
const REPLY: u64 = 300;

/// Place in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Open(usize),
    Run(u64),
    Close(usize),
}

/// What went before a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Sequence numbers behind ISN + 1, by subflow: sent and received.
    pub sent: [u64; PATHS],
    pub received: [u64; PATHS],
    /// Packets sent, by subflow.
    pub packets: [u64; PATHS],
    /// The same of the connection's data.
    pub data_sent: u64,
    pub data_received: u64,
}

impl Progress {
    /// How far it is at this place. `rounds` are all that the file has, `sizes` where it carries data.
    pub(super) fn at(flavour: Flavour, at: At, rounds: u64, sizes: Option<&Sizes>, phase: u64) -> Self {
        let script = flavour.script();
        let mut progress = Self::default();
        let (open, run, close): (&[_], u64, &[_]) = match at {
            At::Open(place) => (script.open.get(..place).unwrap_or_default(), 0, &[]),
            At::Run(round) => (script.open, script.run.data_before(round), &[]),
            At::Close(place) => {
                (script.open, script.run.data_before(rounds), script.close.get(..place).unwrap_or_default())
            }
        };
        for (path, step) in open {
            progress.before(*path, *step);
            progress.after(*path, *step);
        }
        if let (Run::Data | Run::DataAndErrors, Some(sizes)) = (script.run, sizes) {
            progress.run(run, script.paths, sizes, phase);
        }
        for (path, step) in close {
            progress.before(*path, *step);
            progress.after(*path, *step);
        }
        match at {
            At::Open(place) => progress.arrive(script.open.get(place)),
            At::Close(place) => progress.arrive(script.close.get(place)),
            At::Run(round) => {
                if let Turn::Data { path, .. } = script.turn(phase, round) {
                    progress.received[path] += REPLY;
                    progress.data_received += REPLY;
                }
            }
        }
        progress
    }

    /// So many rounds of data, on the subflows in turn.
    fn run(&mut self, rounds: u64, paths: u64, sizes: &Sizes, phase: u64) {
        for path in 0..paths {
            let first = (path + paths - phase % paths) % paths;
            let turns = (rounds + paths - 1 - first) / paths;
            let at = usize::from(path == 1);
            let sent = sizes.before(phase, first, paths, turns);
            self.sent[at] += sent;
            self.data_sent += sent;
            self.received[at] += turns * REPLY;
            self.packets[at] += turns;
        }
        self.data_received += rounds * REPLY;
    }

    fn arrive(&mut self, next: Option<&(PathIndex, Step)>) {
        if let Some((path, step)) = next {
            self.before(*path, *step);
        }
    }

    /// What the server did before the client's step.
    fn before(&mut self, path: PathIndex, step: Step) {
        match step {
            Step::Reply => {
                self.received[path] += REPLY;
                self.data_received += REPLY;
            }
            // The server's DATA_FIN answers the client's.
            Step::Fin if path == 0 => self.data_received += 1,
            // Its FIN answers the client's FIN.
            Step::LastAck => self.received[path] += 1,
            _ => {}
        }
    }

    /// What the step itself sent.
    fn after(&mut self, path: PathIndex, step: Step) {
        self.packets[path] += 1;
        match step {
            Step::Request | Step::MalformedData => {
                self.sent[path] += u64::from(REQUEST);
                self.data_sent += u64::from(REQUEST);
            }
            Step::Fin => self.sent[path] += 1,
            _ => {}
        }
    }
}
