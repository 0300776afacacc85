#![no_main]
use berth_oci::{Document, ImageConfig, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Document::Index(index)) = Document::parse(data, None) {
        Platform::host().choose(&index.manifests);
    }
    if let Ok(config) = ImageConfig::parse(data) {
        ImageConfig::parse(&config.to_bytes()).expect("what was read can be written and read again");
    }
});
