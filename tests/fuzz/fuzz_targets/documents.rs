//! Any bytes as a manifest, an index or an image's configuration: read or refused, never a panic, and what was read is
//! written so that it reads the same.
#![no_main]

use berth_oci::{Document, ImageConfig, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Document::parse(data, None) {
        Ok(Document::Index(index)) => {
            // Which one is chosen is nobody's concern here.
            drop(Platform::host().choose(&index.manifests).cloned());
            let again = serde_json::to_vec(&index).expect("an index is JSON");
            assert_eq!(Document::parse(&again, None).expect("as written"), Document::Index(index));
        }
        Ok(Document::Manifest(manifest)) => {
            let again = serde_json::to_vec(&manifest).expect("a manifest is JSON");
            assert_eq!(Document::parse(&again, None).expect("as written"), Document::Manifest(manifest));
        }
        Err(_) => {}
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let again = ImageConfig::parse(&config.to_bytes()).expect("as written");
        assert_eq!(again.diff_ids(), config.diff_ids());
    }
});
