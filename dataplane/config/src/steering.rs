//! Reads how a VIP steers joins: the schemes in order of preference, and what each of them needs.

use ipc::message::{Scheme, Steering};

use crate::problem::Report;
use crate::schema::mptcp as key;
use crate::table::Table;

/// Reads the steering of a `[vip.mptcp]`.
pub(crate) fn read(table: &Table<'_>, report: &mut Report<'_>) -> Steering {
    let words = table.choices(&key::STEERING, report);
    let scheme = |word: &str| Scheme::ALL.iter().copied().find(|scheme| scheme.name() == word);
    Steering::by(words.iter().filter_map(|word| scheme(word.value)))
}
