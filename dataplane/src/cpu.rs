//! The CPU every build of Weft expects, checked before anything else is done.
//!
//! Weft is built for x86-64-v3 with AES (`.cargo/config.toml`), never for the building machine alone. On an
//! older CPU the first such instruction would end the process with SIGILL; one sentence is better.

/// The first missing feature of the baseline, if any is missing.
#[cfg(target_arch = "x86_64")]
pub fn missing_feature() -> Option<&'static str> {
    macro_rules! check {
        ($($feature:tt),+) => { $( if !std::arch::is_x86_feature_detected!($feature) { return Some($feature); } )+ };
    }
    check!("avx2", "bmi1", "bmi2", "fma", "f16c", "lzcnt", "movbe", "popcnt", "aes");
    None
}

/// Other architectures take the portable path, which expects nothing.
#[cfg(not(target_arch = "x86_64"))]
pub fn missing_feature() -> Option<&'static str> {
    None
}
