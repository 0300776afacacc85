use berth_oci::{Digest, History, ImageConfig, Platform, Reference};
use berth_store::{Compression, NewImage, Removed, StoreError};

use crate::support::{Fixture, Tar};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_name_finds_its_image() {
    let f = Fixture::new();
    let images = f.store.images();
    let a = f.built("a", &[], None);
    let b = f.built("b", &[], None);
    images.tag(&reference("busybox"), &a).unwrap();
    images.tag(&reference("localhost:5000/x/y:1"), &a).unwrap();
    let manifest = Digest::of(b"manifest");
    images.add_repo_digest(&reference("busybox:latest"), &manifest, &a).unwrap();
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "localhost:5000/x/y:1",
        a.as_str(),
        a.hex(),
        a.short(),
        &a.as_str()[..20],
        &format!("busybox@{manifest}"),
        &format!("busybox:any@{manifest}"),
    ] {
        assert_eq!(images.resolve(name).unwrap_or_else(|e| panic!("{name}: {e}")).id, a, "{name}");
    }
    for (name, message) in [
        ("nothing", "No such image: nothing:latest"),
        ("nothing:x", "No such image: nothing:x"),
        ("docker.io/library/nothing", "No such image: nothing:latest"),
        ("BAD", "invalid reference format: repository name (library/BAD) must be lowercase"),
    ] {
        assert_eq!(images.resolve(name).unwrap_err().to_string(), message);
    }
    // A tag moves.
    assert_eq!(images.tag(&reference("busybox"), &b).unwrap(), Some(a.clone()));
    assert_eq!(images.tag(&reference("busybox"), &b).unwrap(), None);
    assert_eq!(images.resolve("busybox").unwrap().id, b);
    assert_eq!(images.get(&a).unwrap().unwrap().repo_digests.len(), 1);
    assert!(matches!(images.tag(&reference("x"), &Digest::of(b"?")), Err(StoreError::NoSuchImage(_))));
}

#[test]
fn an_ambiguous_prefix_is_an_error() {
    let f = Fixture::new();
    let ids: Vec<_> = (0..40).map(|n| f.built(&n.to_string(), &[], None)).collect();
    let first = |id: &Digest| id.hex()[..1].to_owned();
    let twice = ids.iter().map(first).find(|c| ids.iter().filter(|id| first(id) == *c).count() > 1).unwrap();
    assert!(matches!(f.store.images().resolve(&twice), Err(StoreError::AmbiguousId(_))));
}

#[test]
fn an_image_needs_its_layers() {
    let f = Fixture::new();
    let mut config = ImageConfig::new(&Platform::host());
    config.rootfs.diff_ids.push(berth_oci::DiffId(Digest::of(b"missing")));
    let image = NewImage { config: config.to_bytes(), ..NewImage::default() };
    assert!(matches!(f.store.images().put(image), Err(StoreError::NotFound { kind: "layer", .. })));
    let image = NewImage { config: b"{".to_vec(), ..NewImage::default() };
    assert!(matches!(f.store.images().put(image), Err(StoreError::Json { .. })));
}

#[test]
fn rmi_untags_or_deletes_as_docker_does() {
    let f = Fixture::new();
    let images = f.store.images();
    let layer = f.layer(&Tar::default().file("a", "1").end());
    let id = f.built("a", std::slice::from_ref(&layer), None);
    images.tag(&reference("one"), &id).unwrap();
    images.tag(&reference("one:v2"), &id).unwrap();
    images.tag(&reference("two"), &id).unwrap();
    images.add_repo_digest(&reference("one"), &Digest::of(b"m"), &id).unwrap();
    assert_eq!(images.removal_deletes("one", false).unwrap(), None);
    assert_eq!(images.remove("one", false, true).unwrap(), [Removed::Untagged("one:latest".into())]);
    let error = images.remove(id.short(), false, true).unwrap_err();
    let message = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        id.short()
    );
    assert_eq!(error.to_string(), message);
    // The last tag of a repository takes its digests along.
    let gone = format!("one@{}", Digest::of(b"m"));
    assert_eq!(
        images.remove("one:v2", false, true).unwrap(),
        [Removed::Untagged("one:v2".into()), Removed::Untagged(gone)]
    );
    assert_eq!(images.removal_deletes("two", false).unwrap(), Some((id.clone(), true)));
    let path = f.store.layers().path(&layer);
    assert!(path.exists());
    assert_eq!(
        images.remove("two", false, true).unwrap(),
        [Removed::Untagged("two:latest".into()), Removed::Deleted(id.clone())]
    );
    assert!(!path.exists() && !f.store.content().contains(&id), "rmi frees the disk at once");
    assert!(
        matches!(images.remove("two", true, true), Err(StoreError::NoSuchImage(name)) if name == "two:latest")
    );
}

