use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use berth_oci::{DiffId, Digest};
use berth_store::Compression;

use crate::support::{Fixture, Member, Tar, compress, tree};

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Every form that a member can take.
pub(crate) fn everything() -> Vec<u8> {
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(200));
    Tar::default()
        .add(Member { mode: 0o1751, owner: (7, 8), ..Member::dir("./") })
        .add(Member {
            mode: 0o2750,
            owner: (1000, 1000),
            pax: &[("mtime", b"1500000000.123456789")],
            ..Member::dir("d/")
        })
        .add(Member { mode: 0o4755, owner: (0, 42), ..Member::file("d/suid", b"#!") })
        .add(Member {
            owner: (0, 0),
            pax: &[("uid", b"3000000"), ("gid", b"4294967294")],
            ..Member::file("d/big-owner", b"x")
        })
        .add(Member {
            pax: &[("SCHILY.xattr.security.capability", CAPABILITY), ("SCHILY.xattr.user.a", b"1\n2=3")],
            ..Member::file("d/capable", b"x")
        })
        .add(Member {
            mode: 0o664,
            pax: &[("SCHILY.xattr.system.posix_acl_access", &acl())],
            ..Member::file("d/shared", b"x")
        })
        .add(Member { pax: &[("mtime", b"-1.5")], ..Member::file("d/before-1970", b"") })
        .add(Member { pax: &[("path", long.as_bytes())], ..Member::file("short", b"long name") })
        .add(Member { mtime: 77, owner: (5, 6), ..Member::link(b'2', "d/symlink", "../../outside") })
        .add(Member::link(b'2', "d/absolute", "/etc/passwd"))
        .add(Member::link(b'1', "d/hard", "d/suid"))
        .add(Member::link(b'1', "d/hard2", "./d/suid"))
        .add(Member::link(b'1', "d/hard-symlink", "d/symlink"))
        .add(Member { kind: b'3', mode: 0o640, device: (1, 3), ..Member::file("d/null", b"") })
        .add(Member { kind: b'4', device: (7, 300), ..Member::file("d/block", b"") })
        .add(Member { kind: b'6', mode: 0o600, ..Member::file("d/fifo", b"") })
        .add(Member {
            pax: &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"d/sparse"),
                ("GNU.sparse.realsize", b"1000000"),
            ],
            ..Member::file("GNUSparseFile.0/sparse", &sparse_1_0())
        })
        .add(Member {
            pax: &[
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.map", b"10,3,100,2"),
                ("GNU.sparse.size", b"200"),
            ],
            ..Member::file("d/sparse01", b"abcde")
        })
        .end()
}

/// Format 0.0 repeats its keys, which umoci (as Go) does not take.
fn sparse_0_0() -> Vec<u8> {
    let pax: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"100"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"10"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"90"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    Tar::default().add(Member { pax, ..Member::file("sparse00", b"abcde") }).end()
}

/// `user::rw- user:1:rwx group::r-- mask::rw- other::r--` in the kernel's form (version 2).
pub(crate) fn acl() -> Vec<u8> {
    let entries = [(1, 6, u32::MAX), (2, 7, 1), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec()].into_iter().chain(entries.map(entry)).flatten().collect()
}

fn sparse_1_0() -> Vec<u8> {
    let mut data = b"2\n4096\n5\n999990\n10\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"first0123456789");
    data
}

#[test]
fn every_form_is_unpacked() {
    let f = Fixture::new();
    let diff_id = f.layer(&everything());
    let root = f.store.layers().path(&diff_id);
    let found = tree(&root);
    let line = |path: &str| found.get(path).unwrap_or_else(|| panic!("{path} is missing")).as_str();
    assert_eq!(line("/"), "041751 7:8");
    assert_eq!(line("/d"), "042750 1000:1000 1500000000.123456789");
    assert!(line("/d/suid").starts_with("104755 0:42 1600000000.000000000"));
    assert!(line("/d/big-owner").contains(" 3000000:4294967294 "));
    assert!(line("/d/capable").contains("security.capability=[1, 0, 0, 2, 0, 4"));
    assert!(line("/d/capable").contains("user.a=[49, 10, 50, 61, 51]"));
    assert!(line("/d/before-1970").contains(" -2.500000000"));
    assert_eq!(line("/d/symlink"), "120777 5:6 77.000000000 -> ../../outside links /d/hard-symlink");
    assert!(line("/d/hard2").ends_with("links /d/hard"));
    assert!(line("/d/null").starts_with("020640") && line("/d/null").contains("dev 103"));
    assert!(line("/d/block").starts_with("060644"));
    assert!(line("/d/fifo").starts_with("010600"));
    let sparse = fs::read(root.join("d/sparse")).unwrap();
    assert_eq!(
        (sparse.len(), &sparse[4096..4101], &sparse[999_990..]),
        (1_000_000, &b"first"[..], &b"0123456789"[..])
    );
    assert!(fs::metadata(root.join("d/sparse")).unwrap().blocks() < 64, "holes stay holes");
    let sparse = fs::read(root.join("d/sparse01")).unwrap();
    assert_eq!((sparse.len(), &sparse[10..13], &sparse[100..102]), (200, &b"abc"[..], &b"de"[..]));
    let old = f.layer(&sparse_0_0());
    let sparse = fs::read(f.store.layers().path(&old).join("sparse00")).unwrap();
    assert_eq!((sparse.len(), &sparse[10..13], &sparse[90..92]), (100, &b"abc"[..], &b"de"[..]));
    assert!(line("/d/shared").starts_with("100664") && line("/d/shared").contains("posix_acl_access="));
    let contiguous = f.layer(&Tar::default().add(Member { kind: b'7', ..Member::file("c", b"c") }).end());
    assert_eq!(fs::read(f.store.layers().path(&contiguous).join("c")).unwrap(), b"c");
    let long = format!("/deep/{}/{}", "d".repeat(120), "f".repeat(200));
    assert!(line(&long).ends_with(Digest::of(b"long name").short()));
}

