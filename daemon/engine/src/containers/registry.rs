//! All containers, by id and by name. A name is taken before its container exists.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::container::Container;
use crate::error::{EngineError, Result};

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Containers(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name → id.
    names: HashMap<String, String>,
}

/// A name that is taken; given back when dropped, unless its container was added.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    containers: &'a Containers,
    pub(crate) name: String,
    kept: bool,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.containers.write().names.remove(&self.name);
        }
    }
}

impl Inner {
    /// The container that another one's link calls so: `/other/alias`.
    fn linked(&self, wanted: &str) -> Option<Arc<Container>> {
        let (parent, alias) = wanted.trim_start_matches('/').split_once('/')?;
        let parent = self.names.get(parent).and_then(|id| self.by_id.get(id))?.definition();
        let link = parent.links.iter().find(|link| link.alias == alias)?;
        self.by_id.get(&link.to).cloned()
    }
}

impl Containers {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for the container that will have this id.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<Reserved<'_>> {
        let mut inner = self.write();
        if let Some(owner) = inner.names.get(name) {
            return Err(taken(name, owner));
        }
        inner.names.insert(name.to_owned(), id.to_owned());
        Ok(Reserved { containers: self, name: name.to_owned(), kept: false })
    }

    /// Makes a container visible.
    pub(crate) fn add(&self, container: Arc<Container>, mut reserved: Reserved<'_>) {
        reserved.kept = true;
        self.write().by_id.insert(container.id.clone(), container);
    }

    /// Makes a container of an earlier daemon visible.
    pub(crate) fn restore(&self, container: Arc<Container>) {
        let mut inner = self.write();
        inner.names.insert(container.name(), container.id.clone());
        inner.by_id.insert(container.id.clone(), container);
    }

    pub(crate) fn remove(&self, container: &Container) {
        let mut inner = self.write();
        inner.by_id.remove(&container.id);
        inner.names.retain(|_, id| *id != container.id);
    }

    /// Gives a container another name, if `write` succeeds.
    pub(crate) fn rename(
        &self,
        container: &Container,
        new: &str,
        write: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut inner = self.write();
        if let Some(owner) = inner.names.get(new) {
            return Err(taken(new, owner));
        }
        write()?;
        inner.names.retain(|_, id| *id != container.id);
        inner.names.insert(new.to_owned(), container.id.clone());
        Ok(())
    }

    /// The container of a full id, a name or a unique prefix of an id, in this order.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Container>> {
        let inner = self.read();
        if let Some(container) = inner.by_id.get(wanted) {
            return Ok(Arc::clone(container));
        }
        if let Some(linked) = inner.linked(wanted) {
            return Ok(linked);
        }
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Some(container) = inner.names.get(name).and_then(|id| inner.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        let none = || EngineError::not_found(format!("No such container: {wanted}"));
        if wanted.is_empty() {
            return Err(none());
        }
        let mut matching =
            inner.by_id.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                Err(EngineError::invalid(format!("multiple IDs found with provided prefix: {wanted}")))
            }
            (None, _) => Err(none()),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }
}

fn taken(name: &str, owner: &str) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove \
         (or rename) that container to be able to reuse that name."
    ))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Definition, Status};
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Containers {
        let containers = Containers::default();
        for (id, name) in pairs {
            let definition = Definition { id: (*id).into(), name: (*name).into(), ..Definition::default() };
            let reserved = containers.reserve(name, id).unwrap();
            containers.add(Arc::new(Container::new(definition, Status::default())), reserved);
        }
        containers
    }

    #[test]
    fn lookup_prefers_id_then_name_then_prefix() {
        let containers = with(&[("aa11", "bb22"), ("bb22", "web"), ("bb33", "db")]);
        let id = |wanted| containers.find(wanted).map(|container| container.id.clone());
        assert_eq!(id("bb22").unwrap(), "bb22");
        assert_eq!(id("/web").unwrap(), "bb22");
        assert_eq!(id("aa").unwrap(), "aa11");
        assert_eq!(id("bb").unwrap_err().message(), "multiple IDs found with provided prefix: bb");
        assert_eq!(id("zz").unwrap_err().message(), "No such container: zz");
        assert!(id("").is_err());
    }

    #[test]
    fn names_are_given_back_by_failed_creations_only() {
        let containers = with(&[("aa11", "web")]);
        drop(containers.reserve("db", "bb").unwrap());
        containers.reserve("db", "cc").unwrap();
        let error = containers.reserve("web", "dd").unwrap_err();
        assert!(
            error.message().starts_with(
                "Conflict. The container name \"/web\" is already in use by container \"aa11\"."
            )
        );
        let container = containers.find("web").unwrap();
        containers.rename(&container, "new", || Ok(())).unwrap();
        assert!(containers.reserve("web", "ee").is_ok());
        containers.remove(&container);
        assert!(containers.reserve("new", "ff").is_ok());
    }
}
