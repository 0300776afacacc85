//! The tar format, read with bounds and written canonically.
//!
//! Headers are decoded and encoded by the `tar` crate. Its entry iterator is not used: it reads GNU long names
//! and PAX records of any size into memory, and does not know PAX sparse files.

mod entry;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::TarError;
pub(crate) use entry::{Entry, Kind, Segment};
pub(crate) use reader::Reader;
pub(crate) use writer::Writer;
