#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = berth_store::Store::open(directory.path()).expect("a store");
    drop(store.layers().unpack(data, None));
    let left = std::fs::read_dir(directory.path().join("tmp")).expect("tmp").count();
    assert_eq!(left, 0, "a half-made tree stays");
});
