//! From measured values to rows of a run.

use serde_json::{Map, Value};

use super::search::median;
use crate::report::Row;

/// A row of these values, one for each round.
pub fn row(figure: &str, case: &str, unit: &str, values: &[f64]) -> Row {
    Row {
        figure: figure.to_owned(),
        case: case.to_owned(),
        unit: unit.to_owned(),
        median: median(values),
        min: values.iter().copied().reduce(f64::min).unwrap_or_default(),
        max: values.iter().copied().reduce(f64::max).unwrap_or_default(),
        rounds: values.len() as u64,
        ..Row::default()
    }
}

/// What else belongs to a row.
pub fn extra<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
