//! Other tools read the layout in place, and see what we see.

use std::collections::BTreeMap;

use berth_oci::Reference;
use berth_store::Compression;

use crate::support::{Fixture, Member, Tar, run, tree};

fn tricky() -> Vec<Vec<u8>> {
    let base = Tar::default()
        .dir("dir/")
        .file("dir/a", "1")
        .file("dir/b", "2")
        .dir("dir/sub/")
        .file("dir/sub/c", "3")
        .dir("opaque/")
        .file("opaque/old", "")
        .dir("becomes-file/")
        .file("becomes-file/x", "")
        .file("becomes-dir", "")
        .add(Member { mode: 0o700, owner: (1, 2), ..Member::dir("named/") })
        .dir("named/in/")
        .file("named/in/a", "")
        .file("link-source", "shared");
    let changes = Tar::default()
        .file("dir/.wh.a", "")
        .file("dir/.wh.sub", "")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "")
        .file("becomes-file", "now a file")
        .dir("becomes-dir/")
        .file("becomes-dir/y", "")
        .add(Member { mode: 0o600, owner: (7, 7), ..Member::dir("dir/") });
    let implicit = Tar::default().file("named/in/b", "no parents named").file("becomes-dir/deep/er/z", "");
    let back = Tar::default().file(".wh.becomes-file", "").dir("becomes-file/").file("becomes-file/new", "");
    vec![crate::unpack::everything(), base.end(), changes.end(), implicit.end(), back.end()]
}

/// umoci 0.4 sets times of directories before it writes into them, and of parents that it passes.
fn without_directory_times(tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let cut = |line: String| match line.starts_with("04") {
        true => line.split(' ').take(2).chain(line.split(' ').skip(3)).collect::<Vec<_>>().join(" "),
        false => line,
    };
    tree.into_iter().map(|(path, line)| (path, cut(line))).collect()
}

#[test]
fn umoci_unpacks_our_layout_to_the_same_tree() {
    let f = Fixture::new();
    let id = f.image(&tricky(), Compression::Gzip);
    f.store.images().tag(&Reference::parse("tricky:1").unwrap(), &id).unwrap();
    let bundle = f.dir.path().join("bundle");
    let image = format!("{}:docker.io/library/tricky:1", f.root().join("content").display());
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let theirs = without_directory_times(tree(&bundle.join("rootfs")));
    let ours = without_directory_times(f.merged(&f.store.images().get(&id).unwrap().unwrap().layers));
    for path in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(path), theirs.get(path), "{path}");
    }
}

#[test]
fn skopeo_reads_our_layout_in_place() {
    let f = Fixture::new();
    let id = f.image(&[Tar::default().file("a", "1").end()], Compression::Gzip);
    let other = f.image(&[Tar::default().file("b", "1").end()], Compression::Zstd);
    f.store.images().tag(&Reference::parse("one:1").unwrap(), &id).unwrap();
    f.store.images().tag(&Reference::parse("localhost:5000/two").unwrap(), &other).unwrap();
    let layout = f.root().join("content").display().to_string();
    let inspected = run("skopeo", &["inspect", "--raw", &format!("oci:{layout}:docker.io/library/one:1")]);
    assert!(inspected.contains(id.as_str()), "{inspected}");
    let target = f.dir.path().join("copy.tar").display().to_string();
    run(
        "skopeo",
        &[
            "copy",
            &format!("oci:{layout}:docker.io/library/one:1"),
            &format!("docker-archive:{target}:one:1"),
        ],
    );
    let g = Fixture::new();
    assert_eq!(g.store.load(std::fs::File::open(&target).unwrap(), &|_| {}).unwrap()[0].id, id);
    f.store.images().remove("one:1", false, true).unwrap();
    let index = std::fs::read_to_string(f.root().join("content/index.json")).unwrap();
    assert!(!index.contains("one:1") && index.contains("localhost:5000/two:latest"), "{index}");
}
