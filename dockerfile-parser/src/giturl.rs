//! Git repositories as build contexts and sources of `ADD`: `https://host/repo.git#ref:subdir`,
//! `git@host:repo?tag=v1`, … Pure: nothing is looked up.

use crate::golang::quote;

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRef {
    /// The repository, without query and fragment.
    pub remote: String,
    /// Last part of its path, without `.git`.
    pub short_name: String,
    /// Branch, tag or commit; empty is the default branch.
    pub reference: String,
    /// The commit, or its beginning, that the reference must lead to.
    pub checksum: String,
    /// The directory in the repository that is wanted.
    pub subdir: String,
    /// It may as well be a path: only a context can be written so.
    pub looks_local: bool,
    /// The transport is not encrypted.
    pub unencrypted: bool,
    /// Whether `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// `checkout` or `commit`: where the times of files come from.
    pub mtime: String,
    /// The checksum is fetched itself, not the reference.
    pub fetch_by_commit: bool,
}

/// A repository was named, but in a way that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GitRefError(String);

impl GitRef {
    /// Reads a source; none if it does not name a git repository.
    ///
    /// # Errors
    /// If it does, with a query that cannot be understood.
    pub fn parse(text: &str) -> Result<Option<Self>, GitRefError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, f)| (rest, Some(f)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
        let Some((remote, looks_local, unencrypted)) = transport(rest) else { return Ok(None) };
        let base = remote.trim_end_matches('/').rsplit('/').next().unwrap_or(&remote);
        let short_name = base.strip_suffix(".git").unwrap_or(base).to_owned();
        let mut git = Self { short_name, remote, looks_local, unencrypted, ..Self::default() };
        if let Some(fragment) = fragment {
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            git.reference = reference.to_owned();
            git.subdir = subdir.to_owned();
        }
        git.query(query.unwrap_or(""))?;
        Ok(Some(git))
    }

    fn query(&mut self, query: &str) -> Result<(), GitRefError> {
        let (mut tag, mut branch) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.to_owned();
            match key {
                "ref" => set(&mut self.reference, value, "ref")?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => set(&mut self.subdir, value, "subdir")?,
                "checksum" | "commit" => set(&mut self.checksum, value, "checksum")?,
                "keep-git-dir" => self.keep_git_dir = Some(boolean(key, &value)?),
                "submodules" => self.submodules = Some(boolean(key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = boolean(key, &value)?,
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.mtime = value,
                "mtime" => {
                    let value = quote(&value);
                    let message =
                        format!("invalid mtime value: {value} (must be \"checkout\" or \"commit\")");
                    return Err(GitRefError(message));
                }
                other => return Err(GitRefError(format!("unexpected query {}", quote(other)))),
            }
        }
        match (tag, branch) {
            (Some(_), Some(_)) => return Err(GitRefError("branch conflicts with tag".into())),
            (Some(tag), None) => set(&mut self.reference, format!("refs/tags/{tag}"), "tag")?,
            (None, Some(branch)) => set(&mut self.reference, format!("refs/heads/{branch}"), "branch")?,
            (None, None) => {}
        }
        Ok(())
    }
}

fn set(field: &mut String, value: String, name: &str) -> Result<(), GitRefError> {
    if !field.is_empty() && *field != value {
        return Err(GitRefError(format!("{name} conflicts with {}", quote(field))));
    }
    *field = value;
    Ok(())
}

fn boolean(key: &str, value: &str) -> Result<bool, GitRefError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(GitRefError(format!("invalid {key} value: {}", quote(other)))),
    }
}

/// The remote, whether it could be a path, and whether it is unencrypted.
fn transport(text: &str) -> Option<(String, bool, bool)> {
    if text.starts_with("github.com/") {
        return Some((text.to_owned(), true, false));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let remote = format!("{scheme}://{rest}");
        return match scheme.as_str() {
            "https" | "http" if rest.ends_with(".git") => Some((remote, false, scheme == "http")),
            "git" => Some((remote, false, true)),
            "ssh" => Some((remote, false, false)),
            _ => None,
        };
    }
    // The form of scp: user@host:path.
    let (host, path) = text.split_once(':')?;
    let (user, host) = host.split_once('@')?;
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    (word(user) && word(host) && !path.is_empty()).then(|| (text.to_owned(), false, false))
}
