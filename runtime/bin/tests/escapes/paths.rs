//! Links in the image and in shared volumes that lead out.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::Case;
use crate::swap::Swap;

const ROUNDS: usize = 80;

/// A container with a volume at /vol, which another container writes to, and more mounts below /vol/place. There,
/// `place` is a directory or a link to `outside` on the host, turn by turn.
struct Shared {
    case: Case,
    outside: std::path::PathBuf,
    volume: std::path::PathBuf,
}

impl Shared {
    fn new(script: &str) -> Self {
        let mut case = Case::script(script);
        let (outside, volume) = (case.path().join("outside"), case.path().join("volume"));
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("sub/marker"), "outside").unwrap();
        fs::create_dir_all(volume.join("place/sub")).unwrap();
        let up = "../../../../../../../../../../..";
        symlink(format!("{up}{}", outside.display()), volume.join("link")).unwrap();
        let bind = json!({ "destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"] });
        case.push("/mounts", bind);
        Self { case, outside, volume }
    }

    fn swap(&self) -> Swap {
        Swap::start(&self.volume.join("place"), &self.volume.join("link"))
    }
}

/// CVE-2021-30465: what is mounted at /vol/place/sub lands on a directory of the host, and is then the source of what the
/// container gets to see.
#[test]
fn a_swapped_mount_point_stays_inside() {
    let mut shared = Shared::new("cat /vol/place/sub/marker /again/marker 2>/dev/null; true");
    let tmpfs = json!({ "destination": "/vol/place/sub", "type": "tmpfs", "source": "x", "options": [] });
    shared.case.push("/mounts", tmpfs);
    let again =
        json!({ "destination": "/vol/place", "type": "bind", "source": shared.volume, "options": ["rbind"] });
    shared.case.push("/mounts", again);
    let swap = shared.swap();
    let mut ran = 0;
    for _ in 0..ROUNDS {
        let said = shared.case.run();
        assert!(!said.out.contains("outside"), "{said:?}");
        ran += usize::from(said.code == 0);
    }
    drop(swap);
    assert!(ran > 0, "no container ran at all");
}

/// A mount may bind what lies in the container's root; a link of the image, or of a volume that was mounted before, leads
/// to nothing outside of it.
#[test]
fn a_source_in_the_root_stays_inside() {
    let mut shared = Shared::new("cat /again/marker 2>/dev/null; true");
    symlink(&shared.outside, shared.case.rootfs().join("image")).unwrap();
    let bind = |source: &str| {
        let source = shared.case.rootfs().join(source);
        json!({ "destination": "/again", "type": "bind", "source": source, "options": ["rbind"] })
    };
    let (image, volume) = (bind("image/sub"), bind("vol/place/sub"));
    for (source, rounds) in [(image, 1), (volume, ROUNDS)] {
        shared.case.push("/mounts", source);
        let swap = shared.swap();
        for _ in 0..rounds {
            let said = shared.case.run();
            assert!(!said.out.contains("outside"), "{said:?}");
        }
        drop(swap);
        shared.case.config["mounts"].as_array_mut().unwrap().pop();
    }
}

/// CVE-2024-45310, CVE-2019-18837: the places of mounts are made where the link leads.
#[test]
fn nothing_is_made_on_the_host() {
    let mut shared = Shared::new("true");
    let file = shared.case.path().join("file");
    fs::write(&file, "").unwrap();
    for (name, source) in [("made/deep", None), ("made-file", Some(&file))] {
        let destination = format!("/vol/place/{name}");
        shared.case.push(
            "/mounts",
            match source {
                None => json!({ "destination": destination, "type": "tmpfs", "source": "x", "options": [] }),
                Some(file) => {
                    json!({ "destination": destination, "type": "bind", "source": file, "options": ["bind"] })
                }
            },
        );
    }
    shared.case.config["linux"]["devices"] =
        json!([{ "path": "/vol/place/made-node", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
    shared.case.config["process"]["cwd"] = json!("/vol/place/made-cwd");
    let swap = shared.swap();
    for _ in 0..ROUNDS {
        shared.case.run();
    }
    drop(swap);
    let names = |path| {
        let entries = fs::read_dir(path).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(&shared.outside), ["sub"]);
    assert_eq!(names(&shared.outside.join("sub")), ["marker"]);
}

/// CVE-2025-24965: crun's krun handler writes a file into the image, through a link of the image.
#[test]
fn no_handler_writes_into_the_image() {
    let mut case = Case::new(&["/bin/true"]);
    let host = case.path().join("host");
    fs::write(&host, "untouched").unwrap();
    symlink(&host, case.rootfs().join(".krun_config.json")).unwrap();
    case.config["annotations"] = json!({ "run.oci.handler": "krun" });
    case.run();
    assert_eq!(fs::read_to_string(&host).unwrap(), "untouched");
}
