//! The frames of a capture, in one piece of memory, in the order in which they are sent.

use std::path::Path;

use anyhow::{Context as _, bail};
use capture::CaptureReader;

use super::stamp::has_room;

/// One frame's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    length: u16,
    stamped: bool,
}

/// The frames of a capture.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    places: Vec<Place>,
    stamped: usize,
}

impl Frames {
    /// Reads a capture; `longest` is the longest frame a packet buffer takes.
    ///
    /// # Errors
    /// The capture cannot be read, holds no packet, or one that was cut or is too long; says which.
    pub fn read(path: &Path, longest: u16) -> anyhow::Result<Self> {
        let mut reader = CaptureReader::open(path)?;
        let mut frames = Self::default();
        while let Some(record) = reader.read()? {
            let number = frames.places.len() + 1;
            if record.missing > 0 {
                bail!(
                    "packet {number} of {} was cut by its capture: capture whole packets (-s 0)",
                    path.display()
                );
            }
            let length = u16::try_from(record.bytes.len()).ok().filter(|length| *length <= longest);
            let length = length.with_context(|| {
                format!("packet {number} of {} is longer than {longest} bytes", path.display())
            })?;
            frames.push(&record.bytes, length);
        }
        if frames.places.is_empty() {
            bail!("{} holds no packet", path.display());
        }
        Ok(frames)
    }

    fn push(&mut self, bytes: &[u8], length: u16) {
        let stamped = has_room(bytes);
        self.places.push(Place { start: self.bytes.len(), length, stamped });
        self.bytes.extend_from_slice(bytes);
        self.stamped += usize::from(stamped);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// How many bear a stamp.
    pub fn stamped(&self) -> usize {
        self.stamped
    }

    /// The frame of that number, and whether it bears a stamp. The number counts from 0 and below [`Frames::count`].
    #[inline]
    pub fn get(&self, number: usize) -> (&[u8], bool) {
        let Some(place) = self.places.get(number) else { return (&[], false) };
        let end = place.start + usize::from(place.length);
        (self.bytes.get(place.start..end).unwrap_or_default(), place.stamped)
    }
}
