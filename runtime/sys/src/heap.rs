//! The memory of a program that has one thread.
//!
//! An allocator for any number of threads locks at each request. A locked instruction waits for all writes before it, and in a
//! program that starts cold those go to memory that is in no cache yet: 0.1 µs each, two thousand times in a `run`.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use dlmalloc::Dlmalloc;

/// To be the `#[global_allocator]` of a program that starts no thread: a second one that asks for memory ends the program.
/// (A child of clone(2) that has memory of its own is the thread that it was.)
pub struct OneThread {
    heap: UnsafeCell<Dlmalloc>,
    /// The thread, by an address that no other has; 0 before it asks for the first time.
    owner: AtomicUsize,
}

// SAFETY: the heap is touched only by `with`, and by one thread only, which is checked there.
unsafe impl Sync for OneThread {}

impl OneThread {
    /// With nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: UnsafeCell::new(Dlmalloc::new()), owner: AtomicUsize::new(0) }
    }

    /// The heap, for as long as `request` takes; that asks for no memory itself.
    fn with<T>(&self, request: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        thread_local!(static HERE: u8 = const { 0 });
        let here = HERE.with(|place| std::ptr::from_ref(place).addr());
        match self.owner.load(Ordering::Relaxed) {
            owner if owner == here => {}
            // Of two that come here at once for the first time, one goes on.
            _ if self.owner.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed).is_ok() => {}
            _ => std::process::abort(),
        }
        // SAFETY: this thread is the only one that gets here, and dlmalloc calls nothing that gets here again.
        request(unsafe { &mut *self.heap.get() })
    }
}

impl Default for OneThread {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: what dlmalloc promises of its functions is what is asked here; none of them unwinds.
unsafe impl GlobalAlloc for OneThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size above 0; a Layout has a valid alignment.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that the block came from here with this layout.
        self.with(|heap| unsafe { heap.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the block came from here with this layout, and a size above 0.
        self.with(|heap| unsafe { heap.realloc(block, layout.size(), layout.align(), size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_given_grown_and_taken_back() {
        let heap = OneThread::new();
        let layout = |size| Layout::from_size_align(size, 64).unwrap();
        // SAFETY: the size is above 0.
        let block = unsafe { heap.alloc_zeroed(layout(100)) };
        assert_eq!(block.addr() % 64, 0);
        // SAFETY: it has that size, and was filled with zeros.
        let bytes = unsafe { std::slice::from_raw_parts_mut(block, 100) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes.fill(7);
        // SAFETY: the block has that layout; the new size is above 0.
        let larger = unsafe { heap.realloc(block, layout(100), 100_000) };
        // SAFETY: it has the smaller size as well, and what was there is there.
        assert!(unsafe { std::slice::from_raw_parts(larger, 100) }.iter().all(|byte| *byte == 7));
        // SAFETY: the block has that layout, and nobody looks at it any more.
        unsafe { heap.dealloc(larger, layout(100_000)) };
    }

    #[test]
    fn another_thread_ends_the_program() {
        let test = "heap::tests::helper_of_two_threads";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGABRT), "{status}");
    }

    #[test]
    #[ignore = "it ends its process; the test above runs it"]
    fn helper_of_two_threads() {
        static HEAP: OneThread = OneThread::new();
        let ask = || {
            // SAFETY: the size is above 0; the block is never touched.
            unsafe { HEAP.alloc(Layout::new::<u64>()) };
        };
        ask();
        std::thread::spawn(ask).join().unwrap();
    }
}
