#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = berth_store::Store::open(directory.path()).expect("a store");
    drop(store.load(data, &|_| {}));
    let report = store.check(berth_store::CheckOptions { deep: true, repair: false }).expect("a check");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
});
