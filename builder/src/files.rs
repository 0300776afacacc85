//! The steps that put files into a stage: `COPY`, `ADD`, `WORKDIR`.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{Add, Copy, Files};
use berth_dockerfile_parser::syntax::Word;
use berth_dockerfile_parser::{chmod, ignore};
use berth_oci::{DiffId, Digest, Hasher};
use berth_store::Snapshot;
use jiff::Timestamp;

use crate::copy::{Changes, Copier};
use crate::fault::{At, Fault};
use crate::fetch::{self, Remote};
use crate::key::{KeyInputs, field};
use crate::placed;
use crate::rootdir::{Kind, RootDir};
use crate::solve::{Origin, Solver};
use crate::source::{Selection, Source};
use crate::stage::StageState;
use crate::step::{Product, StageRun};
use crate::tick;
use crate::untar::{self, Unpacker};
use crate::users::Accounts;

/// A `COPY` or `ADD` with all words expanded.
pub(crate) struct Plan {
    sources: Vec<String>,
    /// Name and contents of files from the Dockerfile.
    inline: Vec<(String, String)>,
    dest: String,
    chown: Option<String>,
    chmod: Option<String>,
    exclude: Vec<String>,
    /// Files keep the directories they are in.
    parents: bool,
    /// The files make a layer of their own, whatever lies below.
    link: bool,
    pub(crate) created_by: String,
}

/// What is asked of a tree.
struct Asked {
    origin: Origin,
    arguments: Vec<String>,
    /// Archives are unpacked.
    unpack: bool,
}

/// A tree, and what is taken from it. Nothing is opened before somebody looks.
struct Taken<'a> {
    solver: &'a Solver<'a>,
    asked: Asked,
    parents: bool,
    exclude: &'a ignore::Matcher,
    source: OnceCell<Arc<Source>>,
    selections: OnceCell<Vec<Selection>>,
}

impl Taken<'_> {
    fn source(&self) -> Result<&Source, Fault> {
        if let Some(open) = self.source.get() {
            return Ok(open);
        }
        let open = self.solver.open(&self.asked.origin)?;
        Ok(self.source.get_or_init(|| open))
    }

    fn selections(&self) -> Result<&[Selection], Fault> {
        if let Some(known) = self.selections.get() {
            return Ok(known);
        }
        let source = self.source()?;
        let mut found = Vec::new();
        for argument in &self.asked.arguments {
            found.extend(if self.parents {
                source.select_parents(argument, self.exclude)?
            } else {
                source.select(argument, self.exclude)?
            });
        }
        Ok(self.selections.get_or_init(|| found))
    }
}

