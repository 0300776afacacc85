//! Any text as an image's name, a digest or a platform: printing and reading agree.
#![no_main]

use berth_oci::{Digest, Platform, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).expect("as printed"), reference);
        assert_eq!(Reference::parse(&reference.familiar()).expect("as shown"), reference);
    }
    if let Ok(name) = Reference::parse_name(text) {
        assert_eq!(Reference::parse_name(&name.to_string()).expect("as printed"), name);
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(Platform::parse(&platform.to_string()).expect("as printed"), platform);
    }
});
