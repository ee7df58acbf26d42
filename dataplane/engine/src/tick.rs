//! Coarse time in 12 bits, so that "last seen" fits the words of both tables.
//!
//! A tick is 16 seconds; 4096 of them are 18.2 hours. An idle connection of twelve hours must keep its token,
//! and an operator must not have to tune for it, so the wrap lies above that and idle limits ([`MAX_IDLE`])
//! stay below the wrap. What a tick is measured from does not matter: only differences are used.
//!
//! Invariants:
//! - [`Tick::age_of`] is right for ages up to [`MAX_AGE`]. An entry older than that would look young again,
//!   so sweeps must pass every entry more often than `MAX_AGE - MAX_IDLE` ticks (about 17 minutes).
//! - Workers read the clock on their own, so another's tick may be slightly ahead of ours. The last
//!   [`AHEAD`] values before the wrap therefore mean "from the near future" and count as age 0.

/// Seconds in a tick.
pub const TICK_SECONDS: u64 = 16;

/// Bits of a tick in the tables' words.
pub const TICK_BITS: u32 = 12;

/// Ticks until the value comes round.
const WRAP: u16 = 1 << TICK_BITS;

/// How far another worker's clock may be ahead of ours, in ticks.
const AHEAD: u16 = 32;

/// The greatest age that can be told.
pub const MAX_AGE: u16 = WRAP - AHEAD - 1;

/// The greatest idle limit: 17.7 hours.
pub const MAX_IDLE: u16 = 4000;

const _: () = assert!(MAX_IDLE < MAX_AGE, "a limit that no age reaches would never expire anything");
const _: () = assert!(MAX_IDLE as u64 * TICK_SECONDS > 12 * 3600, "an idle connection of 12 hours is kept");

/// A moment, to 16 seconds, modulo 18.2 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Tick(u16);

impl Tick {
    /// The tick of a time in seconds, counted from anywhere.
    #[inline]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self::from_bits(seconds / TICK_SECONDS)
    }

    /// How many ticks before `self` (now) `then` was. A `then` slightly ahead of now is age 0.
    #[inline]
    pub const fn age_of(self, then: Tick) -> u16 {
        let age = self.0.wrapping_sub(then.0) & (WRAP - 1);
        if age > MAX_AGE { 0 } else { age }
    }

    /// The tick `ticks` after this one.
    #[inline]
    pub const fn after(self, ticks: u16) -> Self {
        Self(self.0.wrapping_add(ticks) & (WRAP - 1))
    }

    /// The tick `ticks` before this one.
    #[inline]
    pub const fn before(self, ticks: u16) -> Self {
        Self(self.0.wrapping_sub(ticks) & (WRAP - 1))
    }

    /// The low 12 bits of a word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 12 bits first")]
    pub(crate) const fn from_bits(word: u64) -> Self {
        Self((word & (WRAP as u64 - 1)) as u16)
    }

    /// The tick as 12 bits of a word.
    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// A time in which nobody looked at the tables: between the last sign of life of one data plane and the start of the
/// next one.
///
/// The tick of an entry is told apart only within 18.2 hours, a pause may be longer. So ages are counted from the
/// last sign of life, and the pause is added to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    began: Tick,
    ended: Tick,
    ticks: u64,
}

impl Absence {
    /// From one time to another, in seconds of the same clock. One that ends before it began took no time.
    pub const fn new(last_alive_s: u64, now_s: u64) -> Self {
        Self {
            began: Tick::from_seconds(last_alive_s),
            ended: Tick::from_seconds(now_s),
            ticks: (now_s / TICK_SECONDS).saturating_sub(last_alive_s / TICK_SECONDS),
        }
    }

    /// How long it was, in ticks.
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The tick at its end.
    pub const fn ended(&self) -> Tick {
        self.ended
    }

    /// How old what was last seen at `then` is now, in ticks, however long ago that was.
    pub fn age_of(&self, then: Tick) -> u64 {
        // Seen after the last sign of life: younger than the pause is long.
        let late = u64::from(then.age_of(self.began));
        match self.age_before(then) {
            0 => self.ticks.saturating_sub(late),
            age => self.ticks.saturating_add(u64::from(age)),
        }
    }

    /// How old it was when the pause began.
    pub const fn age_before(&self, then: Tick) -> u16 {
        self.began.age_of(then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_right_after_any_pause_whatever_the_wrap() {
        for began in [5, 4000 * 16, 4095 * 16, 4096 * 16 + 3, 123_456_789] {
            for pause in [0, 1, 15, 16, 600, 3600 * 17, 3600 * 19, 65_536 * 16, 3600 * 1000] {
                let absence = Absence::new(began, began + pause);
                for before in [0, 1, 4, 6, 3999, 4000] {
                    let seen = (began / TICK_SECONDS + 4096 * 4 - before) % 4096;
                    let then = Tick::from_seconds(seen * TICK_SECONDS);
                    let passed = (began + pause) / TICK_SECONDS - began / TICK_SECONDS;
                    assert_eq!(absence.age_of(then), passed + before, "{began} {pause} {before}");
                }
            }
        }
    }

    #[test]
    fn what_was_seen_after_the_last_sign_of_life_is_younger_than_the_pause() {
        let absence = Absence::new(160, 320);
        assert_eq!(absence.age_of(Tick::from_seconds(176)), 9);
        assert_eq!(absence.age_of(Tick::from_seconds(160)), 10);
        assert_eq!(Absence::new(320, 160).age_of(Tick::from_seconds(320)), 0, "a clock that ran back");
    }

    #[test]
    fn an_age_is_counted_in_ticks_of_sixteen_seconds() {
        let then = Tick::from_seconds(1_000_000);
        assert_eq!(Tick::from_seconds(1_000_000).age_of(then), 0);
        assert_eq!(Tick::from_seconds(1_000_016).age_of(then), 1);
        assert_eq!(Tick::from_seconds(1_000_000 + 17 * 3600).age_of(then), 17 * 3600 / 16);
    }

    #[test]
    fn an_age_survives_the_wrap() {
        let then = Tick::from_seconds(16 * 4095);
        assert_eq!(Tick::from_seconds(16 * 4097).age_of(then), 2);
        assert_eq!(then.after(2), Tick::from_seconds(16 * 4097));
    }

    #[test]
    fn a_tick_from_a_clock_slightly_ahead_is_young_not_ancient() {
        let now = Tick::from_seconds(0);
        for ahead in 1..=32 {
            assert_eq!(now.age_of(now.after(ahead)), 0, "{ahead} ticks ahead");
        }
        assert_eq!(now.age_of(now.after(33)), MAX_AGE);
    }
}
