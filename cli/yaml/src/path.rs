//! Paths through a tree, and patterns over them.

use std::fmt;

/// Keys from the root down. An item of a list is `[]` where rules are looked up, its index in messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// One level down.
    #[must_use]
    pub fn join(&self, part: impl Into<String>) -> Self {
        let mut parts = Vec::with_capacity(self.0.len() + 1);
        parts.extend_from_slice(&self.0);
        parts.push(part.into());
        Self(parts)
    }

    /// The keys.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a pattern of keys joined by dots, with `*` for any key, describes this path.
    #[must_use]
    pub fn matches(&self, pattern: &str) -> bool {
        let mut wanted = pattern.split('.');
        let all =
            self.0.iter().all(|part| wanted.next().is_some_and(|wanted| wanted == "*" || wanted == part));
        all && wanted.next().is_none()
    }

    /// Whether this path is `pattern`, where a `*` of the pattern is any key.
    #[must_use]
    pub fn is_like(&self, pattern: &Path) -> bool {
        self.0.len() == pattern.0.len() && self.0.iter().zip(&pattern.0).all(|(a, b)| b == "*" || a == b)
    }
}

impl FromIterator<String> for Path {
    fn from_iter<I: IntoIterator<Item = String>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

impl From<&str> for Path {
    fn from(dotted: &str) -> Self {
        dotted.split('.').map(str::to_owned).collect()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            match part.parse::<usize>() {
                Ok(item) if index > 0 => write!(f, "[{item}]")?,
                _ if index > 0 => write!(f, ".{part}")?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn patterns() {
        let path = Path::from("services.web.ports.0");
        assert!(path.matches("services.*.ports.*"));
        assert!(!path.matches("services.*.ports"));
        assert!(!path.matches("services.*.ports.*.target"));
        assert_eq!(path.to_string(), "services.web.ports[0]");
        // A dot in a name is part of the name.
        assert!(Path::root().join("services").join("a.b").matches("services.*"));
    }
}