impl StageRun<'_> {
    pub(crate) fn copy(&mut self, copy: &Copy) -> Result<(), Fault> {
        let solver = self.solver;
        let mut plan = plan(
            &solver.lexer,
            &self.state,
            "COPY",
            &copy.files,
            copy.chown.as_ref(),
            copy.chmod.as_ref(),
            &copy.exclude,
        )?;
        plan.link = copy.link;
        plan.parents = copy.parents;
        if copy.parents {
            plan.created_by = plan.created_by.replacen("COPY", "COPY --parents", 1);
        }
        for source in &plan.sources {
            match fetch::remote(source).map_err(Fault::said)? {
                Some(Remote::Http(_)) => return Err(Fault::said("source can't be a URL for COPY")),
                Some(Remote::Git(_)) => return Err(Fault::said("source can't be a git ref for COPY")),
                None => {}
            }
        }
        let arguments = plan.sources.clone();
        let origin = match &copy.from {
            None => solver.context_files(),
            Some(from) if from.text.contains('$') => {
                return Err(Fault::said(
                    "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
                ));
            }
            Some(from) => solver.origin(self.index, &from.text, true)?,
        };
        self.put(plan, "COPY", vec![Asked { origin, arguments, unpack: false }])
    }

    pub(crate) fn add(&mut self, add: &Add) -> Result<(), Fault> {
        let solver = self.solver;
        let mut plan = plan(
            &solver.lexer,
            &self.state,
            "ADD",
            &add.files,
            add.chown.as_ref(),
            add.chmod.as_ref(),
            &add.exclude,
        )?;
        plan.link = add.link;
        let mut remotes: Vec<Option<Remote>> = Vec::new();
        for source in &plan.sources {
            remotes.push(fetch::remote(source).map_err(Fault::said)?);
        }
        let checksum = match &add.checksum {
            None => None,
            Some(word) => {
                if plan.sources.len() != 1 || remotes[0].is_none() {
                    return Err(Fault::said("checksum requires HTTP(S) or Git sources"));
                }
                Some(self.expand(&word.text)?).filter(|text| !text.is_empty())
            }
        };
        let mut fetched: Vec<(Arc<Source>, String)> = Vec::new();
        for remote in remotes.iter().flatten() {
            fetched.push(match remote {
                Remote::Http(url) => solver.fetch_http(url, checksum.as_deref())?,
                Remote::Git(git) => solver.fetch_git(git, checksum.as_deref(), add.keep_git_dir)?,
            });
        }
        let mut asked = Vec::new();
        let mut next = fetched.into_iter();
        for (argument, remote) in plan.sources.iter().zip(&remotes) {
            let unpack = add.unpack.unwrap_or(remote.is_none());
            let (origin, argument) = match remote {
                None => (solver.context_files(), argument.clone()),
                Some(_) => {
                    let (source, argument) = next.next().expect("each remote source was fetched");
                    (Origin::Open(source), argument)
                }
            };
            asked.push(Asked { origin, arguments: vec![argument], unpack });
        }
        self.put(plan, "ADD", asked)
    }

    fn put(&mut self, plan: Plan, instruction: &str, asked: Vec<Asked>) -> Result<(), Fault> {
        let exclude =
            ignore::Matcher::new(&plan.exclude).map_err(|e| Fault::said(format!("--exclude: {e}")))?;
        let mode = plan.chmod.as_deref().map(chmod::Mode::parse).transpose();
        let mode = mode.map_err(|e| Fault::said(format!("--chmod: {e}")))?;
        let taken: Vec<Taken<'_>> = asked
            .into_iter()
            .map(|asked| Taken {
                solver: self.solver,
                asked,
                parents: plan.parents,
                exclude: &exclude,
                source: OnceCell::new(),
                selections: OnceCell::new(),
            })
            .collect();
        // A link does not depend on what lies below, but names of owners are looked up there.
        let below_counts = !plan.link || plan.chown.is_some();
        let parent = if below_counts { self.state.filesystem_key() } else { "link".to_owned() };
        let mut key = self.key(instruction, &parent);
        key.add("link", plan.link.to_string());
        key.add("dest", &plan.dest);
        key.add("chown", plan.chown.as_deref().unwrap_or(""));
        key.add("chmod", plan.chmod.as_deref().unwrap_or(""));
        key.add(
            "unpack",
            taken.iter().map(|taken| if taken.asked.unpack { '1' } else { '0' }).collect::<String>(),
        );
        let newest = self.add_files(&mut key, &taken, &plan)?;
        for (name, data) in &plan.inline {
            key.add(format!("inline {name}"), data);
        }
        let looked_at = taken.iter().filter_map(|taken| taken.selections.get());
        wait_until_past(looked_at.flatten())?;
        let stage_layers = self.state.layers().to_vec();
        let below = if plan.link { &[][..] } else { &stage_layers };
        // What is copied alone says what time it is: neither the base nor what else is copied makes a difference.
        let is_plain = plan.inline.is_empty() && !taken.iter().any(|taken| taken.asked.unpack);
        let product = Product {
            time: newest.filter(|_| is_plain),
            place: &|| match is_plain && !plan.link && newest.is_some() {
                true => place(below, &key, &plan, &taken),
                false => Ok(None),
            },
            ..Product::new(below, &key, plan.created_by.clone())
        };
        self.layer_of_product(&product, |run, snapshot| {
            run.write(snapshot, &stage_layers, &plan, mode, &taken)
        })
    }

    /// Adds the files to the key. A tree that never changes is not looked at again for a question that was answered.
    /// Returns the time of the newest of them, unless there is one for all.
    fn add_files(
        &mut self,
        key: &mut KeyInputs,
        taken: &[Taken<'_>],
        plan: &Plan,
    ) -> Result<Option<Timestamp>, Fault> {
        let solver = self.solver;
        let mut all = Hasher::default();
        let mut list = Some(Vec::new());
        let mut newest = 0;
        for taken in taken {
            let question = taken.asked.origin.layers().map(|layers| {
                let mut question = KeyInputs::new("select", "");
                layers.iter().for_each(|layer| question.add("layer", layer.as_str()));
                taken.asked.arguments.iter().for_each(|argument| question.add("source", argument));
                plan.exclude.iter().for_each(|pattern| question.add("exclude", pattern));
                question.add("parents", taken.parents.to_string());
                question.digest()
            });
            let known = question.as_ref().and_then(|question| solver.selected.get(question));
            let (digest, time) = match known {
                Some(known) => {
                    list = None;
                    known
                }
                None => {
                    let found = taken.source()?.fingerprint(taken.selections()?)?;
                    let digest = found.digest.as_str().to_owned();
                    if let Some(question) = &question {
                        solver.selected.put(question, &digest, found.newest);
                    }
                    list = list.zip(found.list).map(|(mut list, found)| {
                        list.extend(found);
                        list
                    });
                    (digest, found.newest)
                }
            };
            field(&mut all, digest.as_bytes());
            newest = newest.max(time);
        }
        let digest = all.finish();
        key.add_files(digest.as_str(), list);
        if solver.epoch.is_some() {
            return Ok(None);
        }
        self.state.advance_clock(newest);
        Ok(Timestamp::from_second(newest).ok())
    }

    /// Writes what is copied into the snapshot.
    fn write(
        &self,
        snapshot: &Snapshot,
        stage_layers: &[DiffId],
        plan: &Plan,
        mode: Option<chmod::Mode>,
        taken: &[Taken<'_>],
    ) -> Result<(), Fault> {
        let store = &self.solver.shared.store;
        let root = self.root_of(snapshot)?;
        let owner = match &plan.chown {
            None => None,
            Some(spec) => {
                let accounts = if plan.link && !stage_layers.is_empty() {
                    let stage = RootDir::new(store.snapshots().mount_ro(stage_layers)?);
                    Accounts::read(&stage).at("read", "/etc/passwd")?
                } else {
                    Accounts::read(&root).at("read", "/etc/passwd")?
                };
                Some(accounts.owner(spec).map_err(Fault::said)?)
            }
        };
        let changes = Changes { owner, mode };
        let copier = Copier::new(&root, &changes, &self.solver.stop);
        if let [one] = taken
            && let [selection] = one.selections()?
            && !one.asked.unpack
            && plan.inline.is_empty()
        {
            // Nothing comes after it: what is new can do without the overlay, which has to end first.
            let fresh = copier.begin(one.source()?, selection, &plan.dest)?;
            drop(root);
            return fresh.fill(&RootDir::open_host(&snapshot.upper).at("open", &snapshot.upper)?);
        }
        for taken in taken {
            for selection in taken.selections()? {
                let source = taken.source()?;
                if !(taken.asked.unpack && self.unpack(&root, owner, source, selection, &plan.dest)?) {
                    copier.copy(source, selection, &plan.dest)?;
                }
            }
        }
        for (name, data) in &plan.inline {
            copier.inline(name, data.as_bytes(), &plan.dest)?;
        }
        Ok(())
    }

    /// The tree that a step writes to: layers below and its own, or its own alone if there are none.
    fn root_of(&self, snapshot: &Snapshot) -> Result<RootDir, Fault> {
        if snapshot.layers.is_empty() {
            return Ok(RootDir::open_host(&snapshot.upper).at("open", &snapshot.upper)?);
        }
        Ok(RootDir::new(self.solver.shared.store.snapshots().mount_volatile(&snapshot.key)?))
    }

    /// Unpacks a selected file if it is an archive.
    fn unpack(
        &self,
        root: &RootDir,
        owner: Option<(u32, u32)>,
        source: &Source,
        selection: &Selection,
        dest: &str,
    ) -> Result<bool, Fault> {
        let Some(entry) = selection.entries.first().filter(|entry| entry.meta.kind == Kind::File) else {
            return Ok(false);
        };
        let file = source.root.open_file(&entry.from).at("open", &entry.from)?;
        let Some(reader) = untar::open(file)? else { return Ok(false) };
        let plain = root.resolve(Path::new(dest)).at("resolve", dest)?;
        // `--chmod` says nothing about archives.
        let changes = Changes { owner, mode: None };
        Copier::new(root, &changes, &self.solver.stop).dirs(&plain)?;
        let into = root.subtree(&plain).at("open", &plain)?;
        Unpacker { root: &into, owner, cancel: &self.solver.stop }.unpack(reader)?;
        Ok(true)
    }

    /// A layer that holds nothing but a part of a tree.
    pub(crate) fn layer_of(&mut self, source: &Source, path: &str) -> Result<DiffId, Fault> {
        let none = ignore::Matcher::default();
        let selections = source.select(path, &none)?;
        let found = source.fingerprint(&selections)?;
        if self.solver.epoch.is_none() {
            self.state.advance_clock(found.newest);
        }
        wait_until_past(&selections)?;
        let mut key = self.key("tree", "");
        key.add_files(found.digest.as_str(), found.list);
        let product = Product::new(&[], &key, format!("files of {}", source.name));
        let record = self.made(&product, |run, snapshot| {
            let root = run.root_of(snapshot)?;
            let changes = Changes::default();
            let copier = Copier::new(&root, &changes, &run.solver.stop);
            selections.iter().try_for_each(|selection| copier.copy(source, selection, "/"))
        })?;
        Ok(record.layer)
    }

    /// `WORKDIR` makes the directory, for the current user, and a layer even if there is nothing to make.
    pub(crate) fn workdir(&mut self, path: &str) -> Result<(), Fault> {
        let path = self.expand(path)?;
        let dir = self.state.set_working_dir(&path);
        if dir == "/" {
            self.state.add_empty(format!("WORKDIR {dir}"));
            return Ok(());
        }
        let user = self.state.user().to_owned();
        let mut key = self.key("WORKDIR", &self.state.filesystem_key());
        key.add("path", &dir);
        key.add("user", &user);
        self.layer(&key, format!("WORKDIR {dir}"), |run, snapshot| {
            let root = run.root_of(snapshot)?;
            let owner = if user.is_empty() {
                (0, 0)
            } else {
                let accounts = Accounts::read(&root).at("read", "/etc/passwd")?;
                let user = accounts.process(&user).map_err(Fault::said)?;
                (user.uid, user.gid)
            };
            let plain = root.resolve(Path::new(&dir)).at("resolve", &dir)?;
            match root.make_dirs(&plain, &|root, path| root.set_owner(path, owner.0, owner.1)) {
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOTDIR) => {
                    Err(Fault::said(format!("cannot create the working directory {dir}: not a directory")))
                }
                result => Ok(result.at("create directory", &dir)?),
            }
        })
    }
}

