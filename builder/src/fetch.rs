//! Files from the network: what `ADD` of a URL takes, and contexts that are named by a URL.
//!
//! A file is kept under its digest; the server is asked whether it has a newer one (`If-None-Match`,
//! `If-Modified-Since`), and not even that if a `--checksum` says which one is meant.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_dockerfile_parser::giturl::GitRef;
use berth_dockerfile_parser::ignore;
use berth_oci::{Digest, Hasher};
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::fault::{At, Fault};
use crate::request::Secret;
use crate::rootdir::RootDir;
use crate::shared::Shared;
use crate::solve::Solver;
use crate::source::Source;
use crate::{BuildError, context};

/// A server that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// A larger file is refused.
const MAX_FILE: u64 = 64 << 30;

/// What a source of `ADD` names, if it is not a path.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// A file.
    Http(String),
    /// A repository.
    Git(GitRef),
}

/// Tells URLs and repositories from paths.
pub(crate) fn remote(source: &str) -> Result<Option<Remote>, String> {
    if let Some(git) =
        GitRef::parse(source).map_err(|e| format!("{source}: {e}"))?.filter(|git| !git.looks_local)
    {
        return Ok(Some(Remote::Git(git)));
    }
    let is_http = ["http://", "https://"]
        .iter()
        .any(|scheme| source.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    Ok(is_http.then(|| Remote::Http(source.to_owned())))
}

/// Everything that is needed to get something from the network.
pub(crate) struct Fetcher<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) handle: &'a Handle,
    pub(crate) stop: &'a CancellationToken,
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    pub(crate) ssh: &'a BTreeMap<String, PathBuf>,
}

/// What is known of a URL.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    /// Digest of the contents.
    digest: Digest,
    /// Directory that holds the file.
    place: String,
    etag: Option<String>,
    modified: Option<String>,
}

impl Solver<'_> {
    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            shared: self.shared,
            handle: self.handle,
            stop: &self.stop,
            secrets: &self.request.secrets,
            ssh: &self.request.ssh,
        }
    }

    /// A tree with one file from a URL, and its name there.
    pub(crate) fn fetch_http(
        &self,
        url: &str,
        checksum: Option<&str>,
    ) -> Result<(Arc<Source>, String), Fault> {
        let (dir, name) = self.fetcher().http(url, checksum)?;
        let root = RootDir::open_host(&dir).at("open", &dir)?;
        Ok((Arc::new(Source::new(root, ignore::Matcher::default(), false, url.to_owned())), name))
    }

    /// A tree with a repository's files, and the path that means all of them.
    pub(crate) fn fetch_git(
        &self,
        git: &GitRef,
        checksum: Option<&str>,
        keep_git_dir: Option<bool>,
    ) -> Result<(Arc<Source>, String), Fault> {
        let mut git = git.clone();
        git.keep_git_dir = keep_git_dir.or(git.keep_git_dir);
        if let Some(checksum) = checksum {
            checksum.clone_into(&mut git.checksum);
        }
        let dir = self.fetcher().git(&git)?;
        let root = RootDir::open_host(&dir).at("open", &dir)?;
        Ok((Arc::new(Source::new(root, ignore::Matcher::default(), false, git.remote)), "/".to_owned()))
    }
}

impl Fetcher<'_> {
    fn dir(&self) -> PathBuf {
        self.shared.dirs.builds.join("fetched")
    }

    /// Gets a file; returns the directory that it is in, and its name.
    pub(crate) fn http(&self, url: &str, checksum: Option<&str>) -> Result<(PathBuf, String), Fault> {
        let parsed = url::Url::parse(url).map_err(|e| Fault::said(format!("{url}: {e}")))?;
        let name = parsed.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
        let name = if matches!(name, "" | "." | "..") { "__unnamed__" } else { name }.to_owned();
        let wanted = checksum.map(Digest::parse).transpose();
        let wanted = wanted.map_err(|e| Fault::said(format!("--checksum: {e}")))?;
        let dir = self.dir();
        let note = dir.join(format!("{}.json", Digest::of(url.as_bytes()).hex()));
        let flight = format!("fetch {url}");
        let _lead = loop {
            if let Some(lead) = self.shared.flights.lead(&flight) {
                break lead;
            }
            self.shared.flights.wait(&flight, self.stop);
            if self.stop.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
        };
        let known = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
        let known = known.filter(|known| dir.join(&known.place).join(&name).exists());
        if let Some(known) = &known
            && wanted.as_ref() == Some(&known.digest)
        {
            return Ok((dir.join(&known.place), name));
        }
        fs::create_dir_all(&dir).at("create directory", &dir)?;
        let got = self.handle.block_on(async {
            tokio::select! {
                got = download(&parsed, known.as_ref(), &dir) => got,
                () = self.stop.cancelled() => Err(BuildError::Cancelled.into()),
            }
        })?;
        let Some(got) = got else {
            let known = known.expect("a server says `not modified` only if it was asked");
            return self.accept(url, wanted.as_ref(), &known, &name);
        };
        let place =
            Digest::of(format!("{} {name} {:?}", got.digest, got.modified).as_bytes()).hex().to_owned();
        let known = Known { digest: got.digest, place, etag: got.etag, modified: got.modified };
        if let Some(wanted) = &wanted
            && *wanted != known.digest
        {
            return Err(mismatch(url, wanted, &known.digest));
        }
        keep(got.file, &dir.join(&known.place), &name, known.modified.as_deref())?;
        let bytes = serde_json::to_vec(&known).map_err(std::io::Error::from).at("write", &note)?;
        fs::write(&note, bytes).at("write", &note)?;
        self.accept(url, wanted.as_ref(), &known, &name)
    }

    fn accept(
        &self,
        url: &str,
        wanted: Option<&Digest>,
        known: &Known,
        name: &str,
    ) -> Result<(PathBuf, String), Fault> {
        match wanted {
            Some(wanted) if *wanted != known.digest => Err(mismatch(url, wanted, &known.digest)),
            _ => Ok((self.dir().join(&known.place), name.to_owned())),
        }
    }
}

