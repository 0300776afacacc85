//! Which files, which directory, which name, which environment.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
};

use super::{Environment, LoadError, dotenv, template};
use crate::yaml::{Node, Value};

/// Names of Compose files, the best first.
const FILES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Names of files that are put on top of one found.
const OVERRIDES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What the command line and its surroundings say.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files named with `-f`; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// The environment of the command.
    pub environment: Environment,
    /// The directory it runs in.
    pub current_dir: PathBuf,
    /// What stands on standard input, when a file is `-`.
    pub stdin: String,
    /// Whether variables are filled in.
    pub interpolate: bool,
    /// Whether what is unsaid is filled in.
    pub normalize: bool,
    /// Whether paths are made absolute.
    pub resolve_paths: bool,
}

impl Options {
    /// Options of a command that says nothing, run in `current_dir`.
    #[must_use]
    pub fn new(current_dir: PathBuf, environment: Environment) -> Self {
        Self {
            files: Vec::new(),
            project_name: None,
            project_directory: None,
            env_files: Vec::new(),
            profiles: Vec::new(),
            environment,
            current_dir,
            stdin: String::new(),
            interpolate: true,
            normalize: true,
            resolve_paths: true,
        }
    }

    fn absolute(&self, path: &FilePath) -> PathBuf {
        super::paths::clean(&self.current_dir.join(path).to_string_lossy()).into()
    }

    /// The directory that paths are relative to, as far as it is known before a search.
    fn directory(&self, files: &[PathBuf]) -> PathBuf {
        if let Some(directory) = &self.project_directory {
            return self.absolute(directory);
        }
        let named = files.iter().find(|file| *file != FilePath::new("-"));
        match named.map(|file| self.absolute(file)) {
            Some(file) => file.parent().map(FilePath::to_owned).unwrap_or_default(),
            None => self.current_dir.clone(),
        }
    }
}

/// What was found.
pub(super) struct Located {
    pub(super) files: Vec<PathBuf>,
    pub(super) directory: PathBuf,
    pub(super) environment: Environment,
    pub(super) profiles: Vec<String>,
}

/// Finds files, directory, environment and profiles.
pub(super) fn locate(options: &Options) -> Result<Located, LoadError> {
    let mut environment = options.environment.clone();
    environment.entry("PWD".to_owned()).or_insert_with(|| options.current_dir.to_string_lossy().into_owned());
    let mut files = options.files.clone();
    read_env_files(options, &options.directory(&files), &mut environment)?;
    if files.is_empty()
        && let Some(named) = environment.get("COMPOSE_FILE")
    {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        let separator = if separator.is_empty() { ":" } else { separator };
        files = named.split(separator).map(PathBuf::from).collect();
    }
    if files.is_empty() {
        files = search(&options.directory(&[]))
            .ok_or_else(|| LoadError::NoFile { directory: options.directory(&[]) })?;
    }
    let mut named = files.iter().map(|file| file.to_string_lossy());
    if let Some(remote) = named.find(|file| super::paths::is_fetched(file)) {
        return Err(LoadError::Remote(remote.into_owned()));
    }
    let directory = options.directory(&files);
    read_env_files(options, &directory, &mut environment)?;
    let files = files
        .iter()
        .map(|file| if file == FilePath::new("-") { file.clone() } else { options.absolute(file) })
        .collect();
    let profiles = if options.profiles.is_empty() {
        let named = environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
        named
            .split(',')
            .map(|profile| profile.trim().to_owned())
            .filter(|profile| !profile.is_empty())
            .collect()
    } else {
        options.profiles.clone()
    };
    Ok(Located { files, directory, environment, profiles })
}

/// Adds what the command's environment does not say already.
fn read_env_files(
    options: &Options,
    directory: &FilePath,
    environment: &mut Environment,
) -> Result<(), LoadError> {
    let files = if !options.env_files.is_empty() {
        options.env_files.iter().map(|file| options.absolute(file)).collect()
    } else {
        let disabled = environment.get("COMPOSE_DISABLE_ENV_FILE");
        let disabled = disabled
            .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
        let default = directory.join(".env");
        if disabled || !default.is_file() { Vec::new() } else { vec![default] }
    };
    add_env_files(&files, environment)
}

/// Reads files of variables one after the other; what is there already stays.
pub(super) fn add_env_files(files: &[PathBuf], environment: &mut Environment) -> Result<(), LoadError> {
    let mut read = Environment::new();
    for file in files {
        let known = environment.clone();
        dotenv::read(file, &mut read, &|name| known.get(name).cloned())?;
    }
    for (name, value) in read {
        environment.entry(name).or_insert(value);
    }
    Ok(())
}

/// A Compose file in the directory or above it, with its override.
fn search(directory: &FilePath) -> Option<Vec<PathBuf>> {
    let first = |directory: &FilePath, names: &[&str]| {
        names.iter().map(|name| directory.join(name)).find(|file| file.exists())
    };
    directory.ancestors().find_map(|directory| {
        let file = first(directory, FILES)?;
        let mut files = vec![file];
        files.extend(first(directory, OVERRIDES));
        Some(files)
    })
}

/// The text of a file, or standard input.
pub(super) fn read(options: &Options, file: &FilePath) -> Result<String, LoadError> {
    if file == FilePath::new("-") {
        return Ok(options.stdin.clone());
    }
    fs::read_to_string(file).map_err(|source| LoadError::Read { path: file.to_owned(), source })
}

/// A name with what a project's name may not have taken out.
#[must_use]
pub fn normalize_name(name: &str) -> String {
    let allowed =
        |char: &char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '_' | '-');
    let name: String = name.to_lowercase().chars().filter(allowed).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

/// The project's name: `-p`, `COMPOSE_PROJECT_NAME`, `name` of the last file that has one, the directory's name.
pub(super) fn project_name(
    options: &Options,
    files: &[PathBuf],
    directory: &FilePath,
    environment: &Environment,
) -> Result<String, LoadError> {
    let named = options.project_name.as_ref().filter(|name| !name.is_empty());
    let named = named.or_else(|| environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()));
    if let Some(name) = named {
        return if normalize_name(name) == *name {
            Ok(name.clone())
        } else {
            Err(LoadError::ProjectName(name.clone()))
        };
    }
    let mut written = None;
    for file in files {
        // What is wrong with the file is told when it is loaded.
        let documents = crate::yaml::parse(&read(options, file)?, 0).unwrap_or_default();
        for document in documents {
            if let Some(Node { value: Value::Text(name), .. }) = document.root.get("name") {
                written = Some(name.clone()).filter(|name| !name.is_empty()).or(written);
            }
        }
    }
    if let Some(mut name) = written {
        if options.interpolate {
            let value = |name: &str| environment.get(name).cloned();
            let mut lookup = template::Lookup { value: &value, unset: &mut |_| {} };
            if let Ok(filled) = template::substitute(&name, &mut lookup) {
                name = filled;
            }
        }
        let normal = if options.normalize { normalize_name(&name) } else { name };
        if !normal.is_empty() {
            return Ok(normal);
        }
    }
    Ok(normalize_name(&directory.file_name().unwrap_or_default().to_string_lossy()))
}
