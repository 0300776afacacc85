//! `extends`: a service on top of another one, of the same file or another.

use std::path::{Path as FilePath, PathBuf};

use super::{Fault, LoadError, Loader, Scope, fault::NOT_FETCHED, merge, paths, reset};
use crate::yaml::{Map, Mark, Node, Path, Value};

/// A service on the way up: its file and name.
type Step = (PathBuf, String);

impl Loader<'_> {
    /// Replaces every service that extends another one by the two together.
    pub(super) fn extends(
        &mut self,
        root: &mut Map,
        file: &FilePath,
        resets: &[Path],
        scope: &Scope,
    ) -> Result<(), LoadError> {
        let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) else { return Ok(()) };
        let names: Vec<String> = services.keys().cloned().collect();
        for name in names {
            self.extended(&name, services, file, resets, scope, &[])?;
        }
        Ok(())
    }

    /// Puts `services[name]` on top of what it extends; leaves the result there.
    fn extended(
        &mut self,
        name: &str,
        services: &mut Map,
        file: &FilePath,
        resets: &[Path],
        scope: &Scope,
        steps: &[Step],
    ) -> Result<(), LoadError> {
        let path = Path::from("services").join(name);
        let Some(service) = services.get(name).filter(|service| !service.is_null()).cloned() else {
            return Ok(());
        };
        let Some(extends) = service.get("extends").cloned() else { return Ok(()) };
        let (base_name, base_file) = self.reference(&extends, &path.join("extends"), scope)?;
        let mut steps = steps.to_vec();
        let next_file = base_file.as_ref().map_or_else(|| file.to_owned(), PathBuf::from);
        if steps.contains(&(file.to_owned(), name.to_owned())) {
            let chain: Vec<String> =
                steps.iter().map(|(file, name)| format!("{name} in {}", file.display())).collect();
            let message = format!("extends itself: {}", chain.join(", which extends "));
            return Err(self.sources.problem(Fault::new(extends.mark, &path, message)).into());
        }
        steps.push((file.to_owned(), name.to_owned()));
        let base = match &base_file {
            None => {
                self.require(services, &base_name, &extends, &path, file)?;
                self.extended(&base_name, services, file, resets, scope, &steps)?;
                services.get(&base_name).cloned()
            }
            Some(_) => {
                let (mut others, other_resets) = self.base_file(&next_file, &extends, &path, scope)?;
                self.require(&others, &base_name, &extends, &path, &next_file)?;
                self.extended(&base_name, &mut others, &next_file, &other_resets, scope, &steps)?;
                others.get(&base_name).cloned()
            }
        };
        let Some(base) = base.filter(|base| !base.is_null()) else { return Ok(()) };
        let base = without(base, name, resets);
        let mut merged = merge::extend_service(base, service).map_err(|fault| self.sources.problem(fault))?;
        if let Some(merged) = merged.as_map_mut() {
            merged.shift_remove("extends");
        }
        services.insert(name.to_owned(), merged);
        Ok(())
    }

    /// Name and file of what is extended.
    fn reference(
        &self,
        extends: &Node,
        path: &Path,
        scope: &Scope,
    ) -> Result<(String, Option<PathBuf>), LoadError> {
        let wrong = |message: &str| self.sources.problem(Fault::new(extends.mark, path, message)).into();
        match &extends.value {
            Value::Text(name) => Ok((name.clone(), None)),
            Value::Map(map) => {
                let text = |key: &str| map.get(key).and_then(Node::as_text);
                let name = text("service").ok_or_else(|| wrong("\"service\" is missing"))?;
                if let Some(remote) = text("file").filter(|file| paths::is_fetched(file)) {
                    return Err(wrong(&format!("{remote} {NOT_FETCHED}")));
                }
                let file =
                    text("file").map(|file| PathBuf::from(paths::absolute(file, &scope.directory, None)));
                Ok((name.to_owned(), file))
            }
            _ => Err(wrong("must be a service's name or a mapping")),
        }
    }

    fn require(
        &self,
        services: &Map,
        name: &str,
        at: &Node,
        path: &Path,
        file: &FilePath,
    ) -> Result<(), LoadError> {
        if services.contains_key(name) {
            return Ok(());
        }
        let message = format!("extends service {name:?}, which is not in {}", file.display());
        Err(self.sources.problem(Fault::new(at.mark, path, message)).into())
    }

    /// The services of another file, in canonical form, with their paths seen from the project.
    fn base_file(
        &mut self,
        file: &FilePath,
        at: &Node,
        path: &Path,
        scope: &Scope,
    ) -> Result<(Map, Vec<Path>), LoadError> {
        if !file.is_file() {
            let message = format!("extends a service of {}, which is not there", file.display());
            return Err(self.sources.problem(Fault::new(at.mark, path, message)).into());
        }
        let mut model = Node::new(Map::new(), Mark::default());
        let mut resets = Vec::new();
        for document in self.documents(file)? {
            let mut root = self.mapping(document.root)?;
            self.interpolate(&mut root, scope)?;
            document.resets.iter().for_each(|path| reset(&mut model, path));
            model = self.stack(model, root)?;
            self.canonical(&mut model)?;
            resets.extend(document.resets);
        }
        let directory = file.parent().unwrap_or(FilePath::new("/"));
        let home = scope.environment.get("HOME").map(String::as_str);
        self.locate(|| paths::resolve(&mut model, directory, home))?;
        let services = model.as_map_mut().and_then(|root| root.get_mut("services")).map(std::mem::take);
        match services.map(|services| services.value) {
            Some(Value::Map(services)) => Ok((services, resets)),
            _ => {
                let message = format!("extends a service of {}, which has none", file.display());
                Err(self.sources.problem(Fault::new(at.mark, path, message)).into())
            }
        }
    }
}

/// A base without what the extending service resets.
fn without(base: Node, name: &str, resets: &[Path]) -> Node {
    let services = Map::from([(name.to_owned(), base)]);
    let mut root = Node::new(
        Map::from([("services".to_owned(), Node::new(services, Mark::default()))]),
        Mark::default(),
    );
    resets.iter().for_each(|path| reset(&mut root, path));
    let services = root.as_map_mut().and_then(|root| root.get_mut("services")).and_then(Node::as_map_mut);
    services.and_then(|services| services.get_mut(name)).map(std::mem::take).unwrap_or_default()
}
