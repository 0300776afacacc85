use std::fs;

use berth_oci::{DiffId, Digest};

use crate::support::{Fixture, Member, Tar, run};

/// What it is, the archive, the entry that the message must name, and what it must say.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn names() -> Vec<Case> {
    vec![
        ("absolute", Tar::default().file("/etc/evil", "").end(), "/etc/evil", "absolute names"),
        ("dot-dot", Tar::default().file("../evil", "").end(), "../evil", ".."),
        ("dot-dot inside", Tar::default().file("a/../../evil", "").end(), "a/../../evil", ".."),
        ("whiteout of nothing", Tar::default().file("a/.wh.", "").end(), "a/.wh.", "whiteout"),
        ("whiteout of dot-dot", Tar::default().file("a/.wh...", "").end(), "a/.wh...", "whiteout"),
        ("root as a file", Tar::default().file(".", "").end(), ".", "root"),
        ("below a file", Tar::default().file("a", "").file("a/b", "").end(), "a/b", "not a directory"),
    ]
}

fn links() -> Vec<Case> {
    vec![
        (
            "relative escape",
            Tar::default().add(Member::link(b'2', "l", "../..")).file("l/evil", "").end(),
            "l/evil",
            "leads out",
        ),
        (
            "absolute escape",
            Tar::default().add(Member::link(b'2', "l", "/tmp")).file("l/evil", "").end(),
            "l/evil",
            "leads out",
        ),
        (
            "chained escape",
            Tar::default()
                .dir("d/")
                .add(Member::link(b'2', "d/up", ".."))
                .add(Member::link(b'2', "e", "d/up/.."))
                .file("e/evil", "")
                .end(),
            "e/evil",
            "leads out",
        ),
        (
            "link loop",
            Tar::default()
                .add(Member::link(b'2', "l", "m"))
                .add(Member::link(b'2', "m", "l"))
                .file("l/evil", "")
                .end(),
            "l/evil",
            "not a directory",
        ),
        (
            "whiteout through a link",
            Tar::default().add(Member::link(b'2', "l", "/etc")).file("l/.wh.passwd", "").end(),
            "l/.wh.passwd",
            "leads out",
        ),
        (
            "opaque through a link",
            Tar::default().add(Member::link(b'2', "l", "/etc")).file("l/.wh..wh..opq", "").end(),
            "l/.wh..wh..opq",
            "leads out",
        ),
        (
            "hard link outside",
            Tar::default().add(Member::link(b'1', "h", "../../etc/passwd")).end(),
            "h",
            "..",
        ),
        (
            "hard link to the host",
            Tar::default().add(Member::link(b'1', "h", "/etc/passwd")).end(),
            "h",
            "not in the layer",
        ),
        (
            "hard link through a link",
            Tar::default()
                .add(Member::link(b'2', "l", "/etc"))
                .add(Member::link(b'1', "h", "l/passwd"))
                .end(),
            "h",
            "leads out",
        ),
        (
            "hard link to a directory",
            Tar::default().dir("d/").add(Member::link(b'1', "h", "d")).end(),
            "h",
            "not in the layer",
        ),
    ]
}

fn duplicates() -> Vec<Case> {
    let link = |name, target| Member::link(b'2', name, target);
    let twice = "has this name twice";
    vec![
        ("file twice", Tar::default().file("x", "1").file("x", "2").end(), "x", twice),
        (
            "the same by another spelling",
            Tar::default().file("a/x", "1").file("./a//x", "2").end(),
            "a//x",
            twice,
        ),
        (
            "the same through a link",
            Tar::default().dir("d/").add(link("l", "d")).file("d/x", "1").file("l/x", "2").end(),
            "l/x",
            twice,
        ),
        ("link over a file", Tar::default().file("x", "").add(link("x", "/etc")).end(), "x", twice),
        ("file over a link", Tar::default().add(link("x", "/etc")).file("x", "").end(), "x", twice),
        ("directory over a file", Tar::default().file("x", "").dir("x/").end(), "x", twice),
        ("directory over a link", Tar::default().add(link("x", "/etc")).dir("x/").end(), "x", twice),
        ("file over a directory", Tar::default().dir("x/").file("x", "").end(), "x", twice),
        ("file over an unnamed directory", Tar::default().file("x/y", "").file("x", "").end(), "x", twice),
        (
            "hard link over another file",
            Tar::default().file("x", "").file("y", "").add(Member::link(b'1', "y", "x")).end(),
            "y",
            twice,
        ),
        (
            "device over a file",
            Tar::default()
                .file("x", "")
                .add(Member { kind: b'3', device: (1, 3), ..Member::file("x", b"") })
                .end(),
            "x",
            twice,
        ),
    ]
}

