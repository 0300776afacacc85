//! Between the interface's messages and the engine's words.

pub(crate) mod filter;
pub(crate) mod request;
mod signal;
pub(crate) mod view;

/// Nanoseconds since 1970 as the interface has them; 0 is "not yet".
pub(crate) fn nanoseconds(at: Option<jiff::Timestamp>) -> i64 {
    at.and_then(|at| i64::try_from(at.as_nanosecond()).ok()).unwrap_or(0)
}
