//! Documents with random damage: parsing says yes or no, and never panics.

use berth_oci::{Digest, Document, ImageConfig, Platform, Reference};
use proptest::prelude::*;

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"annotations":{"a":"b"}},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":18446744073709551615,"urls":["https://x/"]}],"subject":null}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"platform":{"architecture":"arm64","os":"linux","variant":"v8","os.features":["x"]}}]}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["A=b"],"Cmd":["sh"],"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},"Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created":"2024-01-01T00:00:00Z","empty_layer":true}]}"#;

/// Some bytes replaced, some taken out, some put in.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
    prop::collection::vec(change, 1..8).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..(at + usize::from(byte) % 9).min(bytes.len()))),
                _ => bytes.insert(at, byte),
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn manifests(bytes in prop_oneof![damaged(MANIFEST), damaged(INDEX)]) {
        if let Ok(Document::Index(index)) = Document::parse(&bytes, None) {
            // Choosing looks at everything in it.
            Platform::host().choose(&index.manifests);
        }
    }

    #[test]
    fn configurations(bytes in damaged(CONFIG)) {
        if let Ok(config) = ImageConfig::parse(&bytes) {
            let again = ImageConfig::parse(&config.to_bytes());
            prop_assert!(again.is_ok(), "what was read can be written and read again");
        }
    }

    #[test]
    fn references(text in "\\PC{0,80}|[a-zA-Z0-9./:@_-]{0,300}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
            prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
        drop(Digest::parse(&text));
        drop(Platform::parse(&text));
    }
}
