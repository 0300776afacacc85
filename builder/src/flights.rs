//! Work that several stages or builds want at the same time: one does it, the others wait.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often somebody who waits looks whether the build was cancelled.
const PAUSE: Duration = Duration::from_millis(50);

/// What is being done, by name.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    running: Mutex<HashSet<String>>,
    ended: Condvar,
}

/// Does the work; others may when it is dropped.
#[derive(Debug)]
pub(crate) struct Lead<'a> {
    flights: &'a Flights,
    name: String,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lead in some work, or none if somebody else has it.
    pub(crate) fn lead(&self, name: &str) -> Option<Lead<'_>> {
        let fresh = self.lock().insert(name.to_owned());
        fresh.then(|| Lead { flights: self, name: name.to_owned() })
    }

    /// Waits until nobody does this work, or the build is cancelled.
    pub(crate) fn wait(&self, name: &str, stop: &CancellationToken) {
        let mut running = self.lock();
        while running.contains(name) && !stop.is_cancelled() {
            running = self.ended.wait_timeout(running, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.name);
        self.flights.ended.notify_all();
    }
}

/// How many steps may work at the same time, over all builds.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    /// Waits for a slot; none if the build is cancelled before.
    pub(crate) fn take(&self, stop: &CancellationToken) -> Option<Slot<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            if stop.is_cancelled() {
                return None;
            }
            free = self.freed.wait_timeout(free, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Some(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_leads_and_the_others_wait() {
        let (flights, stop) = (Flights::default(), CancellationToken::new());
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let Some(lead) = flights.lead("x") else {
                            flights.wait("x", &stop);
                            continue;
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lead);
                        break;
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn who_is_cancelled_waits_no_longer() {
        let (flights, slots, stop) = (Flights::default(), Slots::new(1), CancellationToken::new());
        let _lead = flights.lead("x").unwrap();
        let slot = slots.take(&stop).unwrap();
        stop.cancel();
        flights.wait("x", &stop);
        assert!(slots.take(&stop).is_none());
        drop(slot);
        assert!(slots.take(&stop).is_some());
    }
}
