//! Cache keys: a digest over named inputs. The inputs are kept beside the result, so that a later build can tell
//! which of them changed.

use berth_oci::{Digest, Hasher};

/// Bumped when the meaning of keys changes.
const VERSION: &str = "2";

/// Collects the inputs of a step.
#[derive(Debug, Clone)]
pub(crate) struct KeyInputs {
    pub(crate) inputs: Vec<(String, String)>,
    /// The files that the input `files` is the digest of: names, and what tells their states apart.
    pub(crate) files: Option<(String, Vec<(String, String)>)>,
}

impl KeyInputs {
    /// Inputs of an instruction on top of a file system.
    pub(crate) fn new(instruction: &str, parent: &str) -> Self {
        let mut key = Self { inputs: Vec::new(), files: None };
        key.add("version", VERSION);
        key.add("instruction", instruction);
        key.add("parent", parent);
        key
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.inputs.push((name.into(), value.into()));
    }

    /// Adds files by a digest over all of them, and what each of them is, unless that was told before.
    pub(crate) fn add_files(&mut self, digest: &str, list: Option<Vec<(String, String)>>) {
        self.add("files", digest);
        self.files = list.map(|list| (digest.to_owned(), list));
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for (name, value) in &self.inputs {
            field(&mut hasher, name.as_bytes());
            field(&mut hasher, value.as_bytes());
        }
        hasher.finish()
    }
}

/// Adds a field such that no other split into fields gives the same bytes.
pub(crate) fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let mut a = KeyInputs::new("RUN", "p");
        a.add("x", "yz");
        let mut b = KeyInputs::new("RUN", "p");
        b.add("xy", "z");
        assert_ne!(a.digest(), b.digest());
        assert_eq!(a.digest(), a.clone().digest());
    }
}
