use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use berth_oci::{DiffId, Digest};
use berth_store::{ChangeKind, StoreError};

use crate::support::{Fixture, Member, Tar, tree};

fn base(f: &Fixture) -> DiffId {
    let tar = Tar::default()
        .dir("etc/")
        .file("etc/a", "1")
        .file("etc/b", "2")
        .dir("gone/")
        .file("gone/x", "")
        .dir("o/")
        .file("o/old", "");
    f.layer(&tar.dir("link/").file("link/one", "same").add(Member::link(b'1', "link/two", "link/one")).end())
}

fn change(root: &std::path::Path) {
    fs::write(root.join("etc/a"), "changed").unwrap();
    fs::remove_file(root.join("etc/b")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/f"), "new").unwrap();
    fs::hard_link(root.join("new/f"), root.join("new/g")).unwrap();
    fs::remove_dir_all(root.join("o")).unwrap();
    fs::create_dir(root.join("o")).unwrap();
    fs::write(root.join("o/new"), "").unwrap();
    xattr::set(root.join("new/f"), "user.k", b"v").unwrap();
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o711)).unwrap();
}

#[test]
fn upper_becomes_a_layer_without_copying() {
    let f = Fixture::new();
    let base = base(&f);
    let snapshots = f.store.snapshots();
    let snapshot = snapshots.create("step", std::slice::from_ref(&base)).unwrap();
    assert!(matches!(snapshots.create("step", &[]), Err(StoreError::SnapshotExists(_))));
    let mount = snapshots.mount("step").unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
    change(&root);
    let want = tree(&root);
    let inode = fs::metadata(snapshot.upper.join("new/f")).unwrap().ino();
    let changes: Vec<_> = snapshots.changes("step").unwrap().into_iter().map(|c| (c.path, c.kind)).collect();
    use ChangeKind::{Added, Deleted, Modified};
    let expected = [
        ("/etc", Modified),
        ("/etc/a", Modified),
        ("/etc/b", Deleted),
        ("/gone", Deleted),
        ("/new", Added),
        ("/new/f", Added),
        ("/new/g", Added),
        ("/o", Modified),
        ("/o/new", Added),
        ("/o/old", Deleted),
    ];
    assert_eq!(changes, expected.map(|(p, k)| (p.to_owned(), k)));
    assert_eq!(snapshots.size("step").unwrap(), 10);
    drop(mount);

    let captured = snapshots.capture("step", &[]).unwrap();
    let layer = snapshots.commit("step", None).unwrap();
    assert!(snapshots.get("step").unwrap().is_none());
    for made in [&captured.diff_id, &layer.diff_id] {
        assert_eq!(f.merged(&[base.clone(), made.clone()]), want, "copied or moved, the result is the same");
    }
    let mut tar = Vec::new();
    std::io::copy(&mut f.store.layers().tar(&layer.diff_id).unwrap(), &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), layer.diff_id.0);
    assert_eq!(tar.len() as u64, layer.tar_size);
    // The same tar unpacks to the same tree, elsewhere.
    let other = Fixture::new();
    let again = other.layer(&tar);
    let mut trees = [tree(&other.store.layers().path(&again)), tree(&f.store.layers().path(&layer.diff_id))];
    // A whiteout has no time.
    trees
        .iter_mut()
        .for_each(|tree| tree.values_mut().filter(|l| l.contains(" dev 0")).for_each(String::clear));
    assert_eq!(trees[0], trees[1]);
    assert_eq!(f.leftovers(), [] as [PathBuf; 0]);

    let second = snapshots.create("move", &[]).unwrap();
    fs::write(second.upper.join("x"), "x").unwrap();
    let before = fs::metadata(second.upper.join("x")).unwrap().ino();
    let moved = snapshots.commit("move", None).unwrap();
    assert_eq!(fs::metadata(f.store.layers().path(&moved.diff_id).join("x")).unwrap().ino(), before);
    assert_ne!(before, inode);
}

