//! Scales, ranges and ticks.

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal differences are equally long.
    Linear,
    /// Equal ratios are equally long. Values are above zero.
    Logarithmic,
}

/// One axis: what it shows, its range, and where it is marked.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    scale: Scale,
    low: f64,
    high: f64,
    /// Values and their names, ascending.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to above the largest value.
    pub(crate) fn from_zero(label: &str, values: &[f64]) -> Self {
        let largest = values.iter().copied().fold(0.0, f64::max);
        let step = nice_step(largest / 5.0);
        let high = step * (largest * 1.03 / step).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut tick = 0.0;
        while tick <= step.mul_add(0.5, high) {
            ticks.push((tick, decimal(tick)));
            tick += step;
        }
        Self { label: label.to_owned(), scale: Scale::Linear, low: 0.0, high, ticks }
    }

    /// Around all values, in ratios, with ticks at 1, 2 and 5 times the powers of ten.
    pub(crate) fn ratios(label: &str, values: &[f64]) -> Self {
        let (low, high) = range(values);
        let (low, high) = (low / 1.25, high * 1.25);
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(low.log10().floor());
        while power <= high {
            // Over many powers of ten these alone are enough to read by.
            let factors: &[f64] = if high / low > 2000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            for factor in factors {
                let tick = power * factor;
                if tick >= low && tick <= high {
                    ticks.push((tick, decimal(tick)));
                }
            }
            power *= 10.0;
        }
        Self { label: label.to_owned(), scale: Scale::Logarithmic, low, high, ticks }
    }

    /// Marked at the values themselves, named by `name`.
    pub(crate) fn at_values(label: &str, scale: Scale, values: &[f64], name: impl Fn(f64) -> String) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        let (low, high) = range(&sorted);
        let (low, high) = match scale {
            Scale::Logarithmic => (low / 1.35, high * 1.35),
            Scale::Linear => (low - (high - low).max(1.0) * 0.06, high + (high - low).max(1.0) * 0.06),
        };
        let ticks = sorted.into_iter().map(|value| (value, name(value))).collect();
        Self { label: label.to_owned(), scale, low, high, ticks }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(crate) fn position(&self, value: f64) -> f64 {
        let along = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
        };
        (along(value) - along(self.low)) / (along(self.high) - along(self.low))
    }
}

/// Smallest and largest; one value alone has a range around itself.
fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low.is_finite() && high.is_finite() { (low, high) } else { (1.0, 10.0) }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn nice_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| power * factor >= least * 0.999);
    power * factor.unwrap_or(10.0)
}

/// A number with three digits at least.
pub(crate) fn measured(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The same without zeros behind its last digit.
pub(crate) fn decimal(value: f64) -> String {
    let text = measured(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A count as people say it: 1 k, 64 k, 1 M. Powers of two are told by their own k and M.
pub(crate) fn count(value: f64) -> String {
    for (binary, decimal_unit, unit) in [(1_048_576.0, 1e6, "M"), (1024.0, 1e3, "k")] {
        // What rounds to a thousand of the smaller unit is one of the larger.
        if value >= decimal_unit * 0.9995 {
            let whole = |divisor: f64| (value / divisor).fract() == 0.0;
            // 65,536 flows are 64 k, and a million is 1 M.
            let divisor = if whole(binary) && !whole(decimal_unit) { binary } else { decimal_unit };
            return format!("{} {unit}", decimal(value / divisor));
        }
    }
    decimal(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_in_the_unit_it_was_meant_in() {
        let told: Vec<String> =
            [1.0, 1000.0, 1024.0, 65_536.0, 64_000.0, 999_996.0, 1e6, 1_048_576.0, 9_999_902.0, 1.5e6]
                .map(count)
                .to_vec();
        assert_eq!(told, ["1", "1 k", "1 k", "64 k", "64 k", "1 M", "1 M", "1 M", "10 M", "1.5 M"]);
    }

    #[test]
    fn numbers_have_no_empty_digits() {
        assert_eq!(
            [0.0, 0.25, 1.5, 14.88, 131.0, 100.0].map(decimal),
            ["0", "0.25", "1.5", "14.9", "131", "100"]
        );
    }

    #[test]
    fn an_axis_from_zero_ends_above_its_largest_value() {
        for largest in [0.3, 1.0, 9.9, 14.88, 74.0, 122.0] {
            let axis = Axis::from_zero("Mpps", &[largest]);
            let end = axis.ticks.last().map(|tick| tick.0);
            assert!(
                end.is_some_and(|end| end >= largest && end <= largest * 2.0),
                "{largest}: {:?}",
                axis.ticks
            );
            assert!((4..=9).contains(&axis.ticks.len()), "{largest}: {:?}", axis.ticks);
        }
    }

    #[test]
    fn ratios_are_marked_within_their_range() {
        let axis = Axis::ratios("ns", &[12.0, 555.0]);
        let told: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(told, ["10", "20", "50", "100", "200", "500"]);
        assert!(axis.position(9.6) >= -1e-9 && axis.position(693.75) <= 1.0 + 1e-9);
    }

    #[test]
    fn an_axis_of_one_value_has_a_place_for_it() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let place = Axis::at_values("flows", scale, &[1000.0], count).position(1000.0);
            assert!((place - 0.5).abs() < 1e-6, "{scale:?}: {place}");
        }
    }
}
