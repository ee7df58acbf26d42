//! What can go wrong in the lab, each as one sentence.

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the lab; its `Display` is a sentence for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that the lab runs to its end failed.
    #[error("`{command}` failed: {reason}")]
    Tool {
        /// The command line.
        command: String,
        /// Its exit status and what it wrote to stderr.
        reason: String,
    },
    /// A file or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// SIGINT, SIGTERM or SIGHUP arrived.
    #[error("interrupted")]
    Interrupted,
    /// Something took longer than it may.
    #[error("{what} within {seconds} s{detail}")]
    Timeout {
        /// What did not happen.
        what: String,
        /// How long the lab waited.
        seconds: u64,
        /// What is known about the cause; may be empty.
        detail: String,
    },
    /// Anything else, already a sentence.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An I/O error together with what was tried.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// A sentence.
    pub fn other(sentence: impl Into<String>) -> Self {
        Self::Other(sentence.into())
    }
}