fn mismatch(url: &str, wanted: &Digest, got: &Digest) -> Fault {
    Fault::said(format!("digest mismatch {got}: {wanted} (--checksum does not fit what {url} is now)"))
}

/// Puts the file into a directory of its own, with the time that the server gave.
fn keep(
    file: tempfile::NamedTempFile,
    place: &Path,
    name: &str,
    modified: Option<&str>,
) -> Result<(), BuildError> {
    fs::create_dir_all(place).at("create directory", place)?;
    let time = modified.and_then(http_date).unwrap_or(SystemTime::UNIX_EPOCH);
    let path = place.join(name);
    let file = file.persist(&path).map_err(|e| e.error).at("write", &path)?;
    file.set_modified(time).at("set time of", &path)
}

/// The preferred form of RFC 9110, section 5.6.7.
fn http_date(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix(" GMT")?;
    let time = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", text).ok()?;
    let seconds = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

struct Download {
    file: tempfile::NamedTempFile,
    digest: Digest,
    etag: Option<String>,
    modified: Option<String>,
}

/// Gets a URL; none if it is as it is known to be.
async fn download(url: &url::Url, known: Option<&Known>, dir: &Path) -> Result<Option<Download>, Fault> {
    let failed = |e: reqwest::Error| {
        // The innermost cause says what is wrong; those around it say that something is.
        let mut cause: &dyn std::error::Error = &e;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Fault::said(format!("cannot fetch {url}: {cause}"))
    };
    let client = reqwest::Client::builder().read_timeout(SILENCE).connect_timeout(SILENCE);
    let client = client.user_agent("berth").build().map_err(failed)?;
    let mut request = client.get(url.clone());
    if let Some(known) = known {
        for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
    }
    let mut response = request.send().await.map_err(failed)?;
    if response.status() == StatusCode::NOT_MODIFIED && known.is_some() {
        return Ok(None);
    }
    if !response.status().is_success() {
        return Err(Fault::said(format!("cannot fetch {url}: the server says {}", response.status())));
    }
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (etag, modified) = (header(ETAG), header(LAST_MODIFIED));
    let mut file = tempfile::NamedTempFile::new_in(dir).at("create a file in", dir)?;
    let mut hasher = Hasher::default();
    let mut size = 0;
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        size += chunk.len() as u64;
        if size > MAX_FILE {
            return Err(Fault::said(format!("{url} is larger than {MAX_FILE} bytes")));
        }
        hasher.update(&chunk);
        file.write_all(&chunk).at("write", dir)?;
    }
    Ok(Some(Download { file, digest: hasher.finish(), etag, modified }))
}

/// A directory for something half-made, on the file system of what it becomes.
pub(crate) fn scratch(shared: &Shared) -> Result<tempfile::TempDir, BuildError> {
    context::scratch_dir(&shared.dirs.builds.join("tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls() {
        let kind = |text: &str| match remote(text).unwrap() {
            None => "path",
            Some(Remote::Http(_)) => "http",
            Some(Remote::Git(_)) => "git",
        };
        assert_eq!(kind("https://example.com/a.tgz"), "http");
        assert_eq!(kind("HTTP://example.com/"), "http");
        assert_eq!(kind("https://example.com/a.git#main:sub"), "git");
        assert_eq!(kind("git@example.com:a/b"), "git");
        assert_eq!(kind("a.git"), "path");
        assert_eq!(kind("github.com/a/b"), "path");
        assert!(remote("https://example.com/a.git?x=1").is_err());
    }

    #[test]
    fn dates() {
        let time = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_111_777);
        assert!(http_date("yesterday").is_none());
    }
}