#[test]
fn parents_and_children() {
    let f = Fixture::new();
    let images = f.store.images();
    let base = f.built("base", &[], None);
    images.tag(&reference("base"), &base).unwrap();
    let step = f.built("step", &[], Some(&base));
    let top = f.built("top", &[], Some(&step));
    images.tag(&reference("top"), &top).unwrap();
    let shown: Vec<_> = images.list(false).unwrap().into_iter().map(|image| image.id).collect();
    assert!(shown.contains(&base) && shown.contains(&top) && !shown.contains(&step));
    assert_eq!(images.list(true).unwrap().len(), 3);
    assert!(matches!(images.remove(base.hex(), true, true), Err(StoreError::HasChildren { .. })));
    assert_eq!(images.remove("base", false, true).unwrap(), [Removed::Untagged("base:latest".into())]);
    let removed = images.remove("top", false, true).unwrap();
    assert_eq!(
        removed,
        [
            Removed::Untagged("top:latest".into()),
            Removed::Deleted(top),
            Removed::Deleted(step),
            Removed::Deleted(base)
        ]
    );
}

#[test]
fn history_joins_steps_and_layers() {
    let f = Fixture::new();
    let layer = f.layer(&Tar::default().file("a", "12345").end());
    let mut config = ImageConfig::new(&Platform::host());
    let step =
        |by: &str, empty| History { created_by: Some(by.into()), empty_layer: empty, ..History::default() };
    config.history = vec![step("COPY", false)];
    config.rootfs.diff_ids = vec![layer];
    let put = |config: &ImageConfig, parent| {
        f.store.images().put(NewImage { config: config.to_bytes(), manifest: None, parent }).unwrap()
    };
    let below = put(&config, None);
    config.history.push(step("CMD", true));
    let id = put(&config, Some(below.clone()));
    f.store.images().tag(&reference("h"), &id).unwrap();
    let history = f.store.images().history(&id).unwrap();
    let seen: Vec<_> = history
        .iter()
        .map(|h| (h.id.clone(), h.history.created_by.as_deref(), h.size, h.tags.len()))
        .collect();
    assert_eq!(seen, [(Some(id), Some("CMD"), 0, 1), (Some(below), Some("COPY"), 5, 0)]);
}

#[test]
fn a_push_manifest_keeps_pulled_blobs_and_makes_local_ones_once() {
    let f = Fixture::new();
    let pulled = f.image(&[Tar::default().file("a", "1").end()], Compression::Zstd);
    let manifest = f.store.images().get(&pulled).unwrap().unwrap().manifest.unwrap();
    assert_eq!(f.store.images().manifest(&pulled, Compression::Gzip).unwrap(), manifest);

    let layer = f.layer(&Tar::default().file("b", "2").end());
    f.store.snapshots().create("s", std::slice::from_ref(&layer)).unwrap();
    std::fs::write(f.store.snapshots().get("s").unwrap().unwrap().upper.join("n"), "n").unwrap();
    let top = f.store.snapshots().commit("s", None).unwrap().diff_id;
    let built = f.built("b", std::slice::from_ref(&top), None);
    let first = f.store.images().manifest(&built, Compression::Gzip).unwrap();
    assert_eq!(f.store.images().manifest(&built, Compression::Gzip).unwrap(), first);
    let blob = f.store.layers().compressed(&top, Compression::Gzip).unwrap();
    assert_eq!(f.store.layers().blobs(&top).unwrap(), std::slice::from_ref(&blob));
    let mut tar = Vec::new();
    let file = f.store.content().open(&blob.digest).unwrap();
    std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), top.0);
    // A layer without blob whose tree is not canonical cannot be pushed, and says so.
    assert!(matches!(
        f.store.layers().compressed(&layer, Compression::Gzip),
        Err(StoreError::NotFound { .. })
    ));
}
