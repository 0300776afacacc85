//! The flags of `berth build` that are lists of `key=value`, as buildx has them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use berth_api::build::{LocalCache, LocalContext, LocalOutput};

/// Descriptors to hand over; each is named by its place.
#[derive(Debug, Default)]
pub(crate) struct Handed(pub(crate) Vec<OwnedFd>);

impl Handed {
    pub(super) fn add(&mut self, fd: impl Into<OwnedFd>) -> usize {
        self.0.push(fd.into());
        self.0.len() - 1
    }

    /// A directory.
    pub(super) fn directory(&mut self, path: &Path) -> Result<usize> {
        let opened = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        if !opened.metadata()?.is_dir() {
            bail!("{} is not a directory", path.display());
        }
        Ok(self.add(opened))
    }
}

/// `type=local,dest=out`: CSV as docker has it, without quotes.
fn fields(flag: &str, text: &str) -> Result<BTreeMap<String, String>> {
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => bail!("{flag} {text}: {part:?} must be key=value"),
    };
    text.split(',').map(pair).collect()
}

/// What `--output` asks for beyond where it goes.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) outputs: Vec<LocalOutput>,
    /// Names that `name=` gives.
    pub(super) names: Vec<String>,
    pub(super) rewrite_timestamp: bool,
}

pub(super) fn outputs(flags: &[String], push: bool, handed: &mut Handed) -> Result<Outputs> {
    let mut all = Outputs::default();
    for flag in flags {
        let mut fields = match flag.contains('=') {
            true => fields("--output", flag)?,
            // Short for a directory, or standard output.
            false if flag == "-" => {
                BTreeMap::from([("type".into(), "tar".into()), ("dest".into(), "-".into())])
            }
            false => BTreeMap::from([("type".into(), "local".into()), ("dest".into(), flag.clone())]),
        };
        let mut take = |key: &str| fields.remove(key);
        let kind = take("type").with_context(|| format!("--output {flag}: a type is needed"))?;
        let dest = take("dest");
        let wanted = || dest.clone().with_context(|| format!("--output {flag}: dest= is needed"));
        all.rewrite_timestamp |= take("rewrite-timestamp").is_some_and(|value| value != "false");
        match kind.as_str() {
            "image" | "docker" if dest.is_none() => {
                all.names.extend(take("name"));
                if take("push").is_some_and(|value| value != "false") {
                    all.outputs.push(LocalOutput::Push);
                }
            }
            "registry" => {
                all.names.extend(take("name"));
                all.outputs.push(LocalOutput::Push);
            }
            "local" => {
                let dir = PathBuf::from(wanted()?);
                std::fs::create_dir_all(&dir).with_context(|| format!("--output {}", dir.display()))?;
                let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
                all.outputs.push(LocalOutput::Files { directory: handed.directory(&dir)?, owner });
            }
            "tar" => all.outputs.push(LocalOutput::Tar(writable(&wanted()?, handed)?)),
            "oci" | "docker" => {
                all.names.extend(take("name"));
                all.outputs.push(LocalOutput::Image(writable(&wanted()?, handed)?));
            }
            "cacheonly" => {}
            other => {
                bail!("--output type={other}: there are image, registry, local, tar, oci, docker, cacheonly")
            }
        }
    }
    if push && !all.outputs.contains(&LocalOutput::Push) {
        all.outputs.push(LocalOutput::Push);
    }
    Ok(all)
}

fn writable(dest: &str, handed: &mut Handed) -> Result<usize> {
    if dest == "-" {
        use std::os::fd::AsFd;
        return Ok(handed.add(std::io::stdout().as_fd().try_clone_to_owned()?));
    }
    Ok(handed.add(File::create(dest).with_context(|| format!("cannot create {dest}"))?))
}

/// Where a directory's cache lies in it.
const CACHE_FILE: &str = "berth-cache.tar";

pub(crate) fn caches(
    flag: &str,
    texts: &[String],
    write: bool,
    handed: &mut Handed,
) -> Result<Vec<LocalCache>> {
    let mut all = Vec::new();
    for text in texts {
        let mut fields = match text.contains('=') {
            true => fields(flag, text)?,
            // Short for an image.
            false => BTreeMap::from([("type".into(), "registry".into()), ("ref".into(), text.clone())]),
        };
        let mut take = |key: &str| fields.remove(key);
        let mounts = take("mounts").is_some_and(|value| value != "false");
        let kind = take("type").unwrap_or_default();
        match kind.as_str() {
            "inline" => all.push(LocalCache::Inline),
            "registry" => {
                let reference = take("ref").with_context(|| format!("{flag} {text}: ref= is needed"))?;
                all.push(LocalCache::Registry { reference, mounts });
            }
            "local" => {
                let key = if write { "dest" } else { "src" };
                let dir = take(key).with_context(|| format!("{flag} {text}: {key}= is needed"))?;
                let path = Path::new(&dir).join(CACHE_FILE);
                let failed = || format!("{flag} {}", path.display());
                let file = if write {
                    std::fs::create_dir_all(&dir).with_context(failed)?;
                    File::create(&path)
                } else {
                    match File::open(&path) {
                        // The first build finds none.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        file => file,
                    }
                };
                all.push(LocalCache::File { file: handed.add(file.with_context(failed)?), mounts });
            }
            other => bail!("{flag} type={other}: there are inline, registry and local"),
        }
    }
    Ok(all)
}

