//! The bytes of a container's writable layer, remembered while nothing can change them.
//!
//! ```text
//!            walked                      start, cp
//!   unknown ────────▶ remembered (n) ──────────────▶ unknown      a walk that a change overtook tells its result,
//!                                                                 but nothing is remembered
//! ```
//!
//! What a container that does not run has written can only change by its next start and by `cp`: both tell so here before
//! they mount the layer. Of one that runs nothing is remembered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is remembered of one container.
#[derive(Debug, Default)]
pub(crate) struct Weight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts what may have changed the layer.
    changes: u64,
    /// Mounts of the engine's own through which something is written.
    writers: usize,
    bytes: Option<u64>,
}

/// As long as it lives something may be written.
#[derive(Debug)]
pub(crate) struct Writing(Arc<Weight>);

/// The moment in which a walk began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

impl Weight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, with: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.changes += 1;
        state.bytes = None;
        with(&mut state);
    }

    /// The layer is about to be mounted for the container's processes.
    pub(crate) fn forget(&self) {
        self.changed(|_| ());
    }

    /// The layer is about to be written by the engine itself.
    pub(crate) fn writing(self: &Arc<Self>) -> Writing {
        self.changed(|state| state.writers += 1);
        Writing(Arc::clone(self))
    }

    /// What is remembered.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.state().bytes
    }

    /// Taken before a walk begins; nothing if somebody writes.
    pub(crate) fn moment(&self) -> Option<Moment> {
        let state = self.state();
        (state.writers == 0).then_some(Moment(state.changes))
    }

    /// Remembers what a walk found that began at `moment`, unless something has changed since.
    pub(crate) fn remember(&self, moment: Moment, bytes: u64) {
        let mut state = self.state();
        if state.changes == moment.0 {
            state.bytes = Some(bytes);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.changed(|state| state.writers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_was_overtaken_is_not_remembered() {
        let weight = Arc::new(Weight::default());
        let moment = weight.moment().expect("nobody writes");
        weight.remember(moment, 7);
        assert_eq!(weight.bytes(), Some(7));
        weight.forget();
        assert_eq!(weight.bytes(), None);
        weight.remember(moment, 7);
        assert_eq!(weight.bytes(), None, "the container was started meanwhile");
    }

    #[test]
    fn nothing_is_remembered_while_somebody_writes() {
        let weight = Arc::new(Weight::default());
        let before = weight.moment().expect("nobody writes");
        let writing = weight.writing();
        assert!(weight.moment().is_none());
        weight.remember(before, 7);
        drop(writing);
        weight.remember(before, 7);
        assert_eq!(weight.bytes(), None);
        weight.remember(weight.moment().expect("nobody writes"), 8);
        assert_eq!(weight.bytes(), Some(8));
    }
}
