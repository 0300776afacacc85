//! What Berth writes, `oci-spec` reads in the same sense.

use berth_oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, media_type};
use oci_spec::image;

#[test]
fn manifests_and_indexes_agree_with_oci_spec() {
    let mut layer = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(b"layer"), 5);
    layer.annotate("a", "b");
    let manifest = Manifest::oci(Descriptor::new(media_type::OCI_CONFIG, Digest::of(b"c"), 1), vec![layer]);
    let text = serde_json::to_string(&manifest).unwrap();
    let read: image::ImageManifest = serde_json::from_str(&text).unwrap();
    assert_eq!(read.layers()[0].digest().to_string(), Digest::of(b"layer").to_string());
    assert_eq!(*read.layers()[0].media_type(), image::MediaType::ImageLayerGzip);
    assert_eq!(serde_json::from_str::<Manifest>(&serde_json::to_string(&read).unwrap()).unwrap(), manifest);

    let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(text.as_bytes()), text.len() as u64);
    entry.platform = Some(Platform::parse("linux/arm/v7").unwrap());
    let index = Index::oci(vec![entry]);
    let read: image::ImageIndex = serde_json::from_str(&serde_json::to_string(&index).unwrap()).unwrap();
    let platform = read.manifests()[0].platform().as_ref().unwrap();
    assert_eq!((platform.os(), platform.variant().as_deref()), (&image::Os::Linux, Some("v7")));
}

#[test]
fn configs_agree_with_oci_spec() {
    let mut config = ImageConfig::new(&Platform::host());
    config.created = Some("2024-01-02T03:04:05.5Z".parse().unwrap());
    config.rootfs.diff_ids.push(DiffId(Digest::of(b"x")));
    config.runtime_mut().env.push("A=b".into());
    config.runtime_mut().working_dir = "/w".into();
    let read: image::ImageConfiguration = serde_json::from_slice(&config.to_bytes()).unwrap();
    assert_eq!(read.rootfs().diff_ids()[0], Digest::of(b"x").to_string());
    let runtime = read.config().as_ref().unwrap();
    assert_eq!(runtime.env().as_deref(), Some(&["A=b".to_owned()][..]));
    assert_eq!(runtime.working_dir().as_deref(), Some("/w"));
}
