//! Archives with random damage: whatever the bytes, nothing panics, nothing lands outside, nothing stays behind.

use std::io::Cursor;

use berth_store::Compression;
use proptest::prelude::*;

use crate::support::{Fixture, Tar, compress};
use crate::unpack::everything;

/// A change of an archive: where, what, and whether the header's checksum is made right again.
#[derive(Clone, Debug)]
struct Damage {
    at: prop::sample::Index,
    byte: u8,
    mended: bool,
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let one = (any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    prop::collection::vec(one.prop_map(|(at, byte, mended)| Damage { at, byte, mended }), 1..12)
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let at = damage.at.index(bytes.len());
        bytes[at] = damage.byte;
        let block = at / 512 * 512;
        if let Some(header) = bytes.get_mut(block..block + 512).filter(|_| damage.mended) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

/// A small docker-archive of one layer.
fn archive() -> Vec<u8> {
    let layer = Tar::default().dir("d/").file("d/f", "content").end();
    let diff_id = berth_oci::Digest::of(&layer);
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#;
    let layer = crate::support::Member::file("l.tar", &layer);
    Tar::default().file("c.json", &config).file("manifest.json", manifest).add(layer).end()
}

/// All names in the directory around the store.
fn around(f: &Fixture) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(f.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_layers_do_no_harm(damages in damages()) {
        let f = Fixture::new();
        let before = around(&f);
        // Refused or not: both are right, depending on what was hit.
        drop(f.store.layers().unpack(&damaged(everything(), &damages)[..], None));
        prop_assert_eq!(f.leftovers(), Vec::<std::path::PathBuf>::new());
        prop_assert_eq!(around(&f), before);
    }

    #[test]
    fn damaged_compressed_layers_do_no_harm(damages in damages(), zstd in any::<bool>()) {
        let f = Fixture::new();
        let compression = if zstd { Compression::Zstd } else { Compression::Gzip };
        let bytes = damaged(compress(&everything(), compression), &damages);
        drop(f.store.layers().unpack(Cursor::new(bytes), None));
        prop_assert_eq!(f.leftovers(), Vec::<std::path::PathBuf>::new());
    }

    #[test]
    fn damaged_archives_do_no_harm(damages in damages()) {
        let f = Fixture::new();
        if f.store.load(&damaged(archive(), &damages)[..], &|_| {}).is_err() {
            prop_assert!(f.store.images().list(true).unwrap().is_empty());
        }
        prop_assert_eq!(f.leftovers(), Vec::<std::path::PathBuf>::new());
        let report = f.store.check(berth_store::CheckOptions { deep: true, repair: false }).unwrap();
        prop_assert_eq!(report.problems, Vec::new());
    }
}
