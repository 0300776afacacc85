use std::io::{Read, Write};

use berth_oci::Digest;
use berth_store::StoreError;

use crate::support::Fixture;

#[test]
fn blobs_are_verified_before_they_are_visible() {
    let f = Fixture::new();
    let content = f.store.content();
    let digest = Digest::of(b"hello");
    let mut ingest = content.ingest_for(&digest).unwrap();
    ingest.write_all(b"hullo").unwrap();
    assert!(!content.contains(&digest));
    let error = ingest.commit(None, None).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert!(!content.contains(&digest));
    let mut ingest = content.ingest_for(&digest).unwrap();
    assert_eq!(ingest.offset(), 0, "a damaged partial is not resumed");
    ingest.write_all(b"hello").unwrap();
    assert!(ingest.commit(Some(&digest), Some(4)).unwrap_err().to_string().contains("size"));
    assert_eq!(content.put(b"hello").unwrap(), digest);
    assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
    assert!(content.read(&digest, 4).is_err());
    assert!(matches!(content.open(&Digest::of(b"?")), Err(StoreError::NotFound { .. })));
    assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_partial_is_resumed_also_by_another_process() {
    let f = Fixture::new();
    let digest = Digest::of(b"one two three");
    let mut ingest = f.store.content().ingest_for(&digest).unwrap();
    ingest.write_all(b"one two").unwrap();
    drop(ingest);
    let f = f.reopen();
    let mut ingest = f.store.content().ingest_for(&digest).unwrap();
    assert_eq!(ingest.offset(), 7);
    let mut seen = String::new();
    ingest.written().unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "one two");
    ingest.restart().unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.write_all(b"one two three").unwrap();
    ingest.commit(None, Some(13)).unwrap();
    let complete = f.store.content().ingest_for(&digest).unwrap();
    assert_eq!(complete.offset(), 13, "nothing is left to fetch");
    assert_eq!(complete.commit(None, Some(13)).unwrap(), digest);
    let long = berth_oci::Hasher::new(berth_oci::Algorithm::Sha512).finish();
    f.store.content().ingest_for(&long).unwrap().commit(None, Some(0)).unwrap();
    assert!(f.store.content().contains(&long));
}

#[test]
fn a_second_process_is_told_so() {
    let f = Fixture::new();
    let error = berth_store::Store::open(f.root()).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}