/// `id=name,src=file`, `id=name,env=VARIABLE`
pub(super) fn secrets(flags: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for flag in flags {
        let mut fields = fields("--secret", flag)?;
        let source = fields.remove("src").or_else(|| fields.remove("source"));
        let variable = fields.remove("env");
        let id = fields.remove("id").or_else(|| source.clone()).or_else(|| variable.clone());
        let id = id.with_context(|| format!("--secret {flag}: id= is needed"))?;
        let value = match (source, variable) {
            (Some(path), _) => std::fs::read(&path).with_context(|| format!("--secret {flag}: {path}"))?,
            (None, variable) => {
                let name = variable.unwrap_or_else(|| id.clone());
                let value = std::env::var(&name);
                value
                    .with_context(|| format!("--secret {flag}: the variable {name} is not set"))?
                    .into_bytes()
            }
        };
        all.insert(id, value);
    }
    Ok(all)
}

/// `default`, `id=socket`
pub(crate) fn agents(flags: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for flag in flags {
        let (id, socket) = flag.split_once('=').map_or((flag.as_str(), None), |(id, path)| (id, Some(path)));
        let socket = match socket {
            Some(path) => path.to_owned(),
            None => std::env::var("SSH_AUTH_SOCK")
                .with_context(|| format!("--ssh {flag}: no ssh agent runs (SSH_AUTH_SOCK is not set)"))?,
        };
        let socket = std::fs::canonicalize(&socket).with_context(|| format!("--ssh {flag}: {socket}"))?;
        use std::os::unix::fs::FileTypeExt;
        if !std::fs::metadata(&socket)?.file_type().is_socket() {
            bail!(
                "--ssh {flag}: {} is no agent's socket; add the key to an agent: ssh-add",
                socket.display()
            );
        }
        all.insert(id.to_owned(), socket.to_string_lossy().into_owned());
    }
    Ok(all)
}

/// `name=directory`, `name=docker-image://image`, `name=https://…`
pub(crate) fn contexts(flags: &[String], handed: &mut Handed) -> Result<BTreeMap<String, LocalContext>> {
    let mut all = BTreeMap::new();
    for flag in flags {
        let (name, value) =
            flag.split_once('=').with_context(|| format!("--build-context {flag}: name=value is needed"))?;
        let context = match value {
            value if is_url(value) => LocalContext::Url(value.to_owned()),
            value => match value.strip_prefix("docker-image://") {
                Some(image) => LocalContext::Image(image.to_owned()),
                None => LocalContext::Directory(handed.directory(Path::new(value))?),
            },
        };
        all.insert(name.to_lowercase(), context);
    }
    Ok(all)
}

/// Whether a context is not on this machine.
pub(crate) fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_understood() {
        let dir = tempfile::tempdir().expect("a directory");
        let (local, tar) = (dir.path().join("l"), dir.path().join("t"));
        let flags = [
            local.display().to_string(),
            format!("type=tar,dest={}", tar.display()),
            "type=image,name=a:b,push=true,rewrite-timestamp=true".to_owned(),
        ];
        let mut handed = Handed::default();
        let all = outputs(&flags, false, &mut handed).expect("fine");
        assert!(matches!(
            all.outputs.as_slice(),
            [LocalOutput::Files { directory: 0, .. }, LocalOutput::Tar(1), LocalOutput::Push]
        ));
        assert!(all.rewrite_timestamp && all.names == ["a:b"] && handed.0.len() == 2);
        assert!(outputs(&["type=nonsense".to_owned()], false, &mut handed).is_err());
        assert!(outputs(&["type=oci".to_owned()], false, &mut handed).is_err());
    }

    #[test]
    fn secrets_have_values() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "v").expect("write");
        let found = secrets(&[format!("id=a,src={}", file.path().display())]).expect("fine");
        assert_eq!(found["a"], b"v");
        assert!(secrets(&["id=BERTH_NO_SUCH_VARIABLE".to_owned()]).is_err());
    }

    #[test]
    fn a_cache_that_is_not_there_is_none() {
        let mut handed = Handed::default();
        let dir = tempfile::tempdir().expect("a directory");
        let text = [format!("type=local,src={}", dir.path().display())];
        assert_eq!(caches("--cache-from", &text, false, &mut handed).expect("fine"), []);
        let text = ["type=registry,ref=r,mounts=true".to_owned(), "type=inline".to_owned()];
        let found = caches("--cache-to", &text, true, &mut handed).expect("fine");
        assert_eq!(found, [LocalCache::Registry { reference: "r".into(), mounts: true }, LocalCache::Inline]);
    }
}
