//! Exit code 127 of a program that was there: its dynamic loader has missed a library, and said so in the program's own
//! output at best. Looked into only then.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_core::elf;
use berth_spec::oci;
use berth_sys::path::open_in_root;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The exit code of ld.so(8) and of a shell that does not find a program.
const NOT_FOUND: i32 = 127;
/// Where loaders look by themselves, glibc's and musl's, on the distributions there are.
const LIBRARIES: [&str; 11] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/glibc-compat/lib",
];

/// A root file system to look into. Its links are its own.
pub(crate) struct Root(OwnedFd);

impl Root {
    /// `None` if it is gone; then nothing can be said.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(Self)
    }

    fn file(&self, path: &Path) -> Option<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::from(open_in_root(self.0.as_fd(), path, flags, Mode::empty()).ok()?);
        file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
    }

    fn has(&self, path: &Path) -> bool {
        open_in_root(self.0.as_fd(), path, OFlag::O_PATH, Mode::empty()).is_ok()
    }
}

/// The libraries that a program which ended like this misses, in a sentence.
pub(crate) fn missing_libraries(root: &Root, process: &oci::Process, code: i32) -> Option<String> {
    if code != NOT_FOUND {
        return None;
    }
    let variable = |name: &str| {
        let mut entries = process.env().iter().flatten().rev();
        entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    };
    let name = process.args().as_ref()?.first()?;
    let program = match name.contains('/') {
        true => process.cwd().join(name),
        false => {
            let dirs = variable("PATH").unwrap_or("/usr/bin:/bin").split(':');
            dirs.map(|dir| Path::new(dir).join(name)).find(|path| root.has(path))?
        }
    };
    let elf = elf::read(root.file(&program)?)?;
    let origin = program.parent().unwrap_or(Path::new("/"));
    let own = elf.search.iter().map(String::as_str);
    let own = own.chain(variable("LD_LIBRARY_PATH").unwrap_or_default().split([':', ';']));
    let places: Vec<PathBuf> = own
        .filter(|place| !place.is_empty())
        .map(|place| PathBuf::from(place.replace("$ORIGIN", &origin.to_string_lossy())))
        .chain(LIBRARIES.map(PathBuf::from))
        .collect();
    let cache = loader_cache(root);
    let missing: Vec<&str> = elf
        .needed
        .iter()
        .map(String::as_str)
        .filter(|library| !library.contains('/'))
        .filter(|library| !places.iter().any(|place| root.has(&place.join(library))))
        .filter(|library| !contains(&cache, library.as_bytes()))
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "{} ended with 127: it needs {}, which is not in the container (install the package that has it, or build \
         the program statically)",
        program.display(),
        missing.join(", ")
    ))
}

/// Names of libraries in other places, as ldconfig(8) has found them.
fn loader_cache(root: &Root) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Some(file) = root.file(Path::new("/etc/ld.so.cache")) {
        // What cannot be read is not there.
        file.take(4 << 20).read_to_end(&mut bytes).ok();
    }
    bytes
}

fn contains(text: &[u8], name: &[u8]) -> bool {
    text.split(|b| *b == 0).any(|entry| entry == name || entry.ends_with(&[b"/", name].concat()))
}
