//! A child that sends anything to its parent: the parent gives up or is content, and neither panics nor hangs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: Vec<(Vec<u8>, bool)>| berth_core::fuzzing::serve(&messages));
