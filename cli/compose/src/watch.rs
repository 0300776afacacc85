//! `watch`: changes of files on this machine find their way into containers.
//!
//! Changes are collected until nothing has happened for [`QUIET`]; then each trigger does its work once for all of
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use berth_client::{
    Upload,
    api::options::{PutArchive, StopContainer},
};
use globset::{Glob, GlobSet, GlobSetBuilder};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::{
    Engine, Result,
    error::{Context, Error},
    labels::{Labelled, OneOff},
    model::{Project, Trigger},
    observe,
};

/// Time without changes after which they are acted upon.
const QUIET: Duration = Duration::from_millis(300);

/// What has to be done by whoever knows how to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// These services are built and made anew.
    Rebuild(BTreeSet<String>),
    /// Done already; told for the user.
    Told(String),
}

/// A trigger with what it watches.
struct Rule {
    service: String,
    trigger: Trigger,
    ignore: GlobSet,
    include: Option<GlobSet>,
}

/// Watches the files of a project's triggers.
pub struct Watch {
    engine: Engine,
    project: Project,
    rules: Vec<Rule>,
    changes: mpsc::UnboundedReceiver<PathBuf>,
    /// Ends with this value.
    _watcher: notify::RecommendedWatcher,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

fn globs(service: &str, patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        // A name alone means it at any depth, and a directory all that is in it.
        let anywhere = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
        for pattern in [anywhere.clone(), format!("{anywhere}/**")] {
            let glob = Glob::new(&pattern)
                .map_err(|error| Error::Conflict(format!("service {service}: develop.watch: {error}")))?;
            set.add(glob);
        }
    }
    set.build().map_err(|error| Error::Conflict(format!("service {service}: develop.watch: {error}")))
}

impl Watch {
    /// Begins to watch the triggers of services; none is all.
    ///
    /// # Errors
    /// If there is nothing to watch, or a path cannot be watched.
    pub fn new(engine: Engine, project: Project, services: &[String]) -> Result<Self> {
        let mut rules = Vec::new();
        for (name, service) in &project.services {
            if !services.is_empty() && !services.contains(name) {
                continue;
            }
            for trigger in service.develop.iter().flat_map(|develop| &develop.watch) {
                if trigger.action.0 == "rebuild" && service.build.is_none() {
                    return Err(Error::service(
                        name,
                        "can't watch service without a build context for action rebuild",
                    ));
                }
                rules.push(Rule {
                    service: name.clone(),
                    ignore: globs(name, &ignored(trigger))?,
                    include: if trigger.include.is_empty() {
                        None
                    } else {
                        Some(globs(name, &trigger.include)?)
                    },
                    trigger: trigger.clone(),
                });
            }
        }
        if rules.is_empty() {
            return Err(Error::Conflict(
                "none of the selected services is configured for watch, consider setting a 'develop' section"
                    .to_owned(),
            ));
        }
        let (sender, changes) = mpsc::unbounded_channel();
        let handler = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, notify::EventKind::Access(_)) {
                return;
            }
            for path in event.paths {
                // Nobody listens any more: the watch has ended.
                sender.send(path).ok();
            }
        };
        let failed = |error: notify::Error| Error::Conflict(format!("cannot watch: {error}"));
        let mut watcher = notify::recommended_watcher(handler).map_err(failed)?;
        for path in rules.iter().map(|rule| PathBuf::from(&rule.trigger.path.0)).collect::<BTreeSet<_>>() {
            // A file is watched through its directory: editors put a new one in its place.
            let target = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new("/")) };
            let mode = if path.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            watcher.watch(target, mode).map_err(failed)?;
        }
        Ok(Self { engine, project, rules, changes, _watcher: watcher })
    }

    /// Copies what `initial_sync` asks for.
    ///
    /// # Errors
    /// If a container does not take it.
    pub async fn initial_sync(&self) -> Result<()> {
        for rule in self
            .rules
            .iter()
            .filter(|rule| rule.trigger.initial_sync && rule.trigger.action.0.starts_with("sync"))
        {
            let mut files = BTreeSet::new();
            collect(Path::new(&rule.trigger.path.0), &mut files);
            files.retain(|file| rule.counts(file));
            self.sync(rule, &files).await?;
        }
        Ok(())
    }

    /// Waits for changes and acts upon them.
    ///
    /// # Errors
    /// If a container does not take them.
    pub async fn next(&mut self) -> Result<Option<Vec<Work>>> {
        let Some(first) = self.changes.recv().await else { return Ok(None) };
        let mut changed = BTreeSet::from([first]);
        while let Ok(Some(path)) = tokio::time::timeout(QUIET, self.changes.recv()).await {
            changed.insert(path);
        }
        // What is in a directory that is new came before anybody watched it.
        for directory in changed.iter().filter(|path| path.is_dir()).cloned().collect::<Vec<_>>() {
            collect(&directory, &mut changed);
        }
        let mut rebuild = BTreeSet::new();
        let mut restart: BTreeMap<String, ()> = BTreeMap::new();
        let mut work = Vec::new();
        for rule in &self.rules {
            let files: BTreeSet<PathBuf> = changed.iter().filter(|path| rule.counts(path)).cloned().collect();
            if files.is_empty() {
                continue;
            }
            let service = &rule.service;
            match rule.trigger.action.0.as_str() {
                "rebuild" => drop(rebuild.insert(service.clone())),
                "restart" => drop(restart.insert(service.clone(), ())),
                action => {
                    let count = files.len();
                    self.sync(rule, &files).await?;
                    work.push(Work::Told(format!(
                        "Syncing service {service:?} after {count} changes were detected"
                    )));
                    match action {
                        "sync+restart" => drop(restart.insert(service.clone(), ())),
                        "sync+exec" => self.exec(rule).await?,
                        _ => {}
                    }
                }
            }
        }
        // What is made anew needs no restart.
        for service in restart.into_keys().filter(|service| !rebuild.contains(service)) {
            self.restart(&service).await?;
            work.push(Work::Told(format!("service(s) [{service:?}] restarted")));
        }
        if !rebuild.is_empty() {
            work.push(Work::Rebuild(rebuild));
        }
        Ok(Some(work))
    }

    async fn containers(&self, service: &str) -> Result<Vec<String>> {
        let containers =
            observe::containers(&self.engine.client, &self.project.name, OneOff::Exclude, false).await?;
        Ok(containers
            .into_iter()
            .filter(|container| container.service() == service)
            .map(|container| container.id)
            .collect())
    }

    async fn restart(&self, service: &str) -> Result<()> {
        for id in self.containers(service).await? {
            let stop = StopContainer::default();
            let restarted = self.engine.act(self.engine.client.container_restart(&id, &stop)).await;
            restarted.during(|| format!("restarting service {service}"))?;
        }
        Ok(())
    }

    async fn exec(&self, rule: &Rule) -> Result<()> {
        let service = self.project.services.get(&rule.service);
        for id in self.containers(&rule.service).await? {
            self.engine.run_hook(&rule.service, &id, &rule.service, service, &rule.trigger.exec).await?;
        }
        Ok(())
    }

    /// Brings files into all containers of a service, and takes away what is gone here.
    async fn sync(&self, rule: &Rule, files: &BTreeSet<PathBuf>) -> Result<()> {
        let root = Path::new(&rule.trigger.path.0);
        let target = |file: &Path| {
            let rest = file.strip_prefix(root).unwrap_or(Path::new(""));
            if rest.as_os_str().is_empty() {
                PathBuf::from(&rule.trigger.target)
            } else {
                Path::new(&rule.trigger.target).join(rest)
            }
        };
        let (there, gone): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.symlink_metadata().is_ok());
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        for file in there {
            let name = target(file);
            let name = name.strip_prefix("/").unwrap_or(&name).to_owned();
            let read = |source| Error::Read { path: file.clone(), source };
            if file.is_dir() {
                tar.append_dir(name, file).map_err(read)?;
            } else {
                tar.append_path_with_name(file, name).map_err(read)?;
            }
        }
        let archive = tar.into_inner().unwrap_or_default();
        let service = self.project.services.get(&rule.service);
        for id in self.containers(&rule.service).await? {
            let options = PutArchive { path: "/".to_owned(), ..PutArchive::default() };
            let archive = Upload::from_bytes(archive.clone());
            let put = self.engine.act(self.engine.client.container_archive_put(&id, &options, archive)).await;
            put.during(|| format!("syncing service {}", rule.service))?;
            if !gone.is_empty() {
                let words = ["rm", "-rf", "--"].map(str::to_owned).into_iter();
                let words = words.chain(gone.iter().map(|file| target(file).to_string_lossy().into_owned()));
                let hook = crate::model::Hook {
                    command: crate::model::Always(Some(crate::model::Command(words.collect()))),
                    user: "0".to_owned(),
                    ..Default::default()
                };
                self.engine.run_hook(&rule.service, &id, &rule.service, service, &hook).await?;
            }
        }
        Ok(())
    }
}

