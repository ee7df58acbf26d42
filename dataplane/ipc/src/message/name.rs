//! Names of VIPs, pools and backends, as messages carry them.

use core::fmt;
use core::str::FromStr;

use crate::limits::MAX_NAME;

/// The name of a VIP, pool or backend: 1 to [`MAX_NAME`] bytes of UTF-8, no white space, no control characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub(crate) [u8; NAME_BYTES]);

/// A name's room in memory: its text, then zeroes, at least one.
pub(crate) const NAME_BYTES: usize = MAX_NAME + 1;

/// Why a text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name must have at least one character")]
    Empty,
    /// More than fits.
    #[error("a name must have at most {MAX_NAME} bytes")]
    TooLong,
    /// A character that would make tables and logs ambiguous.
    #[error("a name must have no white space and no control characters")]
    BadCharacter,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_NAME);
        // Only `from_str` makes names, from a &str that ends where `end` is.
        self.0.get(..end).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(NameError::BadCharacter);
        }
        let mut bytes = [0; NAME_BYTES];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Name(bytes))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_63_bytes_without_spaces_and_controls() {
        assert_eq!("web-1".parse::<Name>().unwrap().as_str(), "web-1");
        assert_eq!("x".repeat(MAX_NAME).parse::<Name>().unwrap().as_str().len(), MAX_NAME);
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("x".repeat(MAX_NAME + 1).parse::<Name>(), Err(NameError::TooLong));
        assert_eq!("ä".repeat(32).parse::<Name>(), Err(NameError::TooLong), "64 bytes");
        for bad in ["a b", "a\tb", "a\0", "\u{a0}", "a\n", "\u{7f}"] {
            assert_eq!(bad.parse::<Name>(), Err(NameError::BadCharacter), "{bad:?}");
        }
        assert_eq!(
            format!("{:>4}|{:?}", "ab".parse::<Name>().unwrap(), "ab".parse::<Name>().unwrap()),
            "  ab|\"ab\""
        );
    }
}
