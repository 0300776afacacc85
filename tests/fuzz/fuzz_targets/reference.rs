#![no_main]
use berth_oci::{Digest, Platform, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).expect("as printed"), reference);
    }
    drop(Digest::parse(text));
    drop(Platform::parse(text));
});
