//! Files of variables.

use serde::{Deserialize, Serialize, Serializer};

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EnvFile {
    /// Path.
    pub path: String,
    /// Whether it must be there.
    pub required: bool,
    /// Format; empty is that of `.env`.
    pub format: String,
}

impl Serialize for EnvFile {
    /// A required one is but its path.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Long<'a> {
            path: &'a str,
            required: bool,
            #[serde(skip_serializing_if = "str::is_empty")]
            format: &'a str,
        }
        if self.required {
            return self.path.serialize(serializer);
        }
        Long { path: &self.path, required: self.required, format: &self.format }.serialize(serializer)
    }
}
