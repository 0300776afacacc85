use std::fs;

use berth_store::{CheckOptions, Compression};

use crate::support::{Fixture, Tar, tree};

const DEEP: CheckOptions = CheckOptions { deep: true, repair: false };
const REPAIR: CheckOptions = CheckOptions { deep: true, repair: true };

#[test]
fn a_start_clears_what_a_crash_left() {
    let f = Fixture::new();
    let layer = f.layer(&Tar::default().file("a", "").end());
    f.built("a", std::slice::from_ref(&layer), None);
    f.store.snapshots().create("alive", &[]).unwrap();
    for path in ["tmp/layer-x/tree", "trash/t/tree", "layers/0123", "snapshots/stray/upper"] {
        fs::create_dir_all(f.root().join(path)).unwrap();
    }
    fs::write(f.root().join("content/ingest/tmp-abc"), "x").unwrap();
    fs::write(f.root().join("content/ingest/sha256-00"), "kept for a resume").unwrap();
    let f = f.reopen();
    assert_eq!(f.leftovers(), [f.root().join("content/ingest/sha256-00")]);
    assert!(!f.root().join("layers/0123").exists() && !f.root().join("snapshots/stray").exists());
    assert_eq!(f.store.snapshots().list().unwrap(), ["alive"]);
    assert!(f.store.layers().path(&layer).exists());
}

#[test]
fn check_finds_damage_and_repair_mends_it() {
    let f = Fixture::new();
    let tar = Tar::default().dir("d/").file("d/a", "precious").end();
    let id = f.image(&[tar], Compression::Gzip);
    f.store.images().tag(&"x:1".parse().unwrap(), &id).unwrap();
    assert!(f.store.check(DEEP).unwrap().problems.is_empty());
    let layer = f.store.images().get(&id).unwrap().unwrap().layers[0].clone();
    let path = f.store.layers().path(&layer);
    let want = tree(&path);

    fs::write(path.join("d/a"), "changed!").unwrap();
    let problems = f.store.check(DEEP).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].what.contains("files were changed"), "{problems:?}");
    assert!(f.store.check(REPAIR).unwrap().problems[0].repaired);
    assert_eq!(tree(&path), want);

    fs::remove_dir_all(&path).unwrap();
    let problems = f.store.check(CheckOptions { deep: false, repair: true }).unwrap().problems;
    assert!(problems[0].repaired && problems[0].what.contains("missing"), "{problems:?}");
    assert!(f.store.check(DEEP).unwrap().problems.is_empty());

    let blob = f.store.layers().blobs(&layer).unwrap()[0].digest.clone();
    let blob = f.root().join("content/blobs/sha256").join(blob.hex());
    fs::write(&blob, "rubbish").unwrap();
    let problems = f.store.check(REPAIR).unwrap().problems;
    assert!(problems[0].what.contains("is damaged"), "{problems:?}");
    assert!(problems.last().unwrap().what.contains("are missing"), "{problems:?}");
    assert_eq!(tree(&path), want, "the tree is still good");
}

#[test]
fn trees_that_were_not_synced_before_a_power_cut_are_unpacked_again() {
    let f = Fixture::new();
    let id = f.image(&[Tar::default().file("a", "good").end()], Compression::Gzip);
    f.store.images().tag(&"pulled:1".parse().unwrap(), &id).unwrap();
    f.store.snapshots().create("s", &[]).unwrap();
    fs::write(f.store.snapshots().get("s").unwrap().unwrap().upper.join("n"), "built").unwrap();
    let local = f.store.snapshots().commit("s", None).unwrap().diff_id;
    let built = f.built("b", std::slice::from_ref(&local), None);
    f.store.images().tag(&"built:1".parse().unwrap(), &built).unwrap();
    let late = f.layer(&Tar::default().file("late", "").end());
    let pulled = f.store.images().get(&id).unwrap().unwrap().layers[0].clone();
    let path = f.store.layers().path(&pulled).join("a");
    fs::write(&path, "").unwrap();
    // As if all of it had been written in another boot. The tag of the built image synced what was there then.
    let db = rusqlite::Connection::open(f.root().join("store.db")).unwrap();
    db.execute("UPDATE layers SET boot = 'another', synced = (diff_id = ?1)", [local.as_str()]).unwrap();
    drop(db);
    let f = f.reopen();
    assert_eq!(fs::read(&path).unwrap(), b"good");
    assert!(f.store.layers().contains(&local) && !f.store.layers().contains(&late));
    assert!(f.store.check(DEEP).unwrap().problems.is_empty());
}

#[test]
fn an_image_that_was_not_named_before_a_power_cut_goes_with_its_layer() {
    let f = Fixture::new();
    let of_step = |key: &str, name: &str| {
        f.store.snapshots().create(key, &[]).unwrap();
        fs::write(f.store.snapshots().get(key).unwrap().unwrap().upper.join(name), "made here").unwrap();
        f.store.snapshots().commit(key, None).unwrap().diff_id
    };
    let named = f.built("named", &[of_step("one", "a")], None);
    f.store.images().tag(&"named:1".parse().unwrap(), &named).unwrap();
    let layer = of_step("two", "b");
    let unfinished = f.built("unfinished", std::slice::from_ref(&layer), None);
    // The database was written, the directory's new name was not.
    fs::remove_dir_all(f.store.layers().path(&layer)).unwrap();
    let db = rusqlite::Connection::open(f.root().join("store.db")).unwrap();
    db.execute("UPDATE layers SET boot = 'another'", []).unwrap();
    drop(db);
    let f = f.reopen();
    assert!(f.store.images().get(&unfinished).unwrap().is_none());
    assert!(f.store.images().get(&named).unwrap().is_some());
    assert!(f.store.check(DEEP).unwrap().problems.is_empty());
}

#[test]
fn blobs_that_were_lost_in_a_power_cut_are_no_blobs() {
    let f = Fixture::new();
    let id = f.image(&[Tar::default().file("a", "good").end()], Compression::Gzip);
    f.store.images().tag(&"pulled:1".parse().unwrap(), &id).unwrap();
    let content = f.store.content();
    let (lost, kept) = (content.put(b"renamed, never written").unwrap(), content.put(b"written").unwrap());
    fs::write(f.root().join("content/blobs/sha256").join(lost.hex()), "").unwrap();
    fs::write(f.root().join("content/ingest/sha256-00"), "zeroes").unwrap();
    // As if the last sync had been in another boot, before all that.
    fs::write(f.root().join("synced"), "another-boot 0").unwrap();
    let f = f.reopen();
    let content = f.store.content();
    assert!(!content.contains(&lost) && content.contains(&kept) && content.contains(&id));
    assert_eq!(
        f.leftovers(),
        [] as [std::path::PathBuf; 0],
        "a partial blob of which nobody knows how far it got"
    );
    assert!(f.store.check(DEEP).unwrap().problems.is_empty());
    // In the same boot nothing is read again.
    fs::write(f.root().join("content/blobs/sha256").join(kept.hex()), "").unwrap();
    assert!(f.reopen().store.content().contains(&kept));
}
