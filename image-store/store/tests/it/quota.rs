//! The cap of the store: counted exactly, never passed.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_oci::Reference;
use berth_store::{Compression, StoreError};

use crate::support::{Fixture, Tar};

/// What counts, found by looking: blobs and files of layers.
fn on_disk(f: &Fixture) -> u64 {
    let of = |place: &str| file_bytes(&f.root().join(place), &mut HashSet::new());
    of("layers") + of("content/blobs") + of("content/ingest")
}

/// Bytes of all files below a directory, each inode once.
fn file_bytes(directory: &Path, seen: &mut HashSet<u64>) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            bytes += file_bytes(&entry.path(), seen);
        } else if metadata.is_file() && seen.insert(metadata.ino()) {
            bytes += metadata.len();
        }
    }
    bytes
}

#[test]
fn what_counts_is_what_is_there() {
    let f = Fixture::new();
    let one = f.image(&[Tar::default().file("a", &"x".repeat(10_000)).end()], Compression::Gzip);
    f.store.images().tag(&Reference::parse("one:1").unwrap(), &one).unwrap();
    assert_eq!(f.store.counted(), on_disk(&f));
    f.store.layers().unpack(&b"no tar"[..], None).unwrap_err();
    f.store.layers().unpack(&Tar::default().file("a", "1").file("../b", "2").end()[..], None).unwrap_err();
    assert_eq!(f.store.counted(), on_disk(&f), "what failed does not count");
    let layer = f.layer(&Tar::default().file("b", "twice").end());
    f.layer(&Tar::default().file("b", "twice").end());
    f.store.snapshots().create("s", &[layer]).unwrap();
    let upper = f.store.snapshots().get("s").unwrap().unwrap().upper;
    std::fs::write(upper.join("new"), "content").unwrap();
    f.store.snapshots().capture("s", &[]).unwrap();
    std::fs::write(upper.join("more"), "content").unwrap();
    f.store.snapshots().commit("s", None).unwrap();
    assert_eq!(f.store.counted(), on_disk(&f));
    let f = f.reopen();
    assert_eq!(f.store.counted(), on_disk(&f));
    f.store.images().remove("one:1", false, true).unwrap();
    f.store.gc().unwrap();
    assert_eq!((f.store.counted(), on_disk(&f)), (0, 0));
}

#[test]
fn the_cap_is_never_passed() {
    let f = Fixture::new();
    let asked = Arc::new(AtomicU64::new(0));
    let (store, count) = (f.store.clone(), Arc::clone(&asked));
    f.store.limit(100_000, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        for image in store.images().list(true).unwrap() {
            store.images().remove(image.id.as_str(), true, true).unwrap();
        }
    });
    let tar = |n: u8| Tar::default().file(&format!("f{n}"), &format!("{n}").repeat(30_000)).end();
    for n in 0..9 {
        let id = f.image(&[tar(n)], Compression::None);
        f.store.images().tag(&Reference::parse(&format!("image:{n}")).unwrap(), &id).unwrap();
        assert!(on_disk(&f) <= 100_000, "{} bytes", on_disk(&f));
        assert_eq!(f.store.counted(), on_disk(&f));
    }
    assert!(asked.load(Ordering::SeqCst) > 2, "older images made room for newer ones");
    let error = f
        .store
        .layers()
        .unpack(&Tar::default().file("big", &"x".repeat(200_000)).end()[..], None)
        .unwrap_err();
    assert!(error.to_string().contains("cap of 100000 bytes"), "{error}");
    let error = f.store.content().put(&[7; 200_000]).unwrap_err();
    assert!(
        matches!(error, StoreError::Io { .. }) && error.to_string().contains("cap of 100000 bytes"),
        "{error}"
    );
    assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0]);
}
