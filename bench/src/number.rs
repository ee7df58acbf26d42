//! Between counts and figures.

/// A count as a figure. Exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of packets and cycles are far below 2^53")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// The count below a figure; 0 for what is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a figure saturates, which is what is wanted"
)]
pub const fn whole(figure: f64) -> u64 {
    figure as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_no_count_is_the_nearest_one() {
        assert_eq!([2.9, -1.0, f64::NAN, f64::INFINITY].map(whole), [2, 0, 0, u64::MAX]);
        assert_eq!(whole(float(1 << 52)), 1 << 52);
    }
}
