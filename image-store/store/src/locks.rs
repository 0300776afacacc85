//! Locks by key: work on one blob or layer is done by one thread at a time, others wait for its result.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A set of held keys.
#[derive(Clone, Default)]
pub(crate) struct KeyLocks(Arc<(Mutex<HashSet<String>>, Condvar)>);

/// Holds one key until dropped.
pub(crate) struct KeyGuard {
    locks: KeyLocks,
    key: String,
}

impl KeyLocks {
    /// Waits until nobody holds the key, then holds it.
    pub(crate) fn lock(&self, key: &str) -> KeyGuard {
        let (held, freed) = &*self.0;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        while !held.insert(key.to_owned()) {
            held = freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        KeyGuard { locks: self.clone(), key: key.to_owned() }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let (held, freed) = &*self.locks.0;
        held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        freed.notify_all();
    }
}