fn damage() -> Vec<Case> {
    [damaged_archives(), damaged_members()].concat()
}

fn damaged_archives() -> Vec<Case> {
    let mut cut = Tar::default().file("a", &"x".repeat(5000)).end();
    cut.truncate(3000);
    let mut damaged = Tar::default().file("first", "").file("second", "").end();
    damaged[512] ^= 1;
    let huge_pax = vec![b'1'; 2 << 20];
    vec![
        ("cut off", cut, "entry \"a\"", "too early"),
        ("damaged header", damaged, "after entry \"first\"", "checksum"),
        ("no archive", b"this is no tar archive at all".to_vec(), "before the first entry", "too early"),
        (
            "huge PAX header",
            Tar::default().add(Member { kind: b'x', ..Member::file("x", &huge_pax) }).end(),
            "before the first entry",
            "more than",
        ),
        (
            "huge long name",
            Tar::default().add(Member { kind: b'L', ..Member::file("x", &huge_pax) }).end(),
            "before the first entry",
            "more than",
        ),
    ]
}

fn damaged_members() -> Vec<Case> {
    let file = Member::file("a", b"");
    vec![
        (
            "PAX path escape",
            Tar::default().add(Member { pax: &[("path", b"../../evil")], ..file.clone() }).end(),
            "../../evil",
            "..",
        ),
        (
            "NUL in a name",
            Tar::default().add(Member { pax: &[("path", b"a\0b")], ..file.clone() }).end(),
            "entry \"a",
            "name",
        ),
        (
            "sparse beyond its end",
            Tar::default()
                .add(Member {
                    pax: &[("GNU.sparse.map", b"0,99"), ("GNU.sparse.size", b"9")],
                    ..Member::file("s", b"123")
                })
                .end(),
            "entry \"s",
            "sparse",
        ),
        (
            "sparse overlapping",
            Tar::default()
                .add(Member {
                    pax: &[("GNU.sparse.map", b"0,2,1,1"), ("GNU.sparse.size", b"9")],
                    ..Member::file("s", b"123")
                })
                .end(),
            "entry \"s",
            "sparse",
        ),
        (
            "owner too large",
            Tar::default().add(Member { pax: &[("uid", b"4294967295")], ..file.clone() }).end(),
            "entry \"a",
            "owner",
        ),
        (
            "deeper than a path can say",
            Tar::default()
                .file(&format!("{}x", "d/".repeat(40)), "")
                .add(Member {
                    pax: &[("path", [b"d/".repeat(1900), b"e".to_vec()].concat().as_slice())],
                    ..file.clone()
                })
                .add(Member { pax: &[("linkpath", &b"d/".repeat(1900))], ..Member::link(b'2', "l", "") })
                .add(Member {
                    pax: &[("path", [b"l/".to_vec(), b"d/".repeat(1900), b"e".to_vec()].concat().as_slice())],
                    ..file.clone()
                })
                .end(),
            "l/d/d/",
            "too long",
        ),
        (
            "unknown type",
            Tar::default().add(Member { kind: b'Z', ..file.clone() }).end(),
            "entry \"a",
            "unsupported",
        ),
        (
            "long component",
            Tar::default().add(Member { pax: &[("path", &[b'n'; 300])], ..file }).end(),
            "nnn",
            "too long",
        ),
    ]
}

