//! Contexts: names for engines and how to reach them.
//!
//! They lie where docker's command line keeps them and in its form, so that both know the same ones. Which of them is the
//! current one is Berth's own affair (decision 0156): `$XDG_CONFIG_HOME/berth/context` holds its name.
//!
//! ```text
//! ~/.docker/contexts/meta/<sha256 of the name>/meta.json
//! ~/.docker/contexts/tls/<the same>/docker/{ca,cert,key}.pem
//! ```

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_client::{Host, Trust};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::credentials;

/// The engine of this machine.
pub(crate) const DEFAULT: &str = "default";

/// The files of a context's TLS.
pub(crate) const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// A context, as it lies in `meta.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) endpoints: Endpoints,
}

/// What is said about a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
}

/// Where its engines are; there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    pub(crate) docker: Endpoint,
}

/// Where an engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
}

/// All contexts of this user.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    chosen: PathBuf,
}

impl Store {
    /// The user's.
    pub(crate) fn open() -> Result<Self> {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        let config = config.context("there is no home directory for contexts; set XDG_CONFIG_HOME")?;
        Ok(Self {
            root: credentials::directory()?.join("contexts"),
            chosen: config.join("berth").join("context"),
        })
    }

    /// Where a context's `meta.json` lies.
    pub(crate) fn meta_dir(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(id(name))
    }

    /// Where its TLS files lie, below `docker`.
    pub(crate) fn tls_dir(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(id(name))
    }

    /// The name of the current one.
    pub(crate) fn current(&self) -> Result<String> {
        match fs::read_to_string(&self.chosen) {
            Ok(name) => Ok(name.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(DEFAULT.to_owned()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.chosen.display())),
        }
    }

    /// Makes one the current one.
    pub(crate) fn choose(&self, name: &str) -> Result<()> {
        let failed = || format!("cannot write {}", self.chosen.display());
        if let Some(dir) = self.chosen.parent() {
            fs::create_dir_all(dir).with_context(failed)?;
        }
        fs::write(&self.chosen, format!("{name}\n")).with_context(failed)
    }

    /// The context of this name.
    pub(crate) fn load(&self, name: &str) -> Result<Meta> {
        let file = self.meta_dir(name).join("meta.json");
        match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{} is not understood", file.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("context {name:?} does not exist: `berth context ls` shows those that do")
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Result<Vec<Meta>> {
        let dir = self.root.join("meta");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let file = entry?.path().join("meta.json");
            let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let meta = serde_json::from_slice(&text);
            all.push(meta.with_context(|| format!("{} is not understood", file.display()))?);
        }
        all.sort_by(|one: &Meta, other: &Meta| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Keeps a context and, where they are given, its TLS files.
    pub(crate) fn save(&self, meta: &Meta, tls: &[(&str, Vec<u8>)]) -> Result<()> {
        write(&self.meta_dir(&meta.name), "meta.json", &serde_json::to_vec(meta)?)?;
        for (file, bytes) in tls {
            write(&self.tls_dir(&meta.name).join("docker"), file, bytes)?;
        }
        Ok(())
    }

    /// Forgets a context.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        for dir in [self.tls_dir(name), self.meta_dir(name)] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A TLS file of a context, if it has that one.
    pub(crate) fn tls_file(&self, name: &str, file: &str) -> Option<PathBuf> {
        Some(self.tls_dir(name).join("docker").join(file)).filter(|path| path.is_file())
    }

    /// How the engine of a context is reached.
    pub(crate) fn host(&self, name: &str) -> Result<Host> {
        let Endpoint { host, skip_tls_verify } = self.load(name)?.endpoints.docker;
        if skip_tls_verify {
            bail!(
                "context {name:?} trusts whoever answers (skip-tls-verify), and that is not done here: give it a ca"
            );
        }
        let host: Host = host.parse().with_context(|| format!("context {name:?}"))?;
        let [authority, certificate, key] = TLS_FILES.map(|file| self.tls_file(name, file));
        let trust = Trust { authority, certificate, key };
        Ok(if trust == Trust::default() { host } else { host.over_tls(trust) })
    }
}

/// Checks a name for a context to be.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    if name == DEFAULT {
        bail!("\"default\" is a reserved context name");
    }
    if !name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) || !name.bytes().all(fits) {
        bail!("context name {name:?} is invalid: letters and digits, and between them any of _ . + -");
    }
    Ok(())
}

fn id(name: &str) -> String {
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that may hold a key, in a directory of the user's own.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let open = || fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let written = made.and_then(|()| open()).and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_lie_where_docker_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { root: dir.path().join("contexts"), chosen: dir.path().join("own/context") };
        assert_eq!((store.current().unwrap().as_str(), store.all().unwrap().len()), (DEFAULT, 0));
        let text = r#"{"Name":"far","Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":false}}}"#;
        let meta: Meta = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
        store.save(&meta, &[("ca.pem", b"x".to_vec())]).unwrap();
        // What `docker context create far` makes.
        assert!(
            store
                .meta_dir("far")
                .ends_with("meta/512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868")
        );
        assert_eq!(store.load("far").unwrap(), meta);
        assert!(matches!(store.host("far").unwrap(), Host::Tls(address, _) if address == "h:1"));
        store.choose("far").unwrap();
        assert_eq!(store.current().unwrap(), "far");
        store.remove("far").unwrap();
        assert!(store.load("far").unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn names() {
        assert!(check_name("a.b+c_d-1").is_ok());
        for bad in ["default", "", "-a", "a b", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