#[test]
fn nothing_changed_is_the_empty_layer() {
    let f = Fixture::new();
    let base =
        f.layer(&Tar::default().add(Member { mode: 0o1777, owner: (3, 4), ..Member::dir("./") }).end());
    f.store.snapshots().create("a", std::slice::from_ref(&base)).unwrap();
    let layer = f.store.snapshots().commit("a", None).unwrap();
    // The digest of 1024 zeros, which every builder knows.
    assert_eq!(layer.diff_id.hex(), "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
    assert_eq!(layer.size, 0);
    assert_eq!(f.merged(&[base.clone(), layer.diff_id.clone()])["/"], "041777 3:4");
    // A changed root is a change.
    let s = f.store.snapshots().create("b", &[base.clone(), layer.diff_id]).unwrap();
    fs::set_permissions(&s.upper, fs::Permissions::from_mode(0o700)).unwrap();
    let layer = f.store.snapshots().commit("b", None).unwrap();
    assert_eq!(f.merged(&[base, layer.diff_id])["/"], "040700 3:4");
}

#[test]
fn a_layer_holds_changes_only() {
    let f = Fixture::new();
    let base = base(&f);
    let snapshots = f.store.snapshots();
    let snapshot = snapshots.create("step", std::slice::from_ref(&base)).unwrap();
    let mount = snapshots.mount("step").unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
    // Copied up, and as before.
    fs::set_permissions(root.join("etc/a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.join("etc/a"), fs::metadata(root.join("etc/b")).unwrap().permissions()).unwrap();
    // Removed and made again: one file by name, not all that was ever there.
    fs::remove_dir_all(root.join("o")).unwrap();
    fs::create_dir(root.join("o")).unwrap();
    fs::write(root.join("o/new"), "").unwrap();
    // A directory where a file was hides nothing.
    fs::remove_file(root.join("link/one")).unwrap();
    fs::create_dir(root.join("link/one")).unwrap();
    drop(mount);
    let time = berth_store::Retime { since: (1_700_000_000, 0), until: (i64::MAX, 0), to: 1_000_000 };
    let layer = snapshots.commit("step", Some(time)).unwrap();
    let made = f.store.layers().path(&layer.diff_id);
    let mut names: Vec<String> = tree(&made).into_keys().collect();
    names.retain(|name| name != "/");
    assert_eq!(names, ["/link", "/link/one", "/o", "/o/new", "/o/old"]);
    for name in ["o", "link/one"] {
        assert_eq!(xattr::get(made.join(name), "trusted.overlay.opaque").unwrap(), None);
    }
    assert_eq!(fs::metadata(made.join("o/new")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::metadata(made.join("o")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::metadata(snapshot.upper).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn scratch_and_read_only_mounts() {
    let f = Fixture::new();
    f.store.snapshots().create("scratch", &[]).unwrap();
    let mount = f.store.snapshots().mount("scratch").unwrap();
    fs::write(format!("/proc/self/fd/{}/f", mount.as_raw_fd()), "x").unwrap();
    drop(mount);
    let layer = f.store.snapshots().commit("scratch", None).unwrap().diff_id;
    for layers in [vec![], vec![layer.clone()], vec![base(&f), layer]] {
        let mount = f.store.snapshots().mount_ro(&layers).unwrap();
        let path = format!("/proc/self/fd/{}/new", mount.as_raw_fd());
        let error = fs::write(path, "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    for key in ["", "..", "a/b", ".x", "a b"] {
        assert!(f.store.snapshots().create(key, &[]).is_err(), "{key:?}");
    }
}

#[test]
fn an_exported_tree_imports_as_one_layer() {
    let f = Fixture::new();
    let base = base(&f);
    let s = f.store.snapshots().create("c", &[base]).unwrap();
    let mount = f.store.snapshots().mount("c").unwrap();
    change(&PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())));
    let want = tree(&PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())));
    assert!(s.upper.exists());
    let mut tar = Vec::new();
    f.store.export("c", &mut tar).unwrap();
    let reference = "imported:1".parse().unwrap();
    let config = berth_oci::ImageConfig::new(&berth_oci::Platform::host());
    let id = f.store.import(&tar[..], config, Some("from a test"), Some(&reference)).unwrap();
    let image = f.store.images().resolve("imported:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(f.merged(&image.layers), want);
    let config = f.store.images().config_of(&id).unwrap();
    assert_eq!((config.history.len(), config.comment.as_deref()), (1, Some("from a test")));
    // No copy of the archive is kept: the layer's tar comes from its tree.
    assert!(f.store.layers().blobs(&image.layers[0]).unwrap().is_empty());
    std::io::copy(&mut f.store.layers().tar(&image.layers[0]).unwrap(), &mut std::io::sink()).unwrap();
}
