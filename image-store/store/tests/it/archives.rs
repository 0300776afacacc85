use std::fs;

use berth_oci::{Descriptor, Digest, ImageId, Index, Platform, Reference, media_type};
use berth_store::{CheckOptions, Compression, LoadEvent};

use crate::support::{Fixture, Tar, compress, run};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A pulled image, and one built on top of it.
fn two_images(f: &Fixture) -> (Digest, Digest) {
    let pulled = f.image(
        &[crate::unpack::everything(), Tar::default().file("d/.wh.fifo", "").end()],
        Compression::Gzip,
    );
    let layers = f.store.images().get(&pulled).unwrap().unwrap().layers;
    let upper = f.store.snapshots().create("s", &layers).unwrap().upper;
    fs::write(upper.join("built"), "here").unwrap();
    let top = f.store.snapshots().commit("s", None).unwrap().diff_id;
    let built = f.built("built", &[layers, vec![top]].concat(), None);
    f.store.images().tag(&reference("pulled:1"), &pulled).unwrap();
    f.store.images().tag(&reference("built:1"), &built).unwrap();
    f.store.images().tag(&reference("built:2"), &built).unwrap();
    (pulled, built)
}

#[test]
fn save_and_load_round_trip() {
    let f = Fixture::new();
    let (pulled, built) = two_images(&f);
    let mut archive = Vec::new();
    f.store.save(&["pulled:1", "built"], &mut archive).unwrap();
    let mut again = Vec::new();
    f.store.save(&["pulled:1", "built"], &mut again).unwrap();
    assert_eq!(archive, again, "an archive depends on nothing but the images");
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let g = Fixture::new();
        let events = std::sync::Mutex::new(0);
        let loaded = g.store.load(&compress(&archive, compression)[..], &|event| {
            *events.lock().unwrap() += usize::from(matches!(event, LoadEvent::LayerDone { .. }));
        });
        let loaded = loaded.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(*events.lock().unwrap(), 3, "each layer once");
        let ids: Vec<_> = loaded.iter().map(|l| l.id.clone()).collect();
        assert_eq!(ids, [pulled.clone(), built.clone()], "ids stay");
        assert_eq!(loaded[1].references, [reference("built:1"), reference("built:2")]);
        for id in [&pulled, &built] {
            let here = f.store.images().get(id).unwrap().unwrap();
            let there = g.store.images().get(id).unwrap().unwrap();
            assert_eq!(f.merged(&here.layers), g.merged(&there.layers));
            if id == &pulled {
                assert_eq!(here.manifest, there.manifest, "what was pulled stays byte for byte");
            }
        }
        assert!(g.store.check(CheckOptions { deep: true, repair: false }).unwrap().problems.is_empty());
        assert_eq!(g.leftovers(), [] as [std::path::PathBuf; 0]);
        // The local layer is in its tree only.
        let image = g.store.images().get(&built).unwrap().unwrap();
        assert!(g.store.layers().blobs(&image.layers[2]).unwrap().is_empty());
        assert!(!g.store.content().contains(image.layers[2].digest()));
        let mut third = Vec::new();
        g.store.save(&["pulled:1", "built"], &mut third).unwrap();
        assert!(third == archive, "saved again, it is the same archive");
    }
}

#[test]
fn save_by_id_has_no_names() {
    let f = Fixture::new();
    let (pulled, _) = two_images(&f);
    let mut archive = Vec::new();
    f.store.save(&[pulled.short()], &mut archive).unwrap();
    let g = Fixture::new();
    let loaded = g.store.load(&archive[..], &|_| {}).unwrap();
    assert_eq!((loaded[0].id.clone(), loaded[0].references.len()), (pulled, 0));
    let error = f.store.save(&["nothing"], &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "No such image: nothing:latest");
}

#[test]
fn old_docker_archives_load() {
    // docker before 25: a directory per layer, a link for a layer that occurs twice, manifest.json at the end.
    let f = Fixture::new();
    let layer = Tar::default().file("a", "1").end();
    let diff_id = Digest::of(&layer);
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let archive = Tar::default()
        .dir("aaa/")
        .file("aaa/VERSION", "1.0")
        .file("aaa/json", "{}")
        .add(crate::support::Member::file("aaa/layer.tar", &layer))
        .add(crate::support::Member::link(b'2', "bbb/layer.tar", "../aaa/layer.tar"))
        .file(&name, &config)
        .file(
            "manifest.json",
            &format!(
                r#"[{{"Config":"{name}","RepoTags":["old:1"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}}]"#
            ),
        )
        .file("repositories", "{}")
        .end();
    let loaded = f.store.load(&archive[..], &|_| {}).unwrap();
    assert_eq!(loaded[0].references, [reference("old:1")]);
    assert_eq!(loaded[0].id, Digest::of(config.as_bytes()));
    assert!(f.merged(&f.store.images().get(&loaded[0].id).unwrap().unwrap().layers).contains_key("/a"));
}

