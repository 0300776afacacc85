//! Any bytes as an image archive: loaded or refused, never a panic; the store proves itself afterwards and is empty again
//! when the images are removed.
#![no_main]

use std::sync::OnceLock;

use berth_store::{CheckOptions, Store};
use libfuzzer_sys::fuzz_target;

static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(directory.path().join("store")).expect("a store");
        (directory, store)
    });
    let loaded = store.load(data, &|_| {});
    if loaded.is_ok() {
        let report = store.check(CheckOptions { deep: true, repair: false }).expect("a check");
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let names: Vec<String> = store
            .images()
            .list(true)
            .expect("a list")
            .iter()
            .map(|image| image.id.to_string())
            .collect();
        let mut archive = Vec::new();
        store.save(&names, &mut archive).expect("what was loaded can be saved");
        for name in &names {
            store.images().remove(name, true, true).expect("what was loaded can be removed");
        }
        store.gc().expect("garbage is collected");
    }
    assert_eq!(store.counted(), 0, "something stays");
});
