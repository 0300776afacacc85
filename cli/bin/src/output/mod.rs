//! What goes to standard output: tables, formats, human units, progress.

pub(crate) mod copied;
pub(crate) mod list;
pub(crate) mod progress;
pub(crate) mod units;
