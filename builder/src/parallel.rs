//! Work on many items by all processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::fault::Fault;

/// Does the same with every item; the results come in the items' order. Each thread has a state of its own, and there
/// are no more threads than there are `shares` of items.
pub(crate) fn map<T: Sync, S, R: Send>(
    items: &[T],
    share: usize,
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, &T) -> Result<R, Fault> + Sync,
) -> Result<Vec<R>, Fault> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(items.len() / share.max(1));
    if threads < 2 {
        let mut state = state();
        return items.iter().map(|item| each(&mut state, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, R)>, Fault> {
        let (mut state, mut done) = (state(), Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(done) };
            done.push((index, each(&mut state, item)?));
        }
    };
    let mut all = Vec::with_capacity(items.len());
    thread::scope(|scope| -> Result<(), Fault> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(())
    })?;
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_an_error_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled = map(&items, 1, || (), |(), n| Ok(n * 2)).unwrap();
        assert!(doubled.iter().enumerate().all(|(i, n)| *n == i * 2));
        let odd = map(&items, 1, || (), |(), n| if *n == 701 { Err(Fault::said("odd")) } else { Ok(()) });
        assert!(odd.is_err());
        assert!(map(&items[..0], 1, || (), |(), n| Ok(*n)).unwrap().is_empty());
    }
}
