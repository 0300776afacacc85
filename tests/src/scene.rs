//! What the suites that interrupt the image store have in common: images to transfer, and chance.

use std::path::{Path, PathBuf};

use crate::cli::Cli;
use crate::registry::Registry;

/// Images in the registry.
pub const IMAGES: usize = 4;

/// xorshift64*: a sequence that a seed repeats.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number from 0 on below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }

    /// So many bytes that do not compress.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// A number from the environment.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Images of several layers in a registry (`crash:0` to `crash:3`) and in an archive (`loaded:0`, `loaded:1`).
#[derive(Debug)]
pub struct Scene {
    /// The registry.
    pub registry: Registry,
    /// The archive.
    pub archive: PathBuf,
}

impl Scene {
    /// Makes them with an engine that has busybox.
    ///
    /// # Panics
    /// If the engine refuses.
    #[must_use]
    pub fn prepare(cli: &Cli, dice: &mut Dice, scratch: &Path) -> Self {
        let registry = Registry::start();
        let context = scratch.join("context");
        std::fs::create_dir_all(&context).expect("a directory");
        let mut names = Vec::new();
        for image in 0..IMAGES {
            let mut file = "FROM busybox\n".to_owned();
            for layer in 0..3 {
                let name = format!("f{image}-{layer}");
                std::fs::write(context.join(&name), dice.bytes(400_000)).expect("a file");
                file += &format!("COPY {name} /data/{name}\n");
            }
            std::fs::write(context.join("Dockerfile"), file).expect("a Dockerfile");
            let name = registry.name(&format!("crash:{image}"));
            cli.ok(&["build", "-q", "-t", &name, &context.display().to_string()]);
            cli.ok(&["push", "-q", &name]);
            names.push(name);
        }
        let archive = scratch.join("images.tar");
        let local: Vec<String> = (0..2).map(|n| format!("loaded:{n}")).collect();
        for (from, to) in names.iter().zip(&local) {
            cli.ok(&["tag", from, to]);
        }
        let path = archive.display().to_string();
        cli.ok(&["save", "-o", &path, &local[0], &local[1]]);
        for name in names.iter().chain(&local) {
            cli.ok(&["rmi", name]);
        }
        Self { registry, archive }
    }
}