#[test]
fn hostile_layers_are_refused_by_name_and_leave_nothing() {
    let f = Fixture::new();
    for (what, tar, entry, problem) in [names(), links(), duplicates(), damage()].concat() {
        let diff_id = DiffId(Digest::of(&tar));
        let error = match f.store.layers().unpack(&tar[..], Some(&diff_id)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{what} was accepted"),
        };
        assert!(error.contains(diff_id.as_str()), "{what}: the layer is not named: {error}");
        assert!(error.contains(entry) && error.contains(problem), "{what}: {error}");
        assert!(!f.store.layers().contains(&diff_id), "{what}");
        assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0], "{what}");
    }
    let layers: Vec<_> =
        fs::read_dir(f.root().join("layers")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(layers.len(), 2, "only the two empty directories: {layers:?}");
}

#[test]
fn what_is_not_what_it_was_said_to_be_is_refused() {
    let f = Fixture::new();
    let wrong = DiffId(Digest::of(b"something else"));
    let error = f.store.layers().unpack(&Tar::default().file("a", "").end()[..], Some(&wrong)).unwrap_err();
    assert!(error.to_string().contains("diff-id mismatch"), "{error}");
    let mut gzip = crate::support::compress(
        &Tar::default().file("a", &"x".repeat(9999)).end(),
        berth_store::Compression::Gzip,
    );
    gzip.truncate(gzip.len() - 4);
    let error = f.store.layers().unpack(&gzip[..], None).unwrap_err();
    assert!(error.to_string().contains("too early"), "{error}");
    assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn attributes_that_would_steer_the_kernel_are_dropped() {
    let f = Fixture::new();
    let pax: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let tar = Tar::default().add(Member { pax, ..Member::dir("d/") }).end();
    let path = f.store.layers().path(&f.layer(&tar)).join("d");
    let names: Vec<_> = xattr::list(&path).unwrap().collect();
    assert_eq!(names, ["user.kept"]);
}

#[test]
fn hostile_image_archives_are_refused() {
    let f = Fixture::new();
    let layer = Tar::default().file("/etc/evil", "").end();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#;
    let good = || Tar::default().file("c.json", &config).file("manifest.json", manifest);
    let wrong = format!("blobs/sha256/{}", "0".repeat(64));
    for (what, archive, problem) in [
        ("hostile layer", good().add(Member::file("l.tar", &layer)).end(), "/etc/evil"),
        ("missing layer", good().end(), "not in the archive"),
        ("link out", good().add(Member::link(b'2', "l.tar", "../../../etc/passwd")).end(), "leads out"),
        ("absolute link", good().add(Member::link(b'2', "l.tar", "/etc/passwd")).end(), "leads out"),
        ("dot-dot", good().file("../l.tar", "").end(), "unsafe name"),
        ("damaged blob", good().file(&wrong, "x").end(), "damaged"),
        ("bad json", Tar::default().file("manifest.json", "[{").end(), "malformed"),
        ("no image", Tar::default().file("readme", "").end(), "no image"),
        ("empty", Vec::new(), "no image"),
        (
            "layers do not match",
            Tar::default()
                .file("c.json", &config)
                .file("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#)
                .end(),
            "layers length mismatch: expected 1, got 0",
        ),
        (
            "bad name",
            Tar::default()
                .file("c.json", r#"{"rootfs":{"diff_ids":[]}}"#)
                .file("manifest.json", r#"[{"Config":"c.json","RepoTags":["../x"],"Layers":[]}]"#)
                .end(),
            "invalid reference",
        ),
    ] {
        let error = match f.store.load(&archive[..], &|_| {}) {
            Err(error) => error.to_string(),
            Ok(loaded) => panic!("{what} was accepted: {loaded:?}"),
        };
        assert!(error.contains(problem), "{what}: {error}");
        assert_eq!(f.leftovers(), [] as [std::path::PathBuf; 0], "{what}");
        assert_eq!(
            run("find", &[f.root().join("content/blobs").to_str().unwrap(), "-type", "f"]),
            "",
            "{what}"
        );
    }
    assert!(f.store.images().list(true).unwrap().is_empty());
}
