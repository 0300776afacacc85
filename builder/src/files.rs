//! The steps that put files into a stage: `COPY`, `ADD`, `WORKDIR`.

use std::path::Path;

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{Add, Copy, Files};
use berth_dockerfile_parser::syntax::Word;
use berth_dockerfile_parser::{chmod, ignore};
use berth_oci::DiffId;
use berth_store::Snapshot;

use crate::copy::{Changes, Copier};
use crate::fault::{At, Fault};
use crate::key::KeyInputs;
use crate::rootdir::{Kind, RootDir};
use crate::solve::Solver;
use crate::source::{Selection, Source};
use crate::stage::StageState;
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
    /// Archives are unpacked.
    unpack: bool,
    /// The files make a layer of their own, whatever lies below.
    link: bool,
    pub(crate) created_by: String,
}

impl Solver<'_> {
    pub(crate) fn copy(&self, index: usize, state: &mut StageState, copy: &Copy) -> Result<(), Fault> {
        if copy.parents {
            return Err(Fault::said(
                "COPY --parents is not supported yet; name the directories in the destination",
            ));
        }
        let mut plan = plan(
            &self.lexer,
            state,
            "COPY",
            &copy.files,
            copy.chown.as_ref(),
            copy.chmod.as_ref(),
            &copy.exclude,
        )?;
        plan.link = copy.link;
        if let Some(url) = plan.sources.iter().find(|source| is_url(source)) {
            return Err(Fault::said(format!("source can't be a URL for COPY: {url} (ADD can fetch it)")));
        }
        match &copy.from {
            None => self.put(state, plan, &self.context.source),
            Some(from) if from.text.contains('$') => Err(Fault::said(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
            )),
            Some(from) => {
                let source = self.source_named(index, &from.text, true)?;
                self.put(state, plan, &source)
            }
        }
    }

    pub(crate) fn add(&self, state: &mut StageState, add: &Add) -> Result<(), Fault> {
        let mut plan = plan(
            &self.lexer,
            state,
            "ADD",
            &add.files,
            add.chown.as_ref(),
            add.chmod.as_ref(),
            &add.exclude,
        )?;
        plan.unpack = add.unpack.unwrap_or(true);
        plan.link = add.link;
        if let Some(url) = plan.sources.iter().find(|source| is_url(source)) {
            return Err(Fault::said(format!(
                "ADD of {url}: fetching from the network is not supported yet; RUN wget, or put the file into the build context"
            )));
        }
        if add.checksum.is_some() {
            return Err(Fault::said("checksum requires HTTP(S) or Git sources"));
        }
        self.put(state, plan, &self.context.source)
    }

    fn put(&self, state: &mut StageState, plan: Plan, source: &Source) -> Result<(), Fault> {
        let exclude =
            ignore::Matcher::new(&plan.exclude).map_err(|e| Fault::said(format!("--exclude: {e}")))?;
        let mode = plan.chmod.as_deref().map(chmod::Mode::parse).transpose();
        let mode = mode.map_err(|e| Fault::said(format!("--chmod: {e}")))?;
        let mut selections: Vec<Selection> = Vec::new();
        for argument in &plan.sources {
            selections.extend(source.select(argument, &exclude)?);
        }
        // A link does not depend on what lies below, but names of owners are looked up there.
        let parent =
            if plan.link && plan.chown.is_none() { "link".to_owned() } else { state.filesystem_key() };
        let mut key = KeyInputs::new(if plan.unpack { "ADD" } else { "COPY" }, &parent);
        key.add("link", plan.link.to_string());
        key.add("dest", &plan.dest);
        key.add("chown", plan.chown.as_deref().unwrap_or(""));
        key.add("chmod", plan.chmod.as_deref().unwrap_or(""));
        source.add_to_key(&mut key, &selections)?;
        for (name, data) in &plan.inline {
            key.add(format!("inline {name}"), data);
        }
        let created_by = plan.created_by.clone();
        let stage_layers = state.layers().to_vec();
        let below = if plan.link { &[][..] } else { &stage_layers };
        self.layer_on(below, state, &key, created_by, |snapshot| {
            self.write(snapshot, &stage_layers, &plan, mode, source, &selections)
        })
    }

    fn write(
        &self,
        snapshot: &Snapshot,
        stage_layers: &[DiffId],
        plan: &Plan,
        mode: Option<chmod::Mode>,
        source: &Source,
        selections: &[Selection],
    ) -> Result<(), Fault> {
        let root = RootDir::new(self.shared.store.snapshots().mount(&snapshot.key)?);
        let owner = match &plan.chown {
            None => None,
            Some(spec) => {
                let accounts = if plan.link && !stage_layers.is_empty() {
                    let stage = RootDir::new(self.shared.store.snapshots().mount_ro(stage_layers)?);
                    Accounts::read(&stage).at("read", "/etc/passwd")?
                } else {
                    Accounts::read(&root).at("read", "/etc/passwd")?
                };
                Some(accounts.owner(spec).map_err(Fault::said)?)
            }
        };
        let changes = Changes { owner, mode };
        let copier = Copier::new(&root, &changes, &self.io.cancel);
        for selection in selections {
            if !(plan.unpack && self.unpack(&root, owner, source, selection, &plan.dest)?) {
                copier.copy(source, selection, &plan.dest)?;
            }
        }
        for (name, data) in &plan.inline {
            copier.inline(name, data.as_bytes(), &plan.dest)?;
        }
        Ok(())
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
        Copier::new(root, &changes, &self.io.cancel).dirs(&plain)?;
        Unpacker { root, dest: &plain, owner, cancel: &self.io.cancel }.unpack(reader)?;
        Ok(true)
    }

    /// `WORKDIR` makes the directory, for the current user, and a layer even if there is nothing to make.
    pub(crate) fn workdir(&self, state: &mut StageState, path: &str) -> Result<(), Fault> {
        let path = self.expand(state, path)?;
        let dir = state.set_working_dir(&path);
        if dir == "/" {
            state.add_empty(format!("WORKDIR {dir}"));
            return Ok(());
        }
        let user = state.user().to_owned();
        let mut key = KeyInputs::new("WORKDIR", &state.filesystem_key());
        key.add("path", &dir);
        key.add("user", &user);
        self.layer(state, &key, format!("WORKDIR {dir}"), |snapshot| {
            let root = RootDir::new(self.shared.store.snapshots().mount(&snapshot.key)?);
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
    Ok(Plan { sources, inline, dest, chown, chmod, exclude, unpack: false, link: false, created_by })
}

fn is_url(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}