#[test]
fn gnu_tar_archives_are_understood() {
    let f = Fixture::new();
    let source = f.dir.path().join("source");
    fs::create_dir_all(source.join("x".repeat(90)).join("y".repeat(90))).unwrap();
    fs::write(source.join("x".repeat(90)).join("y".repeat(90)).join("z"), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(150), source.join("longlink")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    for i in 0..40 {
        sparse.write_all_at(b"data", i * 100_000).unwrap();
    }
    sparse.set_len(5_000_000).unwrap();
    let want = tree(&source);
    for format in ["gnu", "posix", "oldgnu"] {
        let tar = f.dir.path().join("a.tar");
        crate::support::run(
            "tar",
            &["--format", format, "-S", "-C", source.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."],
        );
        let diff_id = f.layer(&fs::read(&tar).unwrap());
        let mut got = tree(&f.store.layers().path(&diff_id));
        if format != "posix" {
            // Only PAX has parts of a second.
            let cut = |line: &String| {
                line.split_once('.').map(|(a, b)| format!("{a}{}", &b[9..])).unwrap_or(line.clone())
            };
            got.values_mut().for_each(|line| *line = cut(line));
            let want: std::collections::BTreeMap<_, _> =
                want.iter().map(|(k, v)| (k.clone(), cut(v))).collect();
            assert_eq!(got, want, "{format}");
        } else {
            assert_eq!(got, want, "{format}");
        }
    }
}

#[test]
fn whiteouts_are_overlay_native() {
    let f = Fixture::new();
    let tar = Tar::default()
        .dir("a/")
        .file("a/.wh.gone", "")
        .file("a/.wh..wh..opq", "")
        .file("a/kept", "x")
        .file("b/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        .file(".wh.c", "")
        .dir("c/")
        .file("c/new", "y")
        .file("d", "in this layer")
        .file(".wh.d", "")
        .end();
    let root = f.store.layers().path(&f.layer(&tar));
    let gone = fs::symlink_metadata(root.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque =
        |path: &str| xattr::get(root.join(path), "trusted.overlay.opaque").unwrap() == Some(b"y".to_vec());
    assert!(opaque("a") && opaque("b") && opaque("c") && !opaque("."));
    assert_eq!(fs::read(root.join("d")).unwrap(), b"in this layer");
    assert!(!root.join(".wh..wh.plnk").exists());
}

#[test]
fn merged_layers_hide_and_show() {
    let f = Fixture::new();
    let below = f.layer(
        &Tar::default()
            .dir("a/")
            .file("a/1", "")
            .file("a/2", "")
            .dir("f/")
            .file("f/x", "")
            .file("g", "")
            .end(),
    );
    let above =
        f.layer(&Tar::default().file("a/.wh.1", "").file("f", "now a file").dir("g/").file("g/y", "").end());
    let merged = f.merged(&[below.clone(), above.clone()]);
    let paths: Vec<_> = merged.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/", "/a", "/a/2", "/f", "/g", "/g/y"]);
    // A layer may occur twice; often the empty one does.
    let again = f.merged(&[below.clone(), above, below]);
    assert!(again.contains_key("/a/1"));
}

#[test]
fn what_may_be_said_twice() {
    let f = Fixture::new();
    let tar = Tar::default()
        .dir("e/")
        .file("e/in", "kept")
        .add(Member { mode: 0o700, ..Member::dir("e/") })
        .dir("implicit/deep/")
        .add(Member { mode: 0o711, ..Member::dir("implicit/") })
        .file("h", "h")
        .add(Member::link(b'1', "h", "h"))
        .file(".wh.w", "")
        .file(".wh.w", "")
        .end();
    let root = f.store.layers().path(&f.layer(&tar));
    assert_eq!(fs::metadata(root.join("e")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read(root.join("e/in")).unwrap(), b"kept");
    assert_eq!(fs::metadata(root.join("implicit")).unwrap().mode() & 0o777, 0o711);
    assert_eq!(fs::read(root.join("h")).unwrap(), b"h");
}

#[test]
fn fields_that_a_writer_left_empty_are_zero() {
    let f = Fixture::new();
    let mut tar = Tar::default().file("a", "1").add(Member { kind: b'3', ..Member::file("dev", b"") }).0;
    for (at, filler) in [(0, 0), (1024, b' ')] {
        // Owner, group and time; of the device also its numbers.
        for field in [108..124, 136..148, 329..345] {
            tar[at + field.start..at + field.end].fill(filler);
        }
        let header: &mut [u8] = &mut tar[at..at + 512];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar.resize(tar.len() + 1024, 0);
    let found = tree(&f.store.layers().path(&f.layer(&tar)));
    assert!(found["/a"].starts_with("100644 0:0 0.000000000 "), "{}", found["/a"]);
    assert_eq!(found["/dev"], "020644 0:0 0.000000000 dev 0");
}

#[test]
fn owners_beyond_octal_are_understood_in_every_form() {
    let f = Fixture::new();
    let mut gnu = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_mtime(1);
    header.set_uid(3_000_000_000);
    header.set_gid(2_097_152);
    gnu.append_data(&mut header, "base256", std::io::empty()).unwrap();
    let found = tree(&f.store.layers().path(&f.layer(&gnu.into_inner().unwrap())));
    assert!(found["/base256"].contains(" 3000000000:2097152 "), "{}", found["/base256"]);
}

#[test]
fn directories_that_a_layer_does_not_name_do_not_hide_the_real_ones() {
    let f = Fixture::new();
    let below = Tar::default()
        .add(Member { mode: 0o1777, owner: (9, 9), ..Member::dir("./") })
        .add(Member { mode: 0o700, owner: (5, 6), mtime: 12345, ..Member::dir("usr/") })
        .add(Member { mode: 0o2755, owner: (5, 7), ..Member::dir("usr/bin/") });
    let below = f.layer(&below.file("usr/bin/a", "").end());
    let above = f.layer(&Tar::default().file("usr/bin/b", "").file("new/c", "").end());
    let merged = f.merged(&[below, above]);
    assert_eq!(merged["/"], "041777 9:9");
    assert_eq!(merged["/usr"], "040700 5:6 12345.000000000");
    assert!(merged["/usr/bin"].starts_with("042755 5:7 "));
    assert!(merged["/new"].starts_with("040755 0:0 0."));
}

#[test]
fn nothing_is_inherited_from_the_directory() {
    let pax: &[(&str, &[u8])] = &[("SCHILY.xattr.system.posix_acl_default", &acl())];
    let f = Fixture::new();
    let tar = Tar::default()
        .add(Member { mode: 0o2755, owner: (0, 77), pax, ..Member::dir("d/") })
        .file("d/f", "")
        .file("d/implicit/f", "")
        .add(Member::link(b'2', "d/l", "x"))
        .dir("d/sub/");
    let found = tree(&f.store.layers().path(&f.layer(&tar.end())));
    assert!(found["/d"].contains("system.posix_acl_default"), "{}", found["/d"]);
    for path in ["/d/f", "/d/implicit", "/d/implicit/f", "/d/l", "/d/sub"] {
        assert!(found[path].contains(" 0:0 ") && !found[path].contains("acl"), "{path} {}", found[path]);
    }
    assert!(found["/d/sub"].starts_with("040755") && found["/d/implicit"].starts_with("040755"));
}

#[test]
fn links_within_the_layer_are_followed_to_find_a_directory() {
    let f = Fixture::new();
    let tar = Tar::default()
        .dir("usr/")
        .dir("usr/lib/")
        .add(Member::link(b'2', "lib", "usr/lib"))
        .file("lib/x", "1")
        .dir("run/")
        .dir("var/")
        .add(Member::link(b'2', "var/run", "/run"))
        .file("var/run/y", "2")
        .end();
    let root = f.store.layers().path(&f.layer(&tar));
    assert_eq!(fs::read(root.join("usr/lib/x")).unwrap(), b"1");
    assert_eq!(fs::read(root.join("run/y")).unwrap(), b"2");
    assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_symlink());
}

#[test]
fn compressions_are_told_by_their_bytes() {
    let f = Fixture::new();
    for (n, compression) in [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().enumerate()
    {
        let tar = Tar::default().file("n", &n.to_string()).end();
        let info = f
            .store
            .layers()
            .unpack(&compress(&tar, compression)[..], Some(&DiffId(Digest::of(&tar))))
            .unwrap();
        assert_eq!((info.size, info.tar_size), (1, tar.len() as u64));
    }
    let two = [Tar::default().file("a", "1").0, Tar::default().file("b", "2").end()];
    let members = two.iter().flat_map(|part| compress(part, Compression::Gzip)).collect::<Vec<_>>();
    let info = f.store.layers().unpack(&members[..], None).unwrap();
    assert!(f.store.layers().path(&info.diff_id).join("b").exists(), "gzip of several members");
}

#[test]
fn one_layer_is_unpacked_once() {
    let f = Fixture::new();
    let tar = Tar::default().file("a", &"x".repeat(1 << 20)).end();
    let diff_id = DiffId(Digest::of(&tar));
    let existed: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| f.store.layers().unpack(&tar[..], Some(&diff_id)).unwrap().existed))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(existed.iter().filter(|existed| !**existed).count(), 1);
    assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0]);
}