/// What a trigger passes over beside its own patterns: a repository's innards and editors' traces.
fn ignored(trigger: &Trigger) -> Vec<String> {
    let usual = [".git", "*.swp", "*~", "4913", ".#*", "*___jb_tmp___"].map(str::to_owned);
    usual.into_iter().chain(trigger.ignore.iter().cloned()).collect()
}

impl Rule {
    /// Whether a change of this file matters.
    fn counts(&self, file: &Path) -> bool {
        let root = Path::new(&self.trigger.path.0);
        let Ok(rest) = file.strip_prefix(root) else { return false };
        if rest.as_os_str().is_empty() {
            return !root.is_dir();
        }
        !self.ignore.is_match(rest) && self.include.as_ref().is_none_or(|include| include.is_match(rest))
    }
}

fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) {
    if !path.is_dir() {
        files.insert(path.to_owned());
        return;
    }
    // A directory that cannot be read has nothing to sync.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Always;

    fn rule(ignore: &[&str], include: &[&str]) -> Rule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let trigger = Trigger {
            path: Always("/".to_owned()),
            ignore: texts(ignore),
            include: texts(include),
            ..Trigger::default()
        };
        Rule {
            service: String::new(),
            ignore: globs("s", &ignored(&trigger)).unwrap(),
            include: (!include.is_empty()).then(|| globs("s", &trigger.include).unwrap()),
            trigger,
        }
    }

    #[test]
    fn which_files_count() {
        let all = rule(&["node_modules/", "./build", "*.log"], &[]);
        for (file, counts) in [
            ("/src/main.rs", true),
            ("/node_modules/x/y.js", false),
            ("/a/node_modules/y.js", false),
            ("/build/out", false),
            ("/a.log", false),
            ("/.git/HEAD", false),
        ] {
            assert_eq!(all.counts(Path::new(file)), counts, "{file}");
        }
        let some = rule(&[], &["*.py"]);
        assert!(some.counts(Path::new("/a/b.py")) && !some.counts(Path::new("/a/b.txt")));
    }
}
