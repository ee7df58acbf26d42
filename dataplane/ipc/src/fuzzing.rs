//! What the fuzz targets and the tests that replay their corpora both call. Not part of the interface.
//!
//! `hostile_peer` reads its input as a program of [`STEP`]-byte steps over one segment with both ends on it:
//! some steps are honest, some scribble over the memory, as a corrupt or hostile peer of either end would.
//! What must hold: nothing panics, no step loops, and whatever an end accepts is a message that an honest peer
//! could have sent.

use crate::control_link::ControlEnd;
use crate::data_link::{DataEnd, Request};
use crate::id::BackendId;
use crate::layout::{ATTACH_GRANT, ATTACH_REQUEST, CLOSED, COMMANDS, EVENTS, SEGMENT_LINES, SLOT_WORDS};
use crate::lines::{Lines, WORDS};
use crate::message::{Command, Event, MAX_BATCH, SLOT};
use crate::report::Report;
use crate::sync::Ordering;

/// Bytes of a step: what to do, a small argument, two bytes unused, an index, a value.
pub const STEP: usize = 16;

/// Any bytes are a message or an error, and a message is exactly its bytes.
pub fn message(data: &[u8]) {
    let mut slot = [0; SLOT];
    for (to, from) in slot.iter_mut().zip(data) {
        *to = *from;
    }
    if let Ok(command) = Command::decode(&slot) {
        assert_eq!(command.encode(), slot, "a command is exactly its bytes");
    }
    if let Ok(event) = Event::decode(&slot) {
        assert_eq!(event.encode(), slot, "an event is exactly its bytes");
    }
}

/// Words an attacker would aim at.
fn targets() -> [usize; 8] {
    let first = |lines: core::ops::Range<usize>| lines.start * WORDS;
    let (commands, events) = (first(COMMANDS), first(EVENTS));
    [ATTACH_REQUEST, ATTACH_GRANT, CLOSED, commands, commands + WORDS, events, events + WORDS, 0]
}

/// Both ends on one segment, and a scribbler.
struct Scene {
    lines: Lines,
    data: DataEnd,
    control: Option<ControlEnd>,
}

/// Runs the program; see the module. Bytes after the last whole step are ignored.
pub fn hostile_peer(program: &[u8]) {
    let lines = Lines::heap(SEGMENT_LINES);
    let Some(data) = DataEnd::new(lines.clone()) else {
        return;
    };
    let mut scene = Scene { lines, data, control: None };
    for step in program.as_chunks::<STEP>().0.iter().take(4096) {
        scene.step(step);
    }
}

impl Scene {
    fn step(&mut self, step: &[u8; STEP]) {
        let [what, small, _, _, i0, i1, i2, i3, value @ ..] = *step;
        let index = usize::try_from(u32::from_le_bytes([i0, i1, i2, i3])).unwrap_or_default();
        let value = u64::from_le_bytes(value);
        match what % 8 {
            0 => self.scribble(index % (SEGMENT_LINES * WORDS), value),
            1 => {
                let targets = targets();
                let target = targets.get(usize::from(small) % targets.len()).copied().unwrap_or_default();
                self.scribble(target, value);
            }
            2 => self.poll(),
            3 => self.attach(),
            4 => self.command(small, value),
            5 => self.receive(),
            6 => drop(self.data.detach()),
            _ => self.slot(small, index, value),
        }
    }

    fn scribble(&self, word: usize, value: u64) {
        if let Some(word) = self.lines.word(word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Scribbles into one of the first slots of a ring.
    fn slot(&self, small: u8, index: usize, value: u64) {
        let ring = if small.is_multiple_of(2) { COMMANDS } else { EVENTS };
        let slots = (ring.start + crate::ring::HEAD_LINES) * WORDS;
        self.scribble(slots + index % (8 * SLOT_WORDS), value);
    }

    fn attach(&mut self) {
        let request = ControlEnd::request(&self.lines);
        self.poll();
        self.control = ControlEnd::granted(&self.lines, request);
    }

    fn command(&mut self, small: u8, value: u64) {
        let Ok(name) = format!("n{}", value % 1000).parse() else {
            return;
        };
        let command = match small % 9 {
            0 => Command::Begin { batch: value },
            1 => Command::Commit { batch: value },
            2 => Command::Abandon { batch: value },
            3 => Command::PutPool { name },
            4 => Command::RemoveBackend { pool: name, name, deadline: None },
            5 => Command::Dump,
            6 => Command::FindToken { token: 7 },
            7 => Command::Report { backend: BackendId(1), report: Report::TokenLives { token: 7 } },
            _ => Command::RemoveVip { name },
        };
        if let Some(control) = &mut self.control
            && control.try_push(&command).is_ok()
        {
            control.publish();
        }
    }

    fn poll(&mut self) {
        match self.data.poll() {
            Some(Request::Batch(batch)) => {
                assert!(batch.commands.len() <= MAX_BATCH, "a batch is bounded");
                for command in &batch.commands {
                    assert!(command.is_change(), "a batch holds changes only");
                    assert_eq!(Command::decode(&command.encode()), Ok(*command), "a valid command");
                }
                self.data.send(Event::Committed { batch: batch.number, generation: 1 });
            }
            Some(Request::Dump) => {
                for _ in 0..5 {
                    self.data.send(Event::DumpEnd { generation: 1 });
                }
            }
            Some(Request::FindToken { token }) => self.data.send(Event::TokenEnd { token }),
            Some(Request::Report { backend, report }) => {
                let command = Command::Report { backend, report };
                assert_eq!(Command::decode(&command.encode()), Ok(command), "a valid report");
            }
            Some(Request::Attached { .. } | Request::Detached | Request::Closed(_)) | None => {}
        }
    }

    fn receive(&mut self) {
        let Some(control) = &mut self.control else { return };
        match control.try_event() {
            Ok(Some(event)) => assert_eq!(Event::decode(&event.encode()), Ok(event), "a valid event"),
            Ok(None) => {}
            Err(_) => self.control = None,
        }
    }
}
