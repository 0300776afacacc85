//! `include`: other projects' files, each with its own directory and environment.

use std::path::{Path as FilePath, PathBuf};

use super::{Fault, LoadError, Loader, Scope, fault::NOT_FETCHED, options, paths};
use crate::yaml::{Map, Mark, Node, Path, Value};

/// The sections an included file adds to.
const SECTIONS: &[&str] = &["services", "volumes", "networks", "secrets", "configs", "models"];

struct Include {
    files: Vec<PathBuf>,
    directory: PathBuf,
    env_files: Vec<PathBuf>,
    mark: Mark,
}

impl Loader<'_> {
    /// Adds what the files named by `include` say, and takes `include` away. `chain` are the files that led here.
    pub(super) fn include(
        &mut self,
        root: &mut Map,
        scope: &Scope,
        chain: &[PathBuf],
    ) -> Result<(), LoadError> {
        let Some(includes) = root.shift_remove("include") else { return Ok(()) };
        let path = Path::from("include");
        let items = match includes.value {
            Value::List(items) => items,
            Value::Null => return Ok(()),
            other => {
                let message = format!("must be a list, not {}", other.kind());
                return Err(self.sources.problem(Fault::new(includes.mark, &path, message)).into());
            }
        };
        for (index, item) in items.iter().enumerate() {
            let path = path.join(index.to_string());
            let include = self.read_include(item, scope, &path)?;
            if let Some(main) = include.files.first().filter(|main| chain.contains(main)) {
                let chain: Vec<String> =
                    chain.iter().chain([main]).map(|file| file.display().to_string()).collect();
                let message = format!("include cycle detected: {}", chain.join(" includes "));
                return Err(self.sources.problem(Fault::new(include.mark, &path, message)).into());
            }
            let mut environment = scope.environment.clone();
            options::add_env_files(&include.env_files, &mut environment)?;
            let inner = Scope { directory: include.directory, environment };
            let imported = self.model(&include.files, &inner, chain)?;
            self.import(imported, root, include.mark)?;
        }
        Ok(())
    }

    fn read_include(&self, item: &Node, scope: &Scope, path: &Path) -> Result<Include, LoadError> {
        let wrong = |message: String| self.sources.problem(Fault::new(item.mark, path, message)).into();
        let texts = |node: Option<&Node>| match node.map(|node| &node.value) {
            Some(Value::Text(text)) => vec![text.clone()],
            Some(Value::List(list)) => list.iter().map(|item| item.value.to_string()).collect(),
            _ => Vec::new(),
        };
        let home = scope.environment.get("HOME").map(String::as_str);
        let absolute = |text: &str| PathBuf::from(paths::absolute(text, &scope.directory, home));
        let (files, directory, env_files) = match &item.value {
            Value::Text(file) => (vec![file.clone()], None, Vec::new()),
            Value::Map(_) => {
                let directory = item.get("project_directory").and_then(Node::as_text);
                (texts(item.get("path")), directory, texts(item.get("env_file")))
            }
            other => return Err(wrong(format!("must be a file or a mapping, not {}", other.kind()))),
        };
        if let Some(remote) = files.iter().find(|file| paths::is_fetched(file)) {
            return Err(wrong(format!("{remote} {NOT_FETCHED}")));
        }
        let files: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
        let main = files.first().ok_or_else(|| wrong("\"path\" is missing".to_owned()))?;
        if let Some(missing) = files.iter().find(|file| !file.is_file()) {
            return Err(wrong(format!("{} is not there", missing.display())));
        }
        let directory = match directory {
            Some(directory) => absolute(directory),
            None => main.parent().unwrap_or(FilePath::new("/")).to_owned(),
        };
        let env_files: Vec<PathBuf> = if env_files.is_empty() {
            Some(directory.join(".env")).filter(|file| file.is_file()).into_iter().collect()
        } else {
            env_files.iter().map(|file| absolute(file)).collect()
        };
        if let Some(missing) = env_files.iter().find(|file| file.is_dir() || !file.exists()) {
            return Err(wrong(format!("env_file {} is not a file", missing.display())));
        }
        Ok(Include { files, directory, env_files, mark: item.mark })
    }

    /// Adds the sections of `imported`; what is there already must say the same.
    fn import(&self, mut imported: Map, root: &mut Map, mark: Mark) -> Result<(), LoadError> {
        for section in SECTIONS {
            let Some(Node { value: Value::Map(entries), .. }) = imported.shift_remove(*section) else {
                continue;
            };
            let there = root.entry((*section).to_owned()).or_insert_with(|| Node::new(Map::new(), mark));
            if there.is_null() {
                there.value = Value::Map(Map::new());
            }
            let Some(there) = there.as_map_mut() else { continue };
            for (name, node) in entries {
                match there.get(&name) {
                    None => {
                        there.insert(name, node);
                    }
                    Some(same) if *same == node => {}
                    Some(other) => {
                        let path = Path::from(*section).join(name);
                        let message = "conflicts with the one that is included";
                        return Err(self.sources.problem(Fault::new(other.mark, &path, message)).into());
                    }
                }
            }
        }
        Ok(())
    }
}
