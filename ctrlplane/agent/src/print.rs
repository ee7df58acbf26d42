//! What `weft-agent watch` prints: a line an event, for people or as JSON.

use std::io::{self, Write};

use crate::kernel::events::Said;
use crate::wire::{Event, FromAgent, Kind, Mark};

/// Prints events as they come.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// Whether as JSON, in the very lines a control plane gets.
    pub json: bool,
}

impl Printer {
    /// Prints an event.
    pub fn event(self, event: &Event) -> io::Result<()> {
        if self.json {
            return line(&FromAgent::Event(*event));
        }
        let kind = match event.kind {
            Kind::Created => "created",
            Kind::Established => "established",
            Kind::Closed => "closed",
            Kind::SubEstablished => "sub_established",
            Kind::SubClosed => "sub_closed",
        };
        let ends = match (event.local, event.remote) {
            (Some(local), Some(remote)) => format!("  {local} <- {remote}"),
            _ => String::new(),
        };
        writeln!(io::stdout(), "{:<15}  {}{ends}", kind, event.token)
    }

    /// Prints where a dump begins or ends.
    pub fn mark(self, mark: Mark) -> io::Result<()> {
        if self.json { line(&FromAgent::Dump(mark)) } else { Ok(()) }
    }

    /// Prints what the kernel says.
    pub fn said(self, said: &Said) -> io::Result<()> {
        match said {
            Said::Event(event) => self.event(event),
            Said::Lost => {
                log::warn!("the kernel said more than there was room for; some events are lost");
                Ok(())
            }
        }
    }
}

fn line(said: &FromAgent) -> io::Result<()> {
    let text = serde_json::to_string(said).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
