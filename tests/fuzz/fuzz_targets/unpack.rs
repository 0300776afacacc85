//! Any bytes as a layer, compressed or not: unpacked or refused, never a panic, and nothing half-made stays.
#![no_main]

use std::sync::OnceLock;

use berth_store::Store;
use libfuzzer_sys::fuzz_target;

static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let (directory, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(directory.path().join("store")).expect("a store");
        (directory, store)
    });
    let unpacked = store.layers().unpack(data, None);
    let left = std::fs::read_dir(store.root().join("tmp")).expect("tmp").count();
    assert_eq!(left, 0, "a half-made tree stays");
    let outside = std::fs::read_dir(directory.path()).expect("the directory around the store").count();
    assert_eq!(outside, 1, "an entry left its layer");
    if unpacked.is_ok() {
        store.gc().expect("the layer can be removed");
    }
    let kept = std::fs::read_dir(store.root().join("layers")).expect("layers").count();
    assert_eq!(kept, 2, "a layer that nothing refers to stays");
});
