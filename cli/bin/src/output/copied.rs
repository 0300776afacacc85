//! How far a copy is, and what it was in the end; docker's words.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::units;

/// How often the count is shown.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that have gone by.
pub(crate) type Count = Arc<AtomicU64>;

/// Tells of a copy on standard error: how far it is, where that is a terminal, and at its end how much went where.
pub(crate) async fn told(
    doing: &str,
    count: &Count,
    target: &str,
    copy: impl Future<Output = Result<()>>,
) -> Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let size = || units::size(i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    // A terminal that has gone away needs no telling.
    let show = |text: &str| write!(std::io::stderr(), "\r\x1b[K{text}").ok();
    let mut copy = pin!(copy);
    let mut ticks = tokio::time::interval(INTERVAL);
    // The first comes at once.
    ticks.tick().await;
    let copied = loop {
        tokio::select! {
            copied = &mut copy => break copied,
            _ = ticks.tick(), if terminal => drop(show(&format!("{doing} - {}", size()))),
        }
    };
    if terminal {
        show("");
    }
    if copied.is_ok() {
        writeln!(std::io::stderr(), "Successfully copied {} to {target}", size()).ok();
    }
    copied
}
