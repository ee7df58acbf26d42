//! The highest rate at which few enough packets are lost, by bisection (RFC 2544 section 26.1, with a loss that may be
//! above nothing).

/// What came of the trials at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the loss was small enough.
    pub passed: bool,
    /// Packets a second that were really offered.
    pub offered_pps: f64,
}

/// Looks for the highest rate that passes, between nothing and `most`, to `precision` of `most`. Gives the rate that was
/// really offered in the best trial that passed; 0 where none did.
///
/// # Errors
/// A trial could not be made.
pub fn highest<E>(
    most: f64,
    precision: f64,
    mut trial: impl FnMut(f64) -> Result<Verdict, E>,
) -> Result<f64, E> {
    let (mut low, mut high, mut best) = (0.0_f64, most, 0.0_f64);
    let mut next = most;
    while high - low > most * precision {
        let verdict = trial(next)?;
        if verdict.passed {
            best = best.max(verdict.offered_pps);
            low = next;
        } else {
            high = next;
        }
        if low >= high {
            break;
        }
        next = f64::midpoint(low, high);
    }
    Ok(best)
}

/// The middle one; of an even number the mean of the middle two. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, most: f64) -> (f64, usize) {
        let mut trials = 0;
        let found = highest(most, 0.01, |pps| {
            trials += 1;
            Ok::<_, ()>(Verdict { passed: pps <= limit, offered_pps: pps })
        });
        (found.unwrap(), trials)
    }

    #[test]
    fn the_limit_is_found_to_a_hundredth_of_the_highest_rate() {
        for limit in [0.3e6, 5e6, 7.77e6, 9.99e6] {
            let (found, trials) = search(limit, 10e6);
            assert!((limit - 0.1e6..=limit).contains(&found), "{found} of {limit}");
            assert!(trials <= 8, "{trials} trials");
        }
    }

    #[test]
    fn a_device_that_loses_nothing_is_tried_once_and_one_that_loses_all_has_no_rate() {
        assert_eq!(search(20e6, 10e6), (10e6, 1));
        assert_eq!(search(-1.0, 10e6).0, 0.0);
    }

    #[test]
    fn a_trial_that_fails_ends_the_search() {
        assert_eq!(highest(1e6, 0.01, |_| Err("no")), Err("no"));
    }

    #[test]
    fn medians() {
        assert_eq!(
            [median(&[]), median(&[3.0]), median(&[9.0, 1.0, 2.0]), median(&[4.0, 1.0])],
            [0.0, 3.0, 2.0, 2.5]
        );
    }
}