#[test]
fn skopeo_reads_what_we_save_and_we_load_what_it_writes() {
    let f = Fixture::new();
    let (pulled, built) = two_images(&f);
    let at = |name: &str| f.dir.path().join(name).to_str().unwrap().to_owned();
    let ours = at("ours.tar");
    f.store.save(&["built:1"], fs::File::create(&ours).unwrap()).unwrap();
    let theirs = at("theirs.tar");
    run("skopeo", &["copy", &format!("docker-archive:{ours}"), &format!("docker-archive:{theirs}:again:1")]);
    let g = Fixture::new();
    let loaded = g.store.load(fs::File::open(&theirs).unwrap(), &|_| {}).unwrap();
    assert_eq!(
        (loaded[0].id.clone(), &loaded[0].references[..]),
        (built.clone(), &[reference("again:1")][..])
    );
    let tree_here = f.merged(&f.store.images().get(&built).unwrap().unwrap().layers);
    assert_eq!(g.merged(&g.store.images().get(&built).unwrap().unwrap().layers), tree_here);

    let archive = at("oci.tar");
    run("skopeo", &["copy", &format!("docker-archive:{ours}"), &format!("oci-archive:{archive}:name/x:7")]);
    let g = Fixture::new();
    let loaded = g.store.load(fs::File::open(&archive).unwrap(), &|_| {}).unwrap();
    assert_eq!(loaded[0].references, [reference("name/x:7")]);
    assert_eq!(g.merged(&g.store.images().resolve("name/x:7").unwrap().layers), tree_here);
    assert_ne!(pulled, built);
}

/// An index of the images for these platforms, remembered with each of them.
fn indexed(f: &Fixture, images: &[(&ImageId, &str)], absent: Option<&str>) -> Digest {
    let mut entries = Vec::new();
    for (id, platform) in images {
        let mut entry = f.store.images().get(id).unwrap().unwrap().manifest.unwrap();
        entry.platform = Some(platform.parse::<Platform>().unwrap());
        entries.push(entry);
    }
    if let Some(platform) = absent {
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(platform.as_bytes()), 100);
        entry.platform = Some(platform.parse::<Platform>().unwrap());
        entries.push(entry);
    }
    let bytes = serde_json::to_vec(&Index::oci(entries)).unwrap();
    let digest = f.store.content().put(&bytes).unwrap();
    let index = Descriptor::new(media_type::OCI_INDEX, digest.clone(), bytes.len() as u64);
    for (id, _) in images {
        f.store.images().add_index(id, &index).unwrap();
    }
    digest
}

#[test]
fn an_image_of_another_platform_keeps_its_manifest_and_its_index() {
    for whole in [true, false] {
        let f = Fixture::new();
        let here = f.image(&[Tar::default().file("a", "here").end()], Compression::Gzip);
        let there = f.image(&[Tar::default().file("a", "there").end()], Compression::Gzip);
        let (ours, theirs) = (Platform::host().to_string(), "linux/s390x");
        let index = match whole {
            true => indexed(&f, &[(&here, &ours), (&there, theirs)], None),
            false => indexed(&f, &[(&there, theirs)], Some(&ours)),
        };
        let manifest = f.store.images().get(&there).unwrap().unwrap().manifest;
        f.store.images().tag(&reference("there:1"), &there).unwrap();
        let mut archive = Vec::new();
        f.store.save(&["there:1"], &mut archive).unwrap();
        let g = Fixture::new();
        let loaded = g.store.load(&archive[..], &|_| {}).unwrap();
        assert_eq!(loaded[0].id, there);
        let image = g.store.images().get(&there).unwrap().unwrap();
        assert_eq!(image.manifest, manifest, "whole: {whole}");
        assert_eq!(g.store.images().index_of(&there).unwrap().map(|d| d.digest), Some(index), "{whole}");
        let mut again = Vec::new();
        g.store.save(&["there:1"], &mut again).unwrap();
        assert!(whole || again == archive, "saved again, it is the same archive");
        assert!(g.store.check(CheckOptions { deep: true, repair: false }).unwrap().problems.is_empty());
    }
}

#[test]
fn of_an_archive_the_platforms_that_are_named_are_loaded() {
    let f = Fixture::new();
    let theirs: Platform = "linux/s390x".parse().unwrap();
    let ours = Platform::host();
    let here = f.image(&[Tar::default().file("a", "here").end()], Compression::Gzip);
    let there = f.image_for(&theirs, &[Tar::default().file("a", "there").end()], Compression::Gzip);
    indexed(&f, &[(&here, &ours.to_string()), (&there, "linux/s390x")], None);
    f.store.images().tag(&reference("both:1"), &here).unwrap();
    let mut archive = Vec::new();
    f.store.save(&["both:1"], &mut archive).unwrap();
    for (platforms, expected) in [
        (vec![], vec![(&here, true)]),
        (vec![ours.clone()], vec![(&here, true)]),
        (vec![theirs.clone()], vec![(&there, true)]),
        (vec![theirs.clone(), ours.clone()], vec![(&here, true), (&there, false)]),
    ] {
        let g = Fixture::new();
        let loaded = g.store.load_platforms(&archive[..], &platforms, &|_| {}).unwrap();
        let loaded: Vec<_> = loaded.iter().map(|image| (&image.id, !image.references.is_empty())).collect();
        assert_eq!(loaded, expected, "{platforms:?}");
        assert_eq!(g.store.images().resolve("both:1").unwrap().id, *expected[0].0);
    }
    let g = Fixture::new();
    let other = ["linux/riscv64".parse().unwrap()];
    let error = g.store.load_platforms(&archive[..], &other, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the archive holds no image for linux/riscv64");
    assert!(g.store.images().list(true).unwrap().is_empty());
}
