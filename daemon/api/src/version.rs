//! API versions: `1.24` to `1.56`.

use std::{fmt, num::ParseIntError, str::FromStr};

/// A version of the Engine API, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// The part before the dot; 1 ever since.
    pub major: u16,
    /// The part behind the dot.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest version served.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest version served, and what an unversioned path means.
    pub const MAX: Self = Self::new(1, 56);

    /// A version from its parts.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether this is at least `1.minor`.
    #[must_use]
    pub fn at_least(self, minor: u16) -> bool {
        self >= Self::new(1, minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ParseIntError;

    /// Parses `1.41`, with or without a leading `v`. A missing minor part is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self::new(major.parse()?, minor.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(parse("v1.9") < parse("1.24"));
        assert!(parse("1.56").at_least(52));
        assert!(!parse("1.43").at_least(44));
        assert_eq!(parse("1.41").to_string(), "1.41");
        assert!("one.two".parse::<ApiVersion>().is_err());
    }
}
