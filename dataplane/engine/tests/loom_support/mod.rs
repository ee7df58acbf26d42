//! How loom explores both tables.

/// Forced switches in an execution at most; those where a thread ends are free.
pub const PREEMPTIONS: usize = 3;

/// Runs a model under every interleaving within the bound.
pub fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 100_000;
    builder.check(check);
}
