//! A cap on the bytes of blobs and layers that is never passed.
//!
//! ```text
//!  take(n) ── fits ──▶ counted before it is written
//!     └─ does not ──▶ reclaim down to the watermark (once for all who wait) ──▶ fits, or refused: nothing is written
//!  give(n) ◀── what was removed, or never finished
//! ```
//! Counted are the lengths of blobs, also partial ones, and of the files of layers: what `system df` shows. Writable
//! trees of containers are not the store's to limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Frees at least so many bytes, if it can.
type Reclaim = Box<dyn Fn(u64) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(crate) struct Quota {
    used: AtomicU64,
    cap: OnceLock<(u64, Reclaim)>,
    reclaiming: Mutex<()>,
}

/// It does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the image store has a cap of {cap} bytes, and what is in use leaves no room for {wanted} more; remove images, or raise berthd's --image-cap"
)]
pub struct OverCap {
    /// The cap.
    pub cap: u64,
    /// What was to be written.
    pub wanted: u64,
}

impl Quota {
    /// Bytes that are counted now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Sets the cap, once.
    pub(crate) fn limit(&self, cap: u64, reclaim: Reclaim) {
        // A second cap would be a second engine on this store, which the store's lock forbids.
        self.cap.set((cap, reclaim)).ok();
    }

    /// Counts bytes that are about to be written.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), OverCap> {
        let Some((cap, reclaim)) = self.cap.get() else {
            self.used.fetch_add(bytes, Ordering::SeqCst);
            return Ok(());
        };
        if self.try_take(bytes, *cap) {
            return Ok(());
        }
        let _turn = self.reclaiming.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was here before may have made room for all.
        if self.try_take(bytes, *cap) {
            return Ok(());
        }
        let watermark = cap - cap / 10;
        reclaim(self.used().saturating_add(bytes).saturating_sub(watermark));
        match self.try_take(bytes, *cap) {
            true => Ok(()),
            false => Err(OverCap { cap: *cap, wanted: bytes }),
        }
    }

    fn try_take(&self, bytes: u64, cap: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= cap);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Counts what is already there, whatever the cap.
    pub(crate) fn found(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Takes back what [`Self::take`] counted.
    pub(crate) fn give(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_cap_is_never_passed() {
        let quota = Arc::new(Quota::default());
        let freed = Arc::clone(&quota);
        quota.found(50);
        quota.limit(100, Box::new(move |bytes| freed.give(bytes.min(50))));
        quota.take(50).unwrap();
        assert_eq!(quota.used(), 100);
        quota.take(10).unwrap();
        assert_eq!(quota.used(), 90, "down to the watermark");
        assert_eq!(quota.take(101), Err(OverCap { cap: 100, wanted: 101 }));
    }
}
