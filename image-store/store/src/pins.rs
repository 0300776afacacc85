//! Leases: what an operation in progress has touched is not garbage.
//!
//! While any [`Lease`] lives, every blob and layer that is asked for, made, or found gets pinned. `gc` decides
//! and takes things out of sight under the same mutex, so nothing can be found and then vanish. A lease that
//! is ended with [`Lease::linger`] leaves its pins in the database: a cancelled pull resumes where it was.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_oci::Digest;
use jiff::Timestamp;

use crate::db::Db;
use crate::error::Result;

/// What is kept for good stays kept.
pub(crate) const HOLD: &str = "INSERT INTO held (digest, until) VALUES (?1, ?2)
    ON CONFLICT (digest) DO UPDATE SET until = excluded.until WHERE until < 9223372036854775807";

/// What an image is made of needs no lease that lingers.
pub(crate) const RELEASE: &str = "DELETE FROM held WHERE until < 9223372036854775807 AND digest IN
    (SELECT ?1 UNION SELECT diff_id FROM image_layers WHERE id = ?1 UNION SELECT digest FROM image_blobs WHERE id = ?1)";

#[derive(Default)]
pub(crate) struct Pinned {
    leases: usize,
    digests: HashSet<Digest>,
}

impl Pinned {
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    pub(crate) fn any(&self) -> bool {
        self.leases > 0
    }
}

/// The pins of a store.
#[derive(Default)]
pub(crate) struct Pins(Mutex<Pinned>);

impl Pins {
    /// Holds everybody else off; for `gc`.
    pub(crate) fn freeze(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at something (through `look`) and pins it if a lease lives.
    pub(crate) fn touch<T>(&self, digest: &Digest, look: impl FnOnce() -> T) -> T {
        let mut pinned = self.freeze();
        if pinned.leases > 0 {
            pinned.digests.insert(digest.clone());
        }
        look()
    }
}

/// Keeps what is touched out of the hands of `gc`; see [`crate::Store::lease`].
#[must_use = "the lease ends when it is dropped"]
pub struct Lease {
    pins: Arc<Pins>,
    db: Arc<Db>,
}

impl Lease {
    pub(crate) fn new(pins: Arc<Pins>, db: Arc<Db>) -> Self {
        pins.freeze().leases += 1;
        Self { pins, db }
    }

    /// What was touched since the lease began (by anybody).
    pub(crate) fn touched(&self) -> HashSet<Digest> {
        self.pins.freeze().digests.clone()
    }

    /// Ends the lease, but keeps for this long what it protected.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn linger(self, time: Duration) -> Result<()> {
        let until = Timestamp::now().as_second().saturating_add_unsigned(time.as_secs());
        let digests = self.touched();
        self.db.transaction("keep a lease", |tx| {
            let mut insert = tx.prepare(HOLD)?;
            for digest in &digests {
                insert.execute((digest.as_str(), until))?;
            }
            Ok(())
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pinned = self.pins.freeze();
        pinned.leases -= 1;
        if pinned.leases == 0 {
            pinned.digests.clear();
        }
    }
}
