//! Reads `[metrics]`.

use crate::model::Metrics;
use crate::problem::Report;
use crate::schema::{self, metrics as key};
use crate::table::Table;
use crate::value::read_socket;

/// Reads `[metrics]`, if it is there. What is wrong is reported.
pub(crate) fn read(root: &Table<'_>, report: &mut Report<'_>) -> Option<Metrics> {
    root.given(&schema::METRICS_KEY)?;
    let table = root.table(&schema::METRICS_KEY, report)?;
    let listen = table.text(&key::LISTEN, report)?;
    Some(Metrics { listen: read_socket(&listen, "127.0.0.1:9464", report)? })
}
