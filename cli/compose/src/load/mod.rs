//! From files to a model.
//!
//! Every file goes the same way, one after the other:
//!
//! ```text
//! parse ─▶ interpolate ─▶ extends ─▶ resets ─▶ include ─▶ merge ─▶ grammar ─▶ canonical form
//! ```
//!
//! Then the whole takes its defaults, is checked, has its paths made absolute, and is normalised.
//!
//! # Where values of variables come from
//! For `${VAR}` in a Compose file, the first of these that has it:
//! 1. the environment of the command,
//! 2. the files of `--env-file` (a later one wins over an earlier one); without any the `.env` beside the
//!    Compose file (or in the project directory),
//! 3. for an included file: the `env_file` of its `include`, or the `.env` beside it.
//!
//! For a variable in a container, the first of these that has it:
//! 1. `environment` of the service (a name without a value takes it from the list above),
//! 2. `env_file` of the service, the last file first,
//! 3. `ENV` of the image.

mod canonical;
mod check;
mod dotenv;
mod extends;
mod fault;
mod include;
mod interpolate;
mod merge;
mod normalize;
mod options;
mod paths;
mod schema;
mod shapes;
mod short;
mod template;
mod unique;

use std::{
    collections::BTreeMap,
    path::{Path as FilePath, PathBuf},
};

pub(crate) use check::consistency;
pub(crate) use dotenv::{read as read_variables, read_raw as read_raw_variables};
pub(crate) use fault::Fault;
pub use fault::{LoadError, Problem, Sources};
pub(crate) use interpolate::boolean;
pub use options::{Options, normalize_name};
pub(crate) use short::{mount as short_mount, published as short_ports};
pub use template::Variable;

use crate::yaml::{self, Map, Node, Path, Value};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// What the user should know though it is no error. Each is told once.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    pub(crate) fn add(&mut self, warning: String) {
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }

    /// The warnings, in the order they came up.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// A loaded tree and where it came from.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The canonical tree.
    pub root: Node,
    /// The files read.
    pub sources: Sources,
    /// The project's name.
    pub name: String,
    /// Its directory.
    pub working_dir: PathBuf,
    /// The files named or found, `-` for standard input.
    pub files: Vec<PathBuf>,
    /// Variables for interpolation.
    pub environment: Environment,
    /// Profiles that were asked for.
    pub profiles: Vec<String>,
    /// What the user should know.
    pub warnings: Warnings,
}

/// Loads the files that `options` name, or that are found.
///
/// # Errors
/// If there are none, one cannot be read, or something in them cannot be.
pub fn load(options: &Options) -> Result<Tree, LoadError> {
    let located = options::locate(options)?;
    let mut environment = located.environment;
    let name = options::project_name(options, &located.files, &located.directory, &environment)?;
    environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let mut loader = Loader { options, sources: Sources::default(), warnings: Warnings::default() };
    let scope = Scope { directory: located.directory.clone(), environment: environment.clone() };
    let mut root = loader.model(&located.files, &scope, &[])?;
    if root.is_empty() {
        let file = located.files.first().cloned().unwrap_or_default();
        let file = loader.sources.add(&file);
        let mark = yaml::Mark { file, line: 1, column: 1 };
        return Err(loader.sources.problem(Fault::new(mark, &Path::root(), "empty compose file")).into());
    }
    if options.normalize {
        if name.is_empty() {
            return Err(LoadError::NoProjectName);
        }
        root.insert("name".to_owned(), Node::new(name.as_str(), yaml::Mark::default()));
        normalize::normalize(&mut root, &name, &environment);
    }
    Ok(Tree {
        root: Node { value: Value::Map(root), ..Node::default() },
        sources: loader.sources,
        name,
        working_dir: located.directory,
        files: located.files,
        environment,
        profiles: located.profiles,
        warnings: loader.warnings,
    })
}

impl Tree {
    /// The variables the files use, for `config --variables`; load without interpolation for it.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, Variable> {
        fn walk(node: &Node, found: &mut BTreeMap<String, Variable>) {
            match &node.value {
                Value::Text(text) => template::variables(text, found),
                Value::List(list) => list.iter().for_each(|node| walk(node, found)),
                Value::Map(map) => map.values().for_each(|node| walk(node, found)),
                _ => {}
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.root, &mut found);
        found
    }

    /// An error about the value at `path`, with its place.
    pub(crate) fn problem(&self, path: &Path, message: impl Into<String>) -> LoadError {
        // What has no place of its own has that of what it is in.
        let mut parts: Vec<&str> = path.parts().collect();
        let mark = loop {
            let here: Path = parts.iter().map(|part| (*part).to_owned()).collect();
            match self.root.at(&here) {
                Some(node) if node.mark.line > 0 => break node.mark,
                _ if parts.is_empty() => break yaml::Mark::default(),
                _ => drop(parts.pop()),
            }
        };
        self.sources.problem(Fault::new(mark, path, message)).into()
    }
}

