//! What the engine is fed: established connections by the million, and captures.

use std::ops::Range;
use std::path::Path;

use anyhow::bail;
use capture::CaptureReader;
use packet::{Family, Kind, Token};

use crate::arena::{HELD, Held};
use crate::measure::Traffic;
use crate::traffic::{Clients, Service, Shape, Template, mix, token};

/// Packets of established connections, every one as often as any other, in random order.
#[derive(Debug)]
pub struct Established {
    clients: Clients,
    templates: Vec<Template>,
    order: Vec<u32>,
    packets: usize,
    at: usize,
}

impl Established {
    /// Packets of these shapes, mixed, of the clients in `order`; `packets` a pass.
    pub fn new(clients: Clients, shapes: &[Shape], order: Vec<u32>, packets: usize) -> Self {
        Self::to(&[clients.service], clients, shapes, order, packets)
    }

    /// The same, each client to one of these services.
    pub fn to(
        services: &[Service],
        clients: Clients,
        shapes: &[Shape],
        order: Vec<u32>,
        packets: usize,
    ) -> Self {
        let to = |service| shapes.iter().map(move |shape| Template::new(*shape, service));
        let templates = services.iter().flat_map(to).collect();
        Self { clients, templates, order, packets, at: 0 }
    }

    /// The mean length of their frames, in bytes.
    pub fn frame_bytes(&self) -> u64 {
        let sum: usize = self.templates.iter().map(Template::len).sum();
        sum.checked_div(self.templates.len()).map_or(0, |mean| mean as u64)
    }
}

impl Traffic for Established {
    fn begin(&mut self, pass: u64) {
        let passed = u128::from(pass) * self.packets as u128;
        self.at = usize::try_from(passed % self.order.len().max(1) as u128).unwrap_or(0);
    }

    fn next(&mut self, frame: &mut Held) -> usize {
        let Some(number) = self.order.get(self.at).copied().map(u64::from) else { return 0 };
        self.at += 1;
        if self.at == self.order.len() {
            self.at = 0;
        }
        // Which of them comes next, no predictor can learn.
        let drawn = u128::from(mix(number)) * self.templates.len() as u128;
        let kind = usize::try_from(drawn >> 64).unwrap_or(0);
        let Some(template) = self.templates.get(kind) else { return 0 };
        template.write(&self.clients.get(number), Token(0), frame)
    }
}

/// Packets of one shape of the clients from one number on, in their order: what opens their connections.
#[derive(Debug)]
pub struct Opening {
    clients: Clients,
    template: Template,
    /// The tokens that joins name, at random.
    tokens: Range<u32>,
    next: u64,
}

impl Opening {
    /// Packets of this shape.
    pub fn new(clients: Clients, shape: Shape) -> Self {
        Self { clients, template: Template::new(shape, &clients.service), tokens: 0..1, next: 0 }
    }

    /// Joins that name tokens of these numbers, at random.
    #[must_use]
    pub fn joining(self, tokens: Range<u32>) -> Self {
        Self { tokens, ..self }
    }

    /// The token that a client's join names.
    fn token(&self, number: u64) -> Token {
        let Range { start, end } = self.tokens;
        let drawn = (u128::from(mix(number)) * u128::from(end - start)) >> 64;
        token(start + u32::try_from(drawn).unwrap_or(0), self.clients.seed)
    }
}

impl Traffic for Opening {
    fn begin(&mut self, first: u64) {
        self.next = first;
    }

    fn next(&mut self, frame: &mut Held) -> usize {
        let (client, token) = (self.clients.get(self.next), self.token(self.next));
        self.next += 1;
        self.template.write(&client, token, frame)
    }
}

/// A capture in memory: the beginnings of its frames.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Where each frame begins, and how long it is.
    frames: Vec<(usize, u32)>,
    at: usize,
}

impl Capture {
    /// Reads a capture file.
    ///
    /// # Errors
    /// It cannot be read, or has no packet.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut capture = Self::default();
        let mut reader = CaptureReader::open(path)?;
        while let Some(record) = reader.read()? {
            let len = u32::try_from(record.bytes.len() + record.missing)?;
            capture.frames.push((capture.bytes.len(), len));
            capture.bytes.extend(record.bytes.iter().take(HELD));
        }
        if capture.frames.is_empty() {
            bail!("{} has no packet", path.display());
        }
        Ok(capture)
    }

    /// How many packets it has.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The family of its first TCP packet, if it has one.
    pub fn family(&self) -> Option<Family> {
        (0..self.len()).find_map(|index| {
            let (bytes, len) = self.frame(index)?;
            let parsed = packet::parse(bytes, len);
            (parsed.kind == Kind::Tcp).then_some(parsed.flow.family)
        })
    }

    /// The mean length of its frames, in bytes.
    pub fn frame_bytes(&self) -> u64 {
        let sum: u64 = self.frames.iter().map(|(_, len)| u64::from(*len)).sum();
        sum.checked_div(self.frames.len() as u64).unwrap_or(0)
    }

    fn frame(&self, index: usize) -> Option<(&[u8], usize)> {
        let (start, len) = *self.frames.get(index)?;
        let end = self.frames.get(index + 1).map_or(self.bytes.len(), |(next, _)| *next);
        Some((self.bytes.get(start..end)?, len as usize))
    }
}

impl Traffic for Capture {
    fn begin(&mut self, _pass: u64) {
        self.at = 0;
    }

    fn next(&mut self, held: &mut Held) -> usize {
        let at = self.at;
        self.at = if at + 1 >= self.len() { 0 } else { at + 1 };
        let Some((bytes, len)) = self.frame(at) else { return 0 };
        for (to, from) in held.0.iter_mut().zip(bytes) {
            *to = *from;
        }
        len
    }
}
