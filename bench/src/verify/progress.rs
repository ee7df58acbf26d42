//! Progress on long work: a line on standard error where that is a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// Packets between two updates.
const EVERY: u64 = 1 << 14;

/// A count of packets that grows.
pub struct Progress(ProgressBar);

impl Progress {
    /// Counts packets of which nobody knows how many there are.
    pub fn counting(what: &str) -> Self {
        Self::new(ProgressBar::new_spinner(), "{msg}: {human_pos} packets, {elapsed}", what)
    }

    fn new(bar: ProgressBar, form: &str, what: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// So many are done.
    pub fn set(&self, done: u64) {
        if done.is_multiple_of(EVERY) {
            self.0.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