/// What a file is read within.
#[derive(Debug, Clone)]
struct Scope {
    /// Relative paths are seen from here.
    directory: PathBuf,
    environment: Environment,
}

struct Loader<'a> {
    options: &'a Options,
    sources: Sources,
    warnings: Warnings,
}

impl Loader<'_> {
    /// Files on top of each other, with defaults, checked, paths absolute. `within` are the files that include them.
    fn model(&mut self, files: &[PathBuf], scope: &Scope, within: &[PathBuf]) -> Result<Map, LoadError> {
        let mut model = Node::new(Map::new(), yaml::Mark::default());
        for file in files {
            model = self.file(file, scope, within, model)?;
        }
        normalize::set_defaults(&mut model);
        self.locate(|| check::values(&model))?;
        if self.options.resolve_paths {
            let home = scope.environment.get("HOME").map(String::as_str);
            self.locate(|| paths::resolve(&mut model, &scope.directory, home))?;
        }
        let mut root = std::mem::take(model.as_map_mut().unwrap_or(&mut Map::new()));
        normalize::resolve_environment(&mut root, &scope.environment);
        Ok(root)
    }

    fn locate<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, LoadError> {
        work().map_err(|fault| self.sources.problem(fault).into())
    }

    /// One file on top of `base`.
    fn file(
        &mut self,
        file: &FilePath,
        scope: &Scope,
        within: &[PathBuf],
        base: Node,
    ) -> Result<Node, LoadError> {
        let mut model = base;
        for document in self.documents(file)? {
            let mut root = self.mapping(document.root)?;
            self.interpolate(&mut root, scope)?;
            self.extends(&mut root, file, &document.resets, scope)?;
            for path in &document.resets {
                reset(&mut model, path);
            }
            let mut chain = within.to_vec();
            chain.push(file.to_owned());
            self.include(&mut root, scope, &chain)?;
            model = self.stack(model, root)?;
            self.locate(|| schema::validate(&model))?;
            let obsolete = model.as_map_mut().and_then(|root| root.shift_remove("version")).is_some();
            if obsolete {
                self.warnings.add(format!(
                    "{}: the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential confusion",
                    file.display()
                ));
            }
            self.canonical(&mut model)?;
        }
        Ok(model)
    }

    fn documents(&mut self, file: &FilePath) -> Result<Vec<yaml::Document>, LoadError> {
        let index = self.sources.add(file);
        let text = options::read(self.options, file)?;
        self.locate(|| yaml::parse(&text, index))
    }

    fn mapping(&self, root: Node) -> Result<Map, LoadError> {
        match root.value {
            Value::Map(map) => Ok(map),
            Value::Null => Ok(Map::new()),
            other => {
                let message = format!("the top of a Compose file must be a mapping, not {}", other.kind());
                Err(self.sources.problem(Fault::new(root.mark, &Path::root(), message)).into())
            }
        }
    }

    fn interpolate(&mut self, root: &mut Map, scope: &Scope) -> Result<(), LoadError> {
        if !self.options.interpolate {
            return Ok(());
        }
        let value = |name: &str| scope.environment.get(name).cloned();
        interpolate::interpolate(root, &value, &mut self.warnings)
            .map_err(|fault| self.sources.problem(fault).into())
    }

    fn stack(&self, model: Node, root: Map) -> Result<Node, LoadError> {
        let over = Node::new(root, yaml::Mark::default());
        self.locate(|| {
            let mut model = merge::merge(model, over)?;
            unique::enforce(&mut model)?;
            Ok(model)
        })
    }

    fn canonical(&mut self, model: &mut Node) -> Result<(), LoadError> {
        let lenient = !self.options.interpolate;
        let rewritten = canonical::canonical(model, lenient, &mut self.warnings);
        // A range of ports may show only now that it says again what another entry says.
        rewritten.and_then(|()| unique::enforce(model)).map_err(|fault| self.sources.problem(fault).into())
    }
}

/// Takes what is at `path` away.
fn reset(node: &mut Node, path: &Path) {
    fn walk(node: &mut Node, path: &Path, wanted: &Path) {
        match &mut node.value {
            Value::Map(map) => {
                map.retain(|key, _| !path.join(key.as_str()).is_like(wanted));
                for (key, node) in map {
                    walk(node, &path.join(key.as_str()), wanted);
                }
            }
            Value::List(list) => {
                for (index, node) in list.iter_mut().enumerate() {
                    walk(node, &path.join(index.to_string()), wanted);
                }
            }
            _ => {}
        }
    }
    walk(node, &Path::root(), path);
}
