//! What is done, told step by step to whoever asked for it (`--debug`).

use std::fmt;

/// Receives one line for each thing that is done, in the parent's process.
#[derive(Clone, Copy)]
pub struct Trace<'a>(pub &'a dyn Fn(&str));

impl Trace<'_> {
    pub(crate) fn tell(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}
