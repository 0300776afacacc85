//! Git repositories as sources, by the git program of the machine.
//!
//! The repository is a stranger's, and so is what the server says: git gets an empty environment, no configuration but
//! ours, no hooks, no prompts, and may speak to remote transports only; a name that could be taken for an option is
//! refused. Files get the time of the commit, so that a checkout is the same whenever it is made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_dockerfile_parser::giturl::GitRef;
use berth_oci::Digest;
use nix::sys::time::TimeSpec;

use crate::BuildError;
use crate::fault::{At, Fault};
use crate::fetch::{Fetcher, scratch};
use crate::rootdir::{RootDir, clamp};

/// The secret with a token for https, as BuildKit has it.
const TOKEN: &str = "GIT_AUTH_TOKEN";

impl Fetcher<'_> {
    /// The directory that holds the wanted files.
    pub(crate) fn git(&self, git: &GitRef) -> Result<PathBuf, Fault> {
        for text in [&git.remote, &git.reference, &git.checksum] {
            if text.starts_with('-') || text.contains(['\n', '\0']) {
                return Err(Fault::said(format!("{text:?} cannot be the name of a repository or revision")));
            }
        }
        let remote = match git.looks_local {
            true => format!("https://{}", git.remote),
            false => git.remote.clone(),
        };
        let commit = self.commit(git, &remote)?;
        if !git.checksum.is_empty() && !commit.starts_with(&git.checksum) {
            return Err(Fault::said(format!(
                "expected checksum to match {}, got {commit} ({remote})",
                git.checksum
            )));
        }
        let keep = git.keep_git_dir.unwrap_or(false);
        let submodules = git.submodules.unwrap_or(true);
        let name = Digest::of(format!("{remote}\0{commit}\0{keep}\0{submodules}").as_bytes());
        let trees = self.shared.dirs.builds.join("git");
        let place = trees.join(name.hex());
        let flight = format!("git {}", name.hex());
        while !place.exists() {
            if self.stop.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
            let Some(_lead) = self.shared.flights.lead(&flight) else {
                self.shared.flights.wait(&flight, self.stop);
                continue;
            };
            fs::create_dir_all(&trees).at("create directory", &trees)?;
            let fresh = scratch(self.shared)?;
            self.check_out(git, &remote, &commit, keep, submodules, fresh.path())?;
            fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755)).at("set mode of", &place)?;
            fs::rename(fresh.path(), &place).at("create", &place)?;
            // It has moved: nothing is left to remove.
            let _moved = fresh.keep();
        }
        subdirectory(&place, &git.subdir)
    }

    /// The commit that is meant. Only a full one needs no question to the server.
    fn commit(&self, git: &GitRef, remote: &str) -> Result<String, Fault> {
        let is_commit =
            |text: &str| matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
        for text in [&git.reference, &git.checksum] {
            let counts = git.reference.is_empty() || git.fetch_by_commit || text == &git.reference;
            if is_commit(text) && counts {
                return Ok(text.to_lowercase());
            }
        }
        let wanted = if git.reference.is_empty() { "HEAD" } else { &git.reference };
        let listed = self.run(
            remote,
            Path::new("/"),
            &["ls-remote", "--", remote, wanted, &format!("{wanted}^{{}}")],
        )?;
        let refs: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        // A tag before a branch, and the commit that an annotated tag is for before the tag itself.
        let names = [
            format!("{wanted}^{{}}"),
            format!("refs/tags/{wanted}^{{}}"),
            format!("refs/tags/{wanted}"),
            format!("refs/heads/{wanted}"),
            wanted.to_owned(),
        ];
        let found = names.iter().find_map(|name| refs.iter().find(|(_, listed)| listed == name));
        match found {
            Some((commit, _)) if is_commit(commit) => Ok((*commit).to_owned()),
            _ => Err(Fault::said(format!("repository {remote} does not contain ref {wanted}"))),
        }
    }

    fn check_out(
        &self,
        git: &GitRef,
        remote: &str,
        commit: &str,
        keep: bool,
        submodules: bool,
        dir: &Path,
    ) -> Result<(), Fault> {
        self.run(remote, dir, &["init", "--quiet"])?;
        self.run(remote, dir, &["remote", "add", "--", "origin", remote])?;
        let fetch = |what: &str, shallow: bool| {
            let mut args = vec!["fetch", "--quiet", "--no-recurse-submodules"];
            args.extend(if shallow { ["--depth=1", "--no-tags"] } else { ["--tags", "--force"] });
            args.extend(["--", "origin"]);
            args.extend((!what.is_empty()).then_some(what));
            self.run(remote, dir, &args)
        };
        // Not every server gives a commit that no name leads to.
        let by_name = if git.reference.is_empty() { "HEAD" } else { &git.reference };
        fetch(commit, true).or_else(|_| fetch(by_name, false)).or_else(|_| fetch("", false))?;
        self.run(remote, dir, &["checkout", "--quiet", "--detach", commit])?;
        if submodules && dir.join(".gitmodules").exists() {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.run(remote, dir, &update)?;
        }
        let seconds = self.run(remote, dir, &["show", "--no-patch", "--format=%ct", commit])?;
        let root = RootDir::open_host(dir).at("open", dir)?;
        if !keep {
            remove_git(&root, Path::new(""))?;
        }
        let time = TimeSpec::new(seconds.trim().parse().unwrap_or(0), 0);
        Ok(set_times(&root, Path::new(""), time).at("set times in", dir)?)
    }

    /// Runs git and returns what it printed.
    fn run(&self, remote: &str, dir: &Path, args: &[&str]) -> Result<String, Fault> {
        const PAUSE: Duration = Duration::from_millis(20);
        let mut command = Command::new("git");
        command.current_dir(dir).env_clear().stdin(Stdio::null());
        for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs([
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
            ("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes"),
        ]);
        if let Some(agent) = self.ssh.get("default") {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let mut settings = vec![
            ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
            ("core.fsmonitor".to_owned(), "false".to_owned()),
            ("advice.detachedHead".to_owned(), "false".to_owned()),
        ];
        if let Some(token) = self.secrets.get(TOKEN).filter(|_| remote.starts_with("https://")) {
            let mut pair = b"x-access-token:".to_vec();
            pair.extend(token.0.trim_ascii());
            let header = format!("Authorization: basic {}", STANDARD.encode(pair));
            settings.push((format!("http.{remote}.extraheader"), header));
        }
        // By the environment: a command line can be seen by everybody.
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (i, (key, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        let out = tempfile::tempfile().at("create a file for", "git")?;
        let errors = tempfile::tempfile().at("create a file for", "git")?;
        command.stdout(out.try_clone().at("open a file for", "git")?);
        command.stderr(errors.try_clone().at("open a file for", "git")?);
        let mut child = command.args(args).spawn().map_err(|error| {
            Fault::said(format!("cannot run git, which fetches {remote}: {error} (install the package git)"))
        })?;
        let status = loop {
            if let Some(status) = child.try_wait().at("wait for", "git")? {
                break status;
            }
            if self.stop.is_cancelled() {
                child.kill().at("end", "git")?;
                child.wait().at("wait for", "git")?;
                return Err(BuildError::Cancelled.into());
            }
            std::thread::sleep(PAUSE);
        };
        if status.success() {
            return Ok(text(out).at("read the output of", "git")?);
        }
        let said = text(errors).at("read the output of", "git")?;
        Err(Fault::said(format!("git {} for {remote} failed: {}", args[0], said.trim())))
    }
}

fn text(mut file: fs::File) -> std::io::Result<String> {
    use std::io::{Read, Seek};
    const MAX: u64 = 16 << 20;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A directory of the checkout; a link in it leads nowhere else.
fn subdirectory(place: &Path, subdir: &str) -> Result<PathBuf, Fault> {
    let wanted = clamp(Path::new(subdir));
    let root = RootDir::open_host(place).at("open", place)?;
    match root.meta(&wanted).at("look at", &wanted)? {
        Some(meta) if meta.is_dir() => Ok(place.join(wanted)),
        _ => Err(Fault::said(format!("the repository has no directory {}", wanted.display()))),
    }
}

/// Removes `.git` at the top and of submodules.
fn remove_git(root: &RootDir, dir: &Path) -> Result<(), Fault> {
    root.remove_tree(&dir.join(".git")).at("remove", dir.join(".git"))?;
    for name in root.read_dir(dir).at("read directory", dir)? {
        let path = dir.join(name);
        if root.meta(&path).at("look at", &path)?.is_some_and(|meta| meta.is_dir()) {
            remove_git(root, &path)?;
        }
    }
    Ok(())
}

fn set_times(root: &RootDir, dir: &Path, time: TimeSpec) -> std::io::Result<()> {
    for name in root.read_dir(dir)? {
        let path = dir.join(name);
        match root.meta(&path)? {
            Some(meta) if meta.is_dir() => set_times(root, &path, time)?,
            _ => root.set_mtime(&path, time)?,
        }
    }
    root.set_mtime(dir, time)
}
