use std::io::Write;
use std::time::Duration;

use berth_store::Compression;

use crate::support::{Fixture, Tar};

#[test]
fn gc_takes_only_what_nobody_refers_to() {
    let f = Fixture::new();
    let kept = f.image(&[Tar::default().file("kept", "1").end()], Compression::Gzip);
    let in_snapshot = f.layer(&Tar::default().file("snapshot", "2").end());
    f.store.snapshots().create("s", std::slice::from_ref(&in_snapshot)).unwrap();
    let loose = f.layer(&Tar::default().file("loose", "3").end());
    let blob = f.store.content().put(b"loose blob").unwrap();
    let reclaimed = f.store.gc().unwrap();
    assert_eq!((reclaimed.layers, reclaimed.blobs), (vec![loose], vec![blob]));
    assert_eq!(reclaimed.bytes, 11);
    assert!(f.store.layers().contains(&in_snapshot));
    assert!(
        f.store.check(berth_store::CheckOptions { deep: true, repair: false }).unwrap().problems.is_empty()
    );
    assert!(f.store.images().is_there(&kept));
    f.store.snapshots().remove("s").unwrap();
    assert_eq!(f.store.gc().unwrap().layers, [in_snapshot]);
}

trait IsThere {
    fn is_there(&self, id: &berth_oci::ImageId) -> bool;
}

impl IsThere for berth_store::Images {
    fn is_there(&self, id: &berth_oci::ImageId) -> bool {
        self.get(id).unwrap().is_some() && self.config_of(id).is_ok()
    }
}

#[test]
fn a_lease_protects_what_is_touched_under_it() {
    let f = Fixture::new();
    let before = f.store.content().put(b"before").unwrap();
    let unseen = f.store.content().put(b"unseen").unwrap();
    let lease = f.store.lease();
    assert!(f.store.content().contains(&before));
    let made = f.store.content().put(b"made").unwrap();
    let layer = f.layer(&Tar::default().file("l", "").end());
    assert_eq!(f.store.gc().unwrap().blobs, [unseen]);
    assert!(
        f.store.content().contains(&before)
            && f.store.content().contains(&made)
            && f.store.layers().contains(&layer)
    );
    drop(lease);
    let reclaimed = f.store.gc().unwrap();
    assert_eq!((reclaimed.blobs.len(), reclaimed.layers.len()), (2, 1));
}

#[test]
fn a_cancelled_pull_keeps_what_it_fetched() {
    let f = Fixture::new();
    let lease = f.store.lease();
    let fetched = f.store.content().put(b"fetched").unwrap();
    lease.linger(Duration::from_secs(3600)).unwrap();
    let f = f.reopen();
    assert!(f.store.gc().unwrap().blobs.is_empty());
    let lease = f.store.lease();
    assert!(f.store.content().contains(&fetched));
    lease.linger(Duration::ZERO).unwrap();
    assert_eq!(f.store.gc().unwrap().blobs, [fetched]);
    let mut ingest = f.store.content().ingest().unwrap();
    ingest.write_all(b"x").unwrap();
    drop(ingest);
    assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn what_became_an_image_is_kept_by_the_image_alone() {
    let f = Fixture::new();
    let tar = Tar::default().file("half", "1").end();
    let lease = f.store.lease();
    let layer = f.layer(&tar);
    lease.linger(Duration::from_secs(3600)).unwrap();
    assert!(f.store.gc().unwrap().layers.is_empty());
    // The next attempt succeeds.
    let image = f.image(&[tar], Compression::Gzip);
    f.store.images().remove(image.as_str(), false, false).unwrap();
    assert!(!f.store.layers().contains(&layer), "its removal frees what it was made of");
}
