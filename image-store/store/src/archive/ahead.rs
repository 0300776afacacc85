//! Layers are unpacked while the archive that holds them is still being read.
//!
//! ```text
//!  archive ──chunks──▶ blob (hash, write)
//!              └─────▶ [thread: decompress, unpack] ──▶ layer, by whatever diff-id it has
//! ```
//! What is a layer is guessed by its first bytes: the documents that say so come last in most archives. A wrong guess
//! costs time and nothing else: a failure is forgotten (the layer is unpacked again when an image names it, and fails with
//! that image), and a layer that no image takes is collected when the load ends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::thread::{Scope, ScopedJoinHandle};

use berth_oci::{DiffId, Digest};

use crate::compression::Compression;
use crate::error::{Result, StoreError};
use crate::pipe::{PipeWriter, pipe};
use crate::store::Store;

/// Where the magic of a tar stands (POSIX ustar, GNU).
const USTAR: std::ops::Range<usize> = 257..262;

/// Layers by the blobs that they were unpacked from.
pub(crate) type Unpacked = HashMap<Digest, DiffId>;

/// The threads that unpack.
pub(crate) struct Ahead<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    /// The oldest first.
    under_way: VecDeque<(Digest, Unpacking<'scope>)>,
    most: usize,
    done: Unpacked,
}

type Unpacking<'scope> = ScopedJoinHandle<'scope, Option<DiffId>>;

/// What one thread gets.
pub(crate) struct Feed<'scope> {
    to: PipeWriter,
    thread: Unpacking<'scope>,
}

impl<'scope, 'env> Ahead<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, store: &'env Store) -> Self {
        let most = std::thread::available_parallelism().map_or(2, usize::from);
        Self { scope, store, under_way: VecDeque::new(), most, done: Unpacked::new() }
    }

    /// Begins to unpack what starts with these bytes, if it may be a layer that the store lacks. `named` is the digest in
    /// the file's name, if there is one.
    pub(crate) fn begin(&mut self, named: Option<&Digest>, start: &[u8]) -> Result<Option<Feed<'scope>>> {
        let compressed = Compression::detect(start) != Compression::None;
        if !compressed && start.get(USTAR) != Some(b"ustar") {
            return Ok(None);
        }
        if let Some(named) = named {
            let here = match compressed {
                true => self.store.layers().of_blob(named)?.is_some(),
                false => self.store.layers().contains(&DiffId(named.clone())),
            };
            if here {
                return Ok(None);
            }
        }
        while self.under_way.len() >= self.most {
            self.wait_for_oldest();
        }
        let (to, from) = pipe();
        let store = self.store;
        let thread = self.scope.spawn(move || match store.layers().unpack(from, None) {
            Ok(layer) => Some(layer.diff_id),
            Err(error) => {
                tracing::debug!(%error, "not unpacked while the archive is read");
                None
            }
        });
        Ok(Some(Feed { to, thread }))
    }

    /// The file that was fed has become this blob.
    pub(crate) fn is_blob(&mut self, feed: Feed<'scope>, blob: Digest) {
        drop(feed.to);
        self.under_way.push_back((blob, feed.thread));
    }

    fn wait_for_oldest(&mut self) {
        if let Some((blob, thread)) = self.under_way.pop_front()
            && let Some(diff_id) = thread.join().expect("an unpacking thread does not panic")
        {
            self.done.insert(blob, diff_id);
        }
    }

    /// Waits for all.
    pub(crate) fn finish(mut self) -> Unpacked {
        while !self.under_way.is_empty() {
            self.wait_for_oldest();
        }
        self.done
    }
}

impl Feed<'_> {
    /// Hands bytes over; what a thread that has failed does not take is nobody's loss.
    pub(crate) fn send(&self, bytes: Vec<u8>) {
        self.to.send(bytes);
    }

    /// The file did not come to its end.
    pub(crate) fn give_up(self, why: &StoreError) {
        self.to.fail(io::Error::other(why.to_string()));
    }
}