/// What a copy depends on, if that is less than all of what lies below it.
fn place(
    below: &[DiffId],
    key: &KeyInputs,
    plan: &Plan,
    taken: &[Taken<'_>],
) -> Result<Option<Digest>, Fault> {
    let Some(Taken { solver, .. }) = taken.first().filter(|_| !below.is_empty()) else { return Ok(None) };
    let root = RootDir::new(solver.shared.store.snapshots().mount_ro(below)?);
    let owner = match &plan.chown {
        None => None,
        Some(spec) => {
            let accounts = Accounts::read(&root).at("read", "/etc/passwd")?;
            Some(accounts.owner(spec).map_err(Fault::said)?)
        }
    };
    let mut selections = Vec::new();
    for taken in taken {
        selections.extend(taken.selections()?);
    }
    let found = placed::place(&root, key, selections.into_iter(), &plan.dest, owner);
    Ok(found.at("look at", &plan.dest)?)
}

/// Waits until the files are older than what a step makes from now on.
fn wait_until_past<'a>(selections: impl IntoIterator<Item = &'a Selection>) -> Result<(), Fault> {
    let entries = selections.into_iter().flat_map(|selection| &selection.entries);
    Ok(tick::wait_until_past(entries.map(|entry| entry.meta.mtime)).at("read", "clock")?)
}

