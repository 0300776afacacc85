//! The kernel of the virtual machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::image::Image;
use super::{cache, output, sources};

const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// A distribution kernel, unpacked in the user's cache.
pub struct Kernel {
    /// The file that is booted.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// The one in the cache, or a fresh download.
    ///
    /// # Errors
    /// The package cannot be found, fetched or unpacked.
    pub fn obtain() -> Result<Self> {
        let cache = cache();
        let unpacked = cache.join("kernel");
        if !unpacked.join("boot").is_dir() {
            download(&cache, &unpacked)?;
        }
        let image = fs::read_dir(unpacked.join("boot"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
            .with_context(|| {
                format!("no kernel below {}; remove it to download again", unpacked.display())
            })?;
        let mut modules = BTreeMap::new();
        find_modules(&unpacked.join("lib/modules"), &mut modules)?;
        Ok(Self { image, modules })
    }

    /// The modules of `tests/vm/modules` and what they depend on, in loading order.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_modules(&self, image: &mut Image) -> Result<()> {
        let mut order = Vec::new();
        for name in fs::read_to_string(sources().join("modules"))?.lines() {
            self.add_module(name, &mut order)?;
        }
        let mut list = String::new();
        for name in &order {
            image.file(&format!("modules/{name}.ko"), 0o644, &self.modules[name])?;
            list += &format!("{name}.ko\n");
        }
        image.entry("modules/order", 0o100_644, list.as_bytes());
        Ok(())
    }

    fn add_module(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        let name = name.replace('-', "_");
        // What is not a file is built into the kernel.
        let Some(path) = self.modules.get(&name) else { return Ok(()) };
        if order.contains(&name) {
            return Ok(());
        }
        let bytes = fs::read(path)?;
        for needed in depends(&bytes) {
            self.add_module(&needed, order)?;
        }
        order.push(name);
        Ok(())
    }
}

/// `depends=a,b` of a module's .modinfo section.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let rest = &module[at + key.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if let Some(name) =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko").map(str::to_owned))
        {
            found.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn download(cache: &Path, unpacked: &Path) -> Result<()> {
    println!("# downloading {KERNEL_PACKAGE} into {}", cache.display());
    fs::create_dir_all(cache)?;
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|version| format!("linux-image-{version}"))
        .with_context(|| format!("{KERNEL_PACKAGE} is not in the package lists: run apt-get update"))?;
    let scratch = tempfile::Builder::new().prefix("download-").tempdir_in(cache)?;
    // Root downloads as itself: apt's own user cannot write here, which it would warn about.
    let sandbox = ["-o", "APT::Sandbox::User=root"];
    output(
        Command::new("apt-get").args(sandbox).args(["-q", "download", &package]).current_dir(scratch.path()),
    )?;
    let archive = fs::read_dir(scratch.path())?.next().context("apt-get downloaded nothing")??.path();
    let fresh = scratch.path().join("kernel");
    output(Command::new("dpkg").arg("-x").arg(&archive).arg(&fresh))?;
    fs::rename(&fresh, unpacked).context("move the kernel into the cache")?;
    Ok(())
}
