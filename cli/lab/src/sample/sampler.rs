//! The thread that samples.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::{Column, Counters, Samples};
use crate::error::{Error, Result};

/// Samples what it was told to watch, at a fixed rate, until it is dropped or finished.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<f64>>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Vec<Arc<Mutex<Track>>>>,
    done: AtomicBool,
}

#[derive(Debug)]
struct Track {
    counters: Counters,
    samples: Samples,
    origin: Instant,
    over: bool,
}

/// One container that is being sampled.
#[derive(Debug)]
pub struct Watch(Arc<Mutex<Track>>);

/// A panic of another thread leaves readings that are whole: each is pushed at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sampler {
    /// Starts sampling, so many times a second.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(rate: f64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let period = Duration::from_secs_f64(1.0 / rate);
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("sampler".to_owned()).spawn(move || shared.sample(period))
        };
        let thread = thread.map_err(Error::Thread)?;
        Ok(Self { shared, thread: Some(thread), began: Instant::now() })
    }

    /// Watches counters from now on; times count from `origin`. The first reading is taken at once.
    #[must_use]
    pub fn watch(&self, counters: Counters, origin: Instant) -> Watch {
        let mut track = Track { counters, samples: Samples::default(), origin, over: false };
        track.read(&mut Vec::new());
        let track = Arc::new(Mutex::new(track));
        lock(&self.shared.watched).push(Arc::clone(&track));
        Watch(track)
    }

    /// Ends sampling: the part of one processor it took, kernel time included.
    pub fn finish(mut self) -> f64 {
        let wall = self.began.elapsed().as_secs_f64();
        self.stop().map_or(0.0, |used| used / wall)
    }

    fn stop(&mut self) -> Option<f64> {
        self.shared.done.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// The thread: reads, sleeps until the next time is due. Gives the processor time it took, in seconds.
    fn sample(&self, period: Duration) -> f64 {
        let mut reading = Vec::with_capacity(32);
        let mut due = Instant::now();
        while !self.done.load(Ordering::Relaxed) {
            let watched: Vec<_> = lock(&self.watched).clone();
            for track in &watched {
                lock(track).read(&mut reading);
            }
            lock(&self.watched).retain(|track| !lock(track).over);
            due += period;
            let now = Instant::now();
            if due > now {
                std::thread::park_timeout(due - now);
            } else {
                // Too late for this one: do not hurry after what was missed.
                due = now;
            }
        }
        let used = getrusage(UsageWho::RUSAGE_THREAD).map(|usage| (usage.user_time(), usage.system_time()));
        used.map_or(0.0, |(user, system)| {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            seconds(user) + seconds(system)
        })
    }
}

impl Track {
    fn read(&mut self, reading: &mut Vec<(Column, f64)>) {
        if self.over {
            return;
        }
        let at = self.origin.elapsed().as_secs_f64();
        match self.counters.read(reading) {
            Ok(()) => self.samples.push(at, reading),
            // The group went with its container.
            Err(_) => self.over = true,
        }
    }
}

impl Watch {
    /// The last value of a column so far.
    #[must_use]
    pub fn now(&self, column: Column) -> Option<f64> {
        lock(&self.0).samples.column(column)?.last().copied()
    }

    /// Whether the container has gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        lock(&self.0).over
    }

    /// A reading beside the rhythm: the last before something happens.
    pub fn read_now(&self) {
        lock(&self.0).read(&mut Vec::new());
    }

    /// Forgets all but the last readings: for those who watch without an end.
    pub fn keep(&self, readings: usize) {
        lock(&self.0).samples.keep(readings);
    }

    /// The samples so far.
    #[must_use]
    pub fn samples(&self) -> Samples {
        lock(&self.0).samples.clone()
    }

    /// Ends watching and gives the samples.
    #[must_use]
    pub fn finish(self) -> Samples {
        let mut track = lock(&self.0);
        track.over = true;
        std::mem::take(&mut track.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_come_and_their_cost_is_known() {
        let sampler = Sampler::start(10.0).expect("a thread");
        let watch = sampler.watch(Counters::of_machine(), Instant::now());
        while watch.samples().at.len() < 3 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let samples = watch.finish();
        let busy = samples.column(Column::CpuNs).expect("a column");
        assert!(busy.windows(2).all(|pair| pair[0] <= pair[1]), "{busy:?}");
        assert!(samples.at.windows(2).all(|pair| pair[0] < pair[1]));
        let part = sampler.finish();
        assert!((0.0..1.0).contains(&part), "{part}");
    }
}