/// Expands all words of a `COPY` or `ADD`. Pure.
pub(crate) fn plan(
    lexer: &Lexer,
    state: &StageState,
    keyword: &str,
    files: &Files,
    chown: Option<&Word>,
    chmod: Option<&Word>,
    exclude: &[Word],
) -> Result<Plan, Fault> {
    let expand = |word: &Word| lexer.word(&word.text, &state.env[..]).map_err(|e| Fault::said(e.to_string()));
    let chown = chown.map(expand).transpose()?.filter(|text| !text.is_empty());
    let chmod = chmod.map(expand).transpose()?.filter(|text| !text.is_empty());
    let sources: Vec<String> = files.sources.iter().map(expand).collect::<Result<_, _>>()?;
    let written_dest = expand(&files.dest)?;
    // Bodies keep their quotes, and always know the backslash.
    let body = Lexer { skip_quotes: true, ..Lexer::default() };
    let mut inline = Vec::new();
    for file in &files.inline {
        let data = if file.expand {
            body.word(&file.data, &state.env[..]).map_err(|e| Fault::said(e.to_string()))?
        } else {
            file.data.clone()
        };
        inline.push((file.name.clone(), data));
    }
    let mut created_by = keyword.to_owned();
    for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
        if let Some(value) = value {
            created_by.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in &sources {
        created_by.push_str(&format!(" {source}"));
    }
    for (name, _) in &inline {
        created_by.push_str(&format!(" <<{name}"));
    }
    created_by.push_str(&format!(" {written_dest} # buildkit"));
    let dest = if written_dest.is_empty() { ".".to_owned() } else { written_dest };
    // `.` and `dir/.` mean directories.
    let dest = match state.absolute(&dest) {
        dest if dest.ends_with("/.") => dest[..dest.len() - 1].to_owned(),
        dest => dest,
    };
    let exclude = exclude.iter().map(|word| word.text.clone()).collect();
    Ok(Plan { sources, inline, dest, chown, chmod, exclude, parents: false, link: false, created_by })
}
