//! A histogram of times, in the manner of HdrHistogram: every value to better than one part in a hundred, from one to
//! 2^64, in fixed memory, at a few instructions a value.
//!
//! A value's bucket is given by its highest bit and the seven bits after it. Small values have a bucket each.

/// Bits of a value that tell its bucket, beside its highest.
const BITS: u32 = 7;
/// Buckets of one power of two.
const HALF: usize = 1 << BITS;
/// Enough for all of `u64`.
const BUCKETS: usize = (64 - BITS as usize) * HALF + HALF;

/// Counts of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    least: u64,
    greatest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, least: u64::MAX, greatest: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value)) {
            *bucket += 1;
        }
        self.count += 1;
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.count += other.count;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least value; `None` where none was counted.
    pub fn least(&self) -> Option<u64> {
        (self.count > 0).then_some(self.least)
    }

    /// The greatest value; `None` where none was counted.
    pub fn greatest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.greatest)
    }

    /// The value that `percent` of all values do not exceed, to one part in 128 and never below the true one; `None`
    /// where none was counted.
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = crate::number::whole((crate::number::float(self.count) * percent / 100.0).ceil()).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(top_of(bucket).min(self.greatest));
            }
        }
        Some(self.greatest)
    }
}

/// The bucket of a value.
#[inline]
fn bucket_of(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(BITS);
    // At most 2^(BITS + 1) - 1 is left.
    let rest = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    (shift as usize) * HALF + rest
}

/// The greatest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    let shift = (bucket / HALF).saturating_sub(1);
    let rest = u64::try_from(bucket - shift * HALF).unwrap_or(u64::MAX);
    // All ones below the shift; the highest bucket ends where u64 does.
    (rest << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_hold_it() {
        let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << bit) / 3]);
        for value in powers.chain([u64::MAX, u64::MAX - 1]).chain(0..1000) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS, "{value}");
            assert!(top_of(bucket) >= value, "{value}");
            assert!(bucket == 0 || top_of(bucket - 1) < value, "{value}");
            assert!(top_of(bucket) - value <= value / 128, "{value} reads as {}", top_of(bucket));
        }
    }

    #[test]
    fn percentiles_of_a_thousand_values_are_theirs_within_one_in_a_hundred() {
        let mut histogram = Histogram::default();
        (1..=1000).rev().for_each(|value| histogram.record(value * 1000));
        for (percent, value) in [(50.0, 500_000), (90.0, 900_000), (99.0, 990_000), (99.9, 999_000)] {
            let read = histogram.percentile(percent).unwrap();
            assert!((value..=value + value / 100).contains(&read), "p{percent} is {read}");
        }
        assert_eq!(histogram.percentile(100.0), Some(1_000_000));
        assert_eq!((histogram.least(), histogram.greatest()), (Some(1000), Some(1_000_000)));
    }

    #[test]
    fn what_two_have_counted_one_has_after_merging() {
        let (mut one, mut other, mut both) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..1000 {
            if value % 3 == 0 {
                one.record(value)
            } else {
                other.record(value)
            }
            both.record(value);
        }
        one.merge(&other);
        assert_eq!(one, both);
        one.merge(&Histogram::default());
        assert_eq!(one, both);
    }

    #[test]
    fn of_no_values_there_is_no_percentile() {
        let histogram = Histogram::default();
        assert_eq!((histogram.percentile(50.0), histogram.least(), histogram.greatest()), (None, None, None));
        assert_eq!(histogram.count(), 0);
    }
}
